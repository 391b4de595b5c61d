"""Middle slices of CT whose tissues have known Hounsfield units: are those of the drawn images where they belong?

  B=scripts/bench/scans_ct.py
  .venv/bin/medtwin hospital n=1600 seed=8 keep='age(30,120) & image(CT)' out=my/hospital
  .venv/bin/medtwin ingest source=my/hospital out=my/ct
  .venv/bin/python $B --dataset my/ct --out my/ct_bench [--minutes 115] [--write docs/results/scans_ct.md]

Trains experiment=scans_64_ct and, beside it, the Gaussian mixture (model=scan_gmm), and draws with the conditions of
training images. The embedded hospital paints air, fat, soft tissue and marrow with Hounsfield units that are known.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from head_commit import head_commit
from numpy.typing import NDArray
from pages import said_lines, tell
from scans_radiographs import asked, limit_of, train
from scans_remembered import EXPLAINED, HEADS, remembered
from scans_volumes import commonest, counts_near, peak
from scipy.stats import wasserstein_distance

from medtwin.check.image_features import encode_sides
from medtwin.check.pictures import Picture
from medtwin.config import compose
from medtwin.core.dataset import open_dataset
from medtwin.core.images import table_to_images
from medtwin.hospital.anatomy import LAWS
from medtwin.pipelines.runs import load_run
from medtwin.scans.cache import Form, read_cached_as
from medtwin.scans.drawing import Sampling
from medtwin.scans.features import random_encoder
from medtwin.scans.generate import ScanModel
from medtwin.scans.intensity import HU_RANGE

SIZE = 64
TISSUES = {
    "air": LAWS.hu_air,
    "fat": LAWS.hu_fat,
    "soft tissue": (LAWS.hu_muscle + LAWS.hu_blood) / 2,
    "marrow": LAWS.hu_trabecular,
}
"""As the hospital paints them."""
TOLERANCE_HU, NUM_RESAMPLES = 15.0, 200
Values = NDArray[np.float32]


def real(dataset: Path, splits: Sequence[str], cache: Path) -> tuple[Values, list[int]]:
    """Middle slices of the subjects of some splits in HU, (n, SIZE, SIZE), resized as for training; whose they are."""
    opened = open_dataset(dataset)
    split_of = opened.subject_splits()
    rows = [row for row in table_to_images(opened.images()) if row.modality == "CT"]
    rows = [row for row in rows if split_of.get(row.subject_id) in splits]
    images = read_cached_as(opened, rows, cache, Form.squares(SIZE, "pad"))
    return np.stack([images.values(place) for place in range(len(rows))]), [row.subject_id for row in rows]


def drawn(run: Path, dataset: Path, count: int, seed: int, num_steps: int) -> Values:
    """Images of a run in HU, (count, SIZE, SIZE), under the conditions of training images."""
    module, _ = load_run(run)
    model = ScanModel.load(module, run, Sampling())
    requests = asked(dataset, count, "ct", seed, modalities=("CT",))
    images = model.sample(requests, seed=seed, num_steps=num_steps)
    return np.stack([each.pixels for each in images]).astype(np.float32)


def row(title: str, images: Values, other: Values) -> str:
    """Peaks with what they are over resampled images, the share of pixels near each, and the distance of all values."""
    rng = np.random.default_rng(0)
    cells, far = [], []
    for name, value in TISSUES.items():
        counts = np.stack([counts_near(image, value) for image in images])
        found = commonest(counts.sum(axis=0), value)
        chosen = rng.integers(len(images), size=(NUM_RESAMPLES, len(images)))
        again = [commonest(counts[each].sum(axis=0), value) for each in chosen]
        low, high = np.percentile(again, (2.5, 97.5))
        share = (np.abs(images - value) < TOLERANCE_HU).mean()
        cells.append(f"{found:.0f} ({low:.0f} to {high:.0f}) | {share:.1%}")
        if not abs(found - peak(other, value)) <= TOLERANCE_HU:
            far.append(name)
    distance = wasserstein_distance(images.ravel()[::7], other.ravel()[::7])
    return f"| {title} | {len(images)} | {' | '.join(cells)} | {distance:.1f} | {', '.join(far) or 'none'} |"


def pictures(images: Values, subjects: Sequence[int] | None = None) -> list[Picture]:
    """As `check` compares them: from 0 to 1 over HU_RANGE, in an order of no meaning; drawn ones are nobody's."""
    low, high = HU_RANGE
    shown = ((images.clip(low, high) - low) / (high - low)).astype(np.float32)
    whose = range(-1, -len(shown) - 1, -1) if subjects is None else subjects
    order = np.random.default_rng(1).permutation(len(shown)).tolist()
    return [Picture(whose[place], "CT", shown[place], shown[place].tobytes(), SIZE) for place in order]


def page(chosen: argparse.Namespace, known: str) -> str:
    """The page as Markdown; `known` is the page as it was, of which what is written by hand stays."""
    dataset, out = chosen.dataset.resolve(), chosen.out.resolve()
    start, cache = time.perf_counter(), out / "cache"
    shared = [f"dataset={dataset}", f"seed={chosen.seed}", f"cache={cache}"]
    alike = compose("train", ["experiment=scans_64_ct"])["data"]  # the baseline sees what the experiment does
    wanted = ["data.modalities=[CT]", f"data.size={SIZE}"]
    wanted += [f"data.{name}={alike[name]}" for name in ("slices", "hu_softening")]
    if not (out / "mixture").is_dir():
        train(["model=scan_gmm", *shared, *wanted, f"out={out / 'mixture'}"])
    if not (out / "ours").is_dir():
        limit = f"trainer.max_time={limit_of(chosen.minutes)}"
        precision = "trainer.precision=bf16-mixed"
        train(["experiment=scans_64_ct", *shared, limit, precision, *chosen.override, f"out={out / 'ours'}"])
    (learned, theirs), (other, others) = real(dataset, ["train"], cache), real(dataset, ["tuning", "held_out"], cache)
    made = {steps: drawn(out / "ours", dataset, chosen.num, chosen.seed, steps) for steps in (20, 4)}
    mixture = drawn(out / "mixture", dataset, chosen.num, chosen.seed, 20)
    np.savez_compressed(out / "drawn.npz", ours=made[20], mixture=mixture)
    shown = {
        "experiment=scans_64_ct, 20 evaluations": made[20],
        "model=scan_gmm": mixture,
        "training images": learned[: chosen.num],
    }
    compared = pictures(learned, theirs), pictures(other, others), *map(pictures, shown.values())
    sides = encode_sides(random_encoder(), *compared)
    heads = " | ".join(f"{name}, HU | near {value:g}" for name, value in TISSUES.items())
    lines = [
        "# Hounsfield units of CT",
        "",
        f"Command: `scripts/bench/scans_ct.py --minutes {chosen.minutes:g} --seed {chosen.seed}` on the embedded "
        f"hospital (its help says how); commit {head_commit()}; {time.perf_counter() - start:.0f} s. The commonest "
        f"value near a tissue's, with the middle 95 % over {NUM_RESAMPLES} resamples of images, and the share of all "
        f"pixels within {TOLERANCE_HU:g} HU of it; the mean distance of all values from those of other patients "
        f"(Wasserstein, HU). Off: peaks more than {TOLERANCE_HU:g} HU from those of other patients.",
        "",
        *said_lines(known),
        "## Peaks",
        "",
        f"| | images | {heads} | distance, HU | off |",
        f"|---|---|{'---|' * (2 * len(TISSUES) + 2)}",
        row("real images of other patients", other, other),
        row("training images", learned, other),
        row("the same, 20 HU brighter", learned + 20, other),
        row("experiment=scans_64_ct, 20 evaluations", made[20], other),
        row("the same, 4 evaluations", made[4], other),
        row("model=scan_gmm", mixture, other),
        "",
        "## Remembered",
        "",
        f"{EXPLAINED} Of {HU_RANGE[0]:g} to {HU_RANGE[1]:g} HU. Training images in place of drawn ones: the control.",
        "",
        f"| | {HEADS} |",
        "|---|---|---|---|---|",
        *(
            f"| {title} | {remembered(sides[0], side, sides[1])} |"
            for title, side in zip(shown, sides[2:], strict=True)
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Trains what is not there yet, measures, prints the page, and writes it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="directory of medtwin ingest, with CT")
    parser.add_argument("--out", type=Path, required=True, help="where runs and drawn images are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=115, help="of training")
    parser.add_argument("--num", type=int, default=128, help="images to draw")
    parser.add_argument("--override", action="append", default=[], help="a further setting of medtwin train")
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file; what it says by hand stays")
    chosen = parser.parse_args()
    tell(lambda known: page(chosen, known), chosen.write)


if __name__ == "__main__":
    main()
