"""The page of `scans_radiographs.py`: are the images near real ones, diverse, as they were asked for, and no copies?

Distances go by features that nobody trained (`random_encoder`), on as many images of each arm; an arm's seeds are runs
of their own. The reference are the training images; what real images of other patients reach stands beside every
number. Judges are those of `scans_radiographs_judges.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from head_commit import head_commit
from pages import said_lines
from scans_radiographs import ARMS, CHANGES, FEW, NUM_COMPARED
from scans_radiographs_judges import AGE, ILL, SEX, VIEW, dealt_anew, judge, learned_from, seen_in, some, together
from scans_remembered import EXPLAINED, HEADS, remembered
from sklearn.metrics import roc_auc_score

from medtwin.check.image_features import Encoded, encode_sides, kid, projected
from medtwin.check.neighbours import prdc
from medtwin.check.pictures import Picture, read_pictures, resample, subjects_of
from medtwin.core.dataset import open_dataset
from medtwin.scans.counterfactual import share_identified
from medtwin.scans.features import random_encoder

MARGIN, NUM_HALVES = 0.05, 20
TITLES = {
    "ours": "medtwin, dpmpp_2m, 20 evaluations",
    "ours in 4": "medtwin, dpmpp_2m, 4 evaluations",
    "few-steps": "medtwin, few-step model, 4 evaluations",
    "monai": "MONAI DiffusionModelUNet, DDIM, 50 evaluations",
}
SHORT = {"ours": "dpmpp_2m", "few-steps": "few-step model"}
EVALUATIONS = {"ours": 20, "few-steps": 4}
REAL = "real images of other patients"


@dataclass(frozen=True)
class Drawn:
    """The images of one arm and seed.

    Attributes:
        told: What the run said: train_s, steps, draw_s_per_image.
    """

    arm: str
    seed: int
    pictures: list[Picture]
    told: dict[str, Any]


def read_drawn(folder: Path, arms: Sequence[str] = ARMS) -> list[Drawn]:
    """All that was drawn into a folder for some arms."""
    found = []
    for arm in arms:
        for path in sorted(folder.glob(f"{arm}_*.json")):
            told = json.loads(path.read_text(encoding="utf-8"))
            pixels = np.load(path.with_suffix(".npz"))["pixels"].astype(np.float32) / 4095
            seed = int(path.stem.removeprefix(f"{arm}_"))
            pictures = [
                Picture(
                    subject_id=-(number + 1),
                    group=" ".join(filter(None, (one["modality"], one["view"]))),
                    pixels=image,
                    digest=image.tobytes(),
                    size=len(image),
                    view=one["view"],
                    sex=one["sex"],
                    age_years=one["age_years"],
                    labels=None if one["labels"] is None else tuple(one["labels"]),
                )
                for number, (one, image) in enumerate(zip(told.pop("asked"), pixels, strict=True))
            ]
            found.append(Drawn(arm, seed, pictures, told))
    return found


@dataclass(frozen=True)
class Sides:
    """Real training images, real images of other patients, and the drawn ones, with features.

    Attributes:
        real, other, made: Encoded; `made` as `drawn`. rows: Places in `drawn`, by arm.
    """

    real: Encoded
    other: Encoded
    made: list[Encoded]
    drawn: list[Drawn]

    @property
    def rows(self) -> dict[str, list[int]]:
        """Places in `drawn` of each arm that there is."""
        places = {arm: [i for i, each in enumerate(self.drawn) if each.arm == arm] for arm in ARMS}
        return {arm: found for arm, found in places.items() if found}


def distances(real: Encoded, made: Encoded) -> tuple[float, float]:
    """KID and coverage of as many images of both sides."""
    count = min(NUM_COMPARED, len(real.pictures), len(made.pictures))
    first, second = (some(side, np.arange(count)) for side in (real, made))
    subjects = subjects_of(first.pictures), subjects_of(second.pictures)
    return kid(first.features, second.features, *subjects), prdc(first.features, second.features).coverage


def between_halves(real: Encoded) -> list[tuple[float, float]]:
    """The same between real images and as many of other patients, several times."""
    subjects, found = subjects_of(real.pictures), []
    for seed in range(NUM_HALVES):
        order = np.random.default_rng(seed).permutation(np.unique(subjects))
        first = np.isin(subjects, order[: len(order) // 2])
        found.append(distances(*(some(real, np.flatnonzero(each)) for each in (first, ~first))))
    return found


def page(dataset: Path, folder: Path, known: str = "") -> str:
    """The page as Markdown; `known` is the page as it was, of which what is written by hand stays."""
    drawn, changed = read_drawn(folder), read_drawn(folder, [f"changed {name}" for name in CHANGES])
    names = [f"{arm} in {number}" for arm, numbers in FEW.items() for number in numbers]
    few = read_drawn(folder, [name for name in names if name not in ARMS])
    size = drawn[0].pictures[0].size
    real, other = (
        [
            replace(one, pixels=resample(one.pixels, size), size=size)
            for one in read_pictures(open_dataset(dataset), splits, seed=0)
        ]
        for splits in (["train"], ["tuning", "held_out"])
    )
    real = [real[row] for row in np.random.default_rng(1).permutation(len(real))]
    encoded = encode_sides(random_encoder(), real, other, *(each.pictures for each in [*drawn, *few, *changed]))
    sides = Sides(encoded[0], encoded[1], encoded[2 : 2 + len(drawn)], drawn)
    narrow = projected(encoded[: 2 + len(drawn) + len(few)], 0)
    lines = [
        f"# Radiographs of {size} x {size} pixels, beside MONAI",
        "",
        f"Commands: `scripts/bench/scans_radiographs.py` (its help shows them); commit {head_commit()}. "
        f"{len(real)} training images, {len(other)} of {len({one.subject_id for one in other})} patients from whom "
        f"nothing is learned (some chose the average of medtwin's weights); distances of at most {NUM_COMPARED} images "
        "a side.",
        "",
        *said_lines(known),
        "## Near real images, and diverse",
        "",
        "Mean (least to most) over seeds; of real images over random halves. KID by random convolutions; to training "
        "images, and to those of other patients.",
        "",
        *_distances(replace(sides, real=narrow[0], other=narrow[1], made=narrow[2 : 2 + len(drawn)])),
        "",
        *_in_few([*drawn, *few], narrow[0], narrow[2:]),
        "## As they were asked for",
        "",
        *_adherence(sides),
        "",
    ]
    if changed:
        of_changed = encoded[2 + len(drawn) + len(few) :]
        lines += ["## The same patients under other conditions", "", *_changed(sides, changed, of_changed), ""]
    lines += ["## Learned from, and tested on real images", "", *_learned(sides), ""]
    lines += ["## Remembered", "", *_remembered(sides)]
    return "\n".join(lines) + "\n"


def _distances(sides: Sides) -> list[str]:
    cells = _pairs(between_halves(sides.real))
    lines = [
        "| | seeds | steps | s to train | s to draw an image | KID | coverage | KID, other patients | coverage |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| {REAL} | | | | | {' | '.join([*cells, *_pairs([distances(sides.other, sides.real)])])} |",
    ]
    for arm, rows in sides.rows.items():
        told = [sides.drawn[row].told for row in rows]
        cells_of_arm = [
            str(len(rows)),
            _spread([each["steps"] for each in told], 0),
            _spread([each["train_s"] for each in told], 0),
            _spread([each["draw_s_per_image"] for each in told], 2),
            *(
                cell
                for side in (sides.real, sides.other)
                for cell in _pairs([distances(side, sides.made[i]) for i in rows])
            ),
        ]
        lines.append(f"| {TITLES[arm]} | {' | '.join(cells_of_arm)} |")
    return lines


def _in_few(drawn: Sequence[Drawn], real: Encoded, made: Sequence[Encoded]) -> list[str]:
    """Distances by the number of evaluations; nothing where none but their own was tried."""
    found: dict[tuple[str, int], list[int]] = {}
    for place, each in enumerate(drawn):
        arm, _, number = each.arm.partition(" in ")
        if arm in FEW:
            found.setdefault((arm, int(number or EVALUATIONS[arm])), []).append(place)
    if len(found) <= len(FEW):
        return []
    lines = ["By the number of evaluations:", "", "| | evaluations | seeds | s to draw an image | KID | coverage |"]
    lines.append("|---|---|---|---|---|---|")
    for (arm, number), rows in sorted(found.items()):
        seconds = _spread([drawn[row].told["draw_s_per_image"] for row in rows], 2)
        cells = _pairs([distances(real, made[row]) for row in rows])
        lines.append(f"| {SHORT[arm]} | {number} | {len(rows)} | {seconds} | {' | '.join(cells)} |")
    return [*lines, ""]


def _pairs(found: Sequence[tuple[float, float]]) -> list[str]:
    """Cells of KID and coverage."""
    return [_spread([one[0] for one in found], 2), _spread([one[1] for one in found])]


def _adherence(sides: Sides) -> list[str]:
    targets = [target for target in (VIEW, SEX, ILL, AGE) if target.varies(sides.real)]
    heads = [f"{target.name}, {what}" for target in targets for what in target.measures]
    lines = [
        "What judges of real images see: the area under the ROC curve and the share that is right; of age the "
        "correlation with what was asked, and the slope on it.",
        "",
        f"| | {' | '.join(heads)} |",
        f"|---|{'---|' * len(heads)}",
    ]
    judges = [judge(target, sides.real) for target in targets]

    def row(title: str, chosen: Sequence[Encoded]) -> str:
        cells = []
        for target, see in zip(targets, judges, strict=True):
            cells += [_spread(values) for values in zip(*(seen_in(target, see, side) for side in chosen), strict=True)]
        return f"| {title} | {' | '.join(cells)} |"

    lines.append(row(REAL, [sides.other]))
    lines += [row(TITLES[arm], [sides.made[i] for i in rows]) for arm, rows in sides.rows.items()]
    return lines


def _changed(sides: Sides, changed: Sequence[Drawn], of_changed: Sequence[Encoded]) -> list[str]:
    """What the judges see change, and whether the patient stays."""
    of_age, of_illness = (judge(target, sides.real) for target in (AGE, ILL))
    _, slope = seen_in(AGE, of_age, sides.other)
    by_seed: dict[int, dict[str, tuple[Drawn, Encoded]]] = {}
    for each, side in zip(changed, of_changed, strict=True):
        by_seed.setdefault(each.seed, {})[each.arm.removeprefix("changed ")] = each, side
    lines = [
        f"The same key and seed. Of a year more the judge of age sees {slope:.2f} in real images. A patient is found "
        "again whose image is nearer to the own other one than to that of anybody else, each set about its mean "
        "(chance: one over the patients).",
        "",
        "| seed | patients | seen older at 70 than at 40, years | over 30 times the real slope | found again "
        "| pneumonia without against with, area | found again |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed, pair in sorted(by_seed.items()):
        young, old, without, having = (pair[name] for name in CHANGES)
        older = of_age(old[1]) - of_age(young[1])
        half = 1.96 * older.std(ddof=1) / np.sqrt(len(older))
        scores = np.concatenate([of_illness(one[1]) for one in (without, having)])
        area = roc_auc_score(np.repeat([0, 1], len(older)), scores)
        again = [
            share_identified(*(np.stack([one.pixels for one in each[0].pictures]) for each in both))
            for both in ((young, old), (without, having))
        ]
        lines.append(
            f"| {seed} | {len(older)} | {older.mean():.1f} ({older.mean() - half:.1f} to {older.mean() + half:.1f}) | "
            f"{older.mean() / (30 * slope):.2f} | {again[0]:.2f} | {area:.3f} | {again[1]:.2f} |"
        )
    return lines


def _learned(sides: Sides) -> list[str]:
    lines = [
        "Pneumonia, learned from the images of all seeds of an arm, and from those and the real ones together; areas "
        "within view. Loss: of area against training on real images, 95 % interval (paired bootstrap of patients); "
        f"non-inferior: all of it below {MARGIN:g}. Findings dealt anew: the control, from which nothing is learned.",
        "",
        "| learned from | images | tested on | area, real | area | loss | | accuracy, real | accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    views = sorted({one.view or "" for one in sides.other.pictures})
    tested = [views, *([one] for one in views if len(views) > 1)]
    for arm, rows in sides.rows.items():
        made = together([sides.made[row] for row in rows])
        cases = (
            (TITLES[arm], made, tested),
            ("the same and real", together([made, sides.real]), tested),
            ("the same, findings dealt anew", dealt_anew(made), [views]),
        )
        for title, side, tests in cases:
            for chosen in tests:
                found = learned_from(side, sides.real, sides.other, chosen)
                lines.append(
                    f"| {title} | {len(side.pictures)} | {', '.join(chosen) or 'all'} | {found.area[0]:.3f} | "
                    f"{found.area[1]:.3f} | {found.loss:.3f} ({found.low:.3f} to {found.high:.3f}) | "
                    f"{found.verdict(MARGIN)} | {found.accuracy[0]:.3f} | {found.accuracy[1]:.3f} |"
                )
    return lines


def _remembered(sides: Sides) -> list[str]:
    lines = [EXPLAINED, "", f"| | seed | {HEADS} |", "|---|---|---|---|---|---|"]
    for each, side in zip(sides.drawn, sides.made, strict=True):
        lines.append(f"| {TITLES[each.arm]} | {each.seed} | {remembered(sides.real, side, sides.other)} |")
    return lines


def _spread(values: Sequence[float], digits: int = 3) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
