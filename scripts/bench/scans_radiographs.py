"""The diffusion model on radiographs, beside MONAI's network and DDIM given the same time: images and what they show.

  B=scripts/bench/scans_radiographs.py
  .venv/bin/python $B ours --dataset my/cxr --seed 0 --minutes 20 --out my/bench
  .venv/bin/python $B few-steps --dataset my/cxr --seed 0 --minutes 10 --out my/bench
  .venv/bin/python $B monai --dataset my/cxr --seed 0 --minutes 20 --out my/bench
  .venv/bin/python $B in-few --dataset my/cxr --seed 0 --out my/bench
  .venv/bin/python $B changed --dataset my/cxr --seed 0 --out my/bench
  .venv/bin/python $B report --dataset my/cxr --out my/bench [--write docs/results/scans_radiographs.md]

ours       medtwin train experiment=scans_64, then dpmpp_2m with 20 evaluations; again, with another --num: only draws
few-steps  medtwin train experiment=scans_64_few_steps from there, then 4 evaluations
in-few     from the runs of both, 1 to 8 evaluations
changed    from the run of ours, the same patients at 40 and at 70, without and with pneumonia: same keys and seed
monai      DiffusionModelUNet with 1,000 steps of noise, the conditions by cross-attention, then DDIM with 50

MONAI's is trained on the same images, 16 at a time, in the same precision and with the same moving average, by AdamW
at `--rate`, which rises and falls as that of scans_64. Each draws images under the conditions of training images, with
one thread.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from numpy.typing import NDArray
from pages import tell
from scans_speed import in_precision, monai_net
from torch import Tensor, nn

from medtwin.core.dataset import open_dataset
from medtwin.core.images import table_to_images
from medtwin.pipelines.runs import load_run
from medtwin.scans.conditions import ScanRequest, row_to_request
from medtwin.scans.data import ScanDataModule
from medtwin.scans.drawing import Sampling
from medtwin.scans.generate import ScanModel
from medtwin.scans.module import LearningRate, ScanDiffusionModule
from medtwin.training.averaging import Averaging

ROOT = Path(__file__).resolve().parent.parent.parent
BATCH = 16
NUM_COMPARED, NUM_CHANGED = 256, 96
"""Images of every arm that are compared with real ones, and patients who are drawn under other conditions."""
ARMS = ("ours", "ours in 4", "few-steps", "monai")
FEW: dict[str, tuple[int, ...]] = {"ours": (2, 4, 8), "few-steps": (1, 2, 8)}
"""The numbers of evaluations, besides its own, that a run is tried with (`in-few`)."""
PNEUMONIA = "SNOMED//233604007"
CHANGES: dict[str, dict[str, Any]] = {
    "aged 40": {"age_years": 40.0},
    "aged 70": {"age_years": 70.0},
    "without": {"labels": ()},
    "with": {"labels": (PNEUMONIA,)},
}
"""What the same patients are asked to be."""
TRAINED_STEPS, MONAI_EVALUATIONS = 1000, 50
Images = NDArray[np.float32]


def asked(
    dataset: Path, count: int, arm: str, seed: int, modalities: Sequence[str] = ("CR", "DX")
) -> list[ScanRequest]:
    """Requests with the conditions of training images of some modalities, each as often as the other."""
    opened = open_dataset(dataset)
    split_of = opened.subject_splits()
    rows = [row for row in table_to_images(opened.images()) if row.modality in modalities]
    rows = [row for row in rows if split_of.get(row.subject_id) == "train"]
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = itertools.islice(itertools.cycle(order.tolist()), count)
    return [
        replace(row_to_request(rows[place], None), key=f"{arm} {seed} {number}") for number, place in enumerate(chosen)
    ]


def write(
    out: Path, arm: str, seed: int, pixels: Images, requests: Sequence[ScanRequest], told: dict[str, Any]
) -> None:
    """Pixels from 0 to 1 over the stored range, (n, size, size), and what they were asked to show."""
    out.mkdir(parents=True, exist_ok=True)
    shown = [
        {"view": r.view, "sex": r.sex, "age_years": r.age_years, "labels": r.labels, "modality": r.modality}
        for r in requests
    ]
    np.savez_compressed(out / f"{arm}_{seed}.npz", pixels=np.round(pixels * 4095).astype(np.uint16))
    (out / f"{arm}_{seed}.json").write_text(json.dumps({**told, "asked": shown}), encoding="utf-8")


def _unit(stored: NDArray[Any], bits: int) -> Images:
    return (stored / (2**bits - 1)).astype(np.float32)


def train(settings: Sequence[str]) -> float:
    """Runs `medtwin train`; returns its seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "medtwin", "train", *settings], cwd=ROOT, check=True)
    return time.perf_counter() - start


def limit_of(minutes: float) -> str:
    """As `trainer.max_time` takes it, DD:HH:MM:SS."""
    hours, seconds = divmod(round(minutes * 60), 3600)
    return f"00:{hours:02d}:{seconds // 60:02d}:{seconds % 60:02d}"


def _model(run: Path, sampler: str) -> tuple[ScanModel, int]:
    """What draws, and the steps that it was trained for."""
    module, _ = load_run(run)
    assert isinstance(module, ScanDiffusionModule)
    model = ScanModel.load(module, run, Sampling(sampler=sampler))
    return model, int(module.num_averaged)


def _drawn(model: ScanModel, requests: Sequence[ScanRequest], seed: int, num_steps: int) -> Images:
    images = model.sample(requests, seed=seed, num_steps=num_steps)
    return np.stack([_unit(each.pixels, each.bits_stored) for each in images])


def ours(chosen: argparse.Namespace) -> None:
    """Trains and draws with medtwin."""
    few = chosen.arm == "few-steps"
    run = chosen.out / f"{chosen.arm}_{chosen.seed}"
    settings = [
        f"dataset={chosen.dataset}", f"seed={chosen.seed}", f"out={run}", f"cache={chosen.out / 'cache'}",
        f"trainer.precision={'bf16-mixed' if chosen.precision == 'bf16' else '32-true'}",
        f"trainer.max_time={limit_of(chosen.minutes)}", f"data.size={chosen.size}", *chosen.override,
    ]  # fmt: skip
    start = ["experiment=scans_64"]
    if few:
        start = ["experiment=scans_64_few_steps", f"ckpt_path={chosen.out / f'ours_{chosen.seed}'}"]
        settings.append("model.training.guidance=1")
    told = chosen.out / f"{chosen.arm}_{chosen.seed}.json"
    if run.is_dir() and told.is_file():  # trained before: other images are asked for, of which the first are the same
        seconds = json.loads(told.read_text(encoding="utf-8"))["train_s"]
    else:
        seconds = train([*start, *settings])
    model, steps = _model(run, "shortcut" if few else "dpmpp_2m")
    requests = asked(chosen.dataset, chosen.num, chosen.arm, chosen.seed)
    begin = time.perf_counter()
    pixels = _drawn(model, requests, chosen.seed, 4 if few else 20)
    spent = (time.perf_counter() - begin) / len(requests)
    about = {"train_s": seconds, "draw_s_per_image": spent, "steps": steps}
    write(chosen.out, chosen.arm, chosen.seed, pixels, requests, about)


def in_few(chosen: argparse.Namespace) -> None:
    """Draws with few evaluations by the runs of `ours` and `few-steps`."""
    for arm, numbers in FEW.items():
        model, steps = _model(chosen.out / f"{arm}_{chosen.seed}", "shortcut" if arm == "few-steps" else "dpmpp_2m")
        for number in numbers:
            name = f"{arm} in {number}"
            requests = asked(chosen.dataset, chosen.num, name, chosen.seed)
            begin = time.perf_counter()
            pixels = _drawn(model, requests, chosen.seed, number)
            about = {"train_s": 0.0, "draw_s_per_image": (time.perf_counter() - begin) / len(requests), "steps": steps}
            write(chosen.out, name, chosen.seed, pixels, requests, about)


def changed(chosen: argparse.Namespace) -> None:
    """Draws the same patients under other conditions, by the run of `ours`."""
    model, _ = _model(chosen.out / f"ours_{chosen.seed}", "dpmpp_2m")
    requests = asked(chosen.dataset, min(chosen.num, NUM_CHANGED), "changed", chosen.seed)
    for name, change in CHANGES.items():
        wanted = [replace(request, **change) for request in requests]
        write(chosen.out, f"changed {name}", chosen.seed, _drawn(model, wanted, chosen.seed, 20), wanted, {})


def token(values: Tensor, known: Tensor) -> Tensor:
    """Conditions as MONAI's cross-attention takes them, (batch, 1, width)."""
    return torch.cat([values, known], dim=1)[:, None]


def _batches(data: ScanDataModule) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and their conditions, without end."""
    while True:
        for batch in data.train_dataloader():
            yield batch["image"], token(batch["values"], batch["known"])


def monai(chosen: argparse.Namespace) -> None:
    """Trains MONAI's network and draws by its DDIM."""
    torch.manual_seed(chosen.seed)
    data = ScanDataModule(batch_size=BATCH, size=chosen.size, balance=0.6)
    data.attach(open_dataset(chosen.dataset), seed=chosen.seed, cache=chosen.out / "cache")
    net = monai_net(sum(data.spec.widths) + len(data.spec.widths))
    averaging, average = Averaging(half_life_steps=100.0), copy.deepcopy(net).requires_grad_(False)
    inferer = DiffusionInferer(DDPMScheduler(TRAINED_STEPS, schedule=chosen.schedule))
    optimizer = torch.optim.AdamW(net.parameters(), lr=chosen.rate)
    rate = LearningRate(warmup_steps=30, decay_share=0.35)
    begin, limit, steps = time.perf_counter(), chosen.minutes * 60, 0
    for images, context in _batches(data):
        spent = (time.perf_counter() - begin) / limit
        if spent >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = chosen.rate * rate.factor(steps, math.inf, spent)
        noise, times = torch.randn_like(images), torch.randint(0, TRAINED_STEPS, (len(images),))
        with in_precision(chosen.precision):
            predicted = inferer(images, net, noise, times, condition=context)
        loss = nn.functional.mse_loss(predicted.float(), noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        steps += 1
        averaging.move(average, net, steps)
        if steps % 50 == 0:
            print(f"{steps} steps, loss {loss.item():.4f}", flush=True)
    seconds = time.perf_counter() - begin
    requests = asked(chosen.dataset, chosen.num, chosen.arm, chosen.seed)
    begin = time.perf_counter()
    pixels = _drawn_by_ddim(average.eval(), data, requests, chosen)
    told = {"train_s": seconds, "draw_s_per_image": (time.perf_counter() - begin) / len(requests), "steps": steps}
    write(chosen.out, chosen.arm, chosen.seed, pixels, requests, told)


def _drawn_by_ddim(
    net: nn.Module, data: ScanDataModule, requests: Sequence[ScanRequest], chosen: argparse.Namespace
) -> Images:
    scheduler = DDIMScheduler(TRAINED_STEPS, schedule=chosen.schedule)
    scheduler.set_timesteps(MONAI_EVALUATIONS)
    inferer, generator, images = DiffusionInferer(scheduler), torch.Generator().manual_seed(chosen.seed), []
    for start in range(0, len(requests), BATCH):
        part = requests[start : start + BATCH]
        context = token(*(torch.from_numpy(each) for each in data.spec.encode(part)))
        noise = torch.randn(len(part), 1, chosen.size, chosen.size, generator=generator)
        with in_precision(chosen.precision), torch.inference_mode():
            made = inferer.sample(noise, net, scheduler, conditioning=context, verbose=False)
        for image, request in zip(made.float().clamp(-1, 1).numpy()[:, 0], part, strict=True):
            stored = data.intensity.to_stored(image, request.modality)
            images.append(_unit(stored, data.intensity.bits_written(request.modality)))
    return np.stack(images)


def main() -> None:
    """Does what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=["ours", "few-steps", "monai", "in-few", "changed", "report"])
    parser.add_argument("--dataset", type=Path, required=True, help="directory of medtwin ingest, labels=nih_cxr")
    parser.add_argument("--out", type=Path, required=True, help="where runs and drawn images are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20, help="of training")
    parser.add_argument("--size", type=int, default=64, help="rows and columns of the images")
    parser.add_argument("--num", type=int, default=NUM_COMPARED, help="images to draw")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16", help="of both arms")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of MONAI's")
    parser.add_argument("--schedule", default="cosine", help="noise of MONAI's, the best of scans_samplers.md")
    parser.add_argument("--override", action="append", default=[], help="a further setting of medtwin train")
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file; what it says by hand stays")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.out, chosen.dataset = chosen.out.resolve(), chosen.dataset.resolve()
    if chosen.arm != "report":
        arms = {"ours": ours, "few-steps": ours, "in-few": in_few, "changed": changed, "monai": monai}
        arms[chosen.arm](chosen)
        return
    from scans_radiographs_report import page

    tell(lambda known: page(chosen.dataset, chosen.out, known), chosen.write)


if __name__ == "__main__":
    main()
