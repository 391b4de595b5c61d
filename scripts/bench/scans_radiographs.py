"""The diffusion model on radiographs, beside MONAI's network and DDIM given the same time: images and what they show.

  B=scripts/bench/scans_radiographs.py
  .venv/bin/python $B ours --dataset my/cxr --seed 0 --minutes 20 --out my/bench
  .venv/bin/python $B few-steps --dataset my/cxr --seed 0 --minutes 10 --out my/bench
  .venv/bin/python $B monai --dataset my/cxr --seed 0 --minutes 20 --out my/bench
  .venv/bin/python $B changed --dataset my/cxr --seed 0 --out my/bench
  .venv/bin/python $B report --dataset my/cxr --out my/bench [--write docs/results/scans_radiographs.md]

ours       medtwin train experiment=scans_64, then dpmpp_2m with 20 evaluations
few-steps  medtwin train experiment=scans_64_few_steps from there, then 4 evaluations
changed    from the run of ours, the same patients at 40 and at 70, without and with pneumonia: same keys and seed
monai      DiffusionModelUNet with 1,000 steps of noise, the conditions by cross-attention, then DDIM with 50

MONAI's is trained on the same images with the same optimizer, rate and moving average, 16 at a time, in the same
precision. Each of them draws images under the conditions of the training images, one core each.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scans_speed import NET, in_precision
from torch import Tensor, nn

from medtwin.core.dataset import open_dataset
from medtwin.core.images import table_to_images
from medtwin.scans.conditions import ConditionSpec, ScanRequest, row_to_request
from medtwin.scans.data import ScanDataModule
from medtwin.scans.intensity import IntensityMap
from medtwin.training.averaging import Averaging

ROOT = Path(__file__).resolve().parent.parent.parent
BATCH = 16
NUM_COMPARED, NUM_CHANGED = 256, 96
"""Images of every arm that are compared with real ones, and patients who are drawn under other conditions."""
ARMS = ("ours", "few-steps", "monai")
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


def asked(dataset: Path, count: int, arm: str, seed: int) -> list[ScanRequest]:
    """Requests with the conditions of training images, each as often as the other."""
    opened = open_dataset(dataset)
    split_of = opened.subject_splits()
    rows = [row for row in table_to_images(opened.images()) if split_of.get(row.subject_id) == "train"]
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


def _train(settings: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "medtwin", "train", *settings], cwd=ROOT, check=True)
    return time.perf_counter() - start


def _limit(minutes: float) -> str:
    return f"00:00:{int(minutes):02d}:{round(minutes % 1 * 60):02d}"


def ours(chosen: argparse.Namespace) -> None:
    """Trains and draws with medtwin."""
    from medtwin.pipelines.runs import load_run
    from medtwin.scans.drawing import Sampling
    from medtwin.scans.generate import ScanModel

    few = chosen.arm == "few-steps"
    run = chosen.out / f"{chosen.arm}_{chosen.seed}"
    settings = [
        f"dataset={chosen.dataset}", f"seed={chosen.seed}", f"out={run}", f"cache={chosen.out / 'cache'}",
        f"trainer.precision={'bf16-mixed' if chosen.precision == 'bf16' else '32-true'}",
        f"trainer.max_time={_limit(chosen.minutes)}", f"data.size={chosen.size}", *chosen.override,
    ]  # fmt: skip
    start = ["experiment=scans_64"]
    if few:
        start = ["experiment=scans_64_few_steps", f"ckpt_path={chosen.out / f'ours_{chosen.seed}'}"]
        settings.append("model.training.guidance=1")
    seconds = _train([*start, *settings])
    module, _ = load_run(run)
    sampling = Sampling(sampler="shortcut" if few else "dpmpp_2m")
    model = ScanModel.load(module, run, sampling)  # type: ignore[arg-type]
    requests = asked(chosen.dataset, chosen.num, chosen.arm, chosen.seed)
    begin = time.perf_counter()
    drawn = list(model.sample(requests, seed=chosen.seed, num_steps=4 if few else 20))
    pixels = np.stack([_unit(each.pixels, each.bits_stored) for each in drawn])
    told = {"train_s": seconds, "draw_s_per_image": (time.perf_counter() - begin) / len(drawn)}
    told["steps"] = int(module.num_averaged)  # type: ignore[union-attr,arg-type]
    write(chosen.out, chosen.arm, chosen.seed, pixels, requests, told)


def changed(chosen: argparse.Namespace) -> None:
    """Draws the same patients under other conditions, by the run of `ours`."""
    from medtwin.pipelines.runs import load_run
    from medtwin.scans.generate import ScanModel

    run = chosen.out / f"ours_{chosen.seed}"
    model = ScanModel.load(load_run(run)[0], run)  # type: ignore[arg-type]
    requests = asked(chosen.dataset, min(chosen.num, NUM_CHANGED), "changed", chosen.seed)
    for name, change in CHANGES.items():
        wanted = [replace(request, **change) for request in requests]
        drawn = list(model.sample(wanted, seed=chosen.seed))
        pixels = np.stack([_unit(each.pixels, each.bits_stored) for each in drawn])
        write(chosen.out, f"changed {name}", chosen.seed, pixels, wanted, {})


class _MonaiData:
    """Batches for MONAI's network: images as they are, and their conditions as one token."""

    def __init__(self, dataset: Path, cache: Path, seed: int, size: int) -> None:
        data = ScanDataModule(batch_size=BATCH, size=size, balance=0.6)
        data.attach(open_dataset(dataset), seed=seed, cache=cache)
        self.loader, self.spec, self.intensity = data.train_dataloader(), data.spec, data.intensity

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            for batch in self.loader:
                yield batch["image"], token(self.spec, batch["values"], batch["known"])


def token(spec: ConditionSpec, values: Tensor, known: Tensor) -> Tensor:
    """Conditions as MONAI's cross-attention takes them, (batch, 1, width)."""
    return torch.cat([values, known], dim=1)[:, None]


def monai(chosen: argparse.Namespace) -> None:
    """Trains MONAI's network and draws by its DDIM."""
    from monai.inferers import DiffusionInferer
    from monai.networks.nets import DiffusionModelUNet
    from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

    torch.manual_seed(chosen.seed)
    data = _MonaiData(chosen.dataset, chosen.out / "cache", chosen.seed, chosen.size)
    width = sum(data.spec.widths) + len(data.spec.widths)
    net = DiffusionModelUNet(
        spatial_dims=2, in_channels=1, out_channels=1, channels=NET["channels"], num_head_channels=32,
        num_res_blocks=NET["num_res_blocks"], attention_levels=NET["attention_levels"],
        with_conditioning=True, cross_attention_dim=width,
    )  # fmt: skip
    averaging, average = Averaging(half_life_steps=100.0), copy.deepcopy(net).requires_grad_(False)
    inferer = DiffusionInferer(DDPMScheduler(TRAINED_STEPS, schedule=chosen.schedule))
    optimizer = torch.optim.AdamW(net.parameters(), lr=chosen.rate)
    begin, limit, steps = time.perf_counter(), chosen.minutes * 60, 0
    for images, context in data:
        spent = (time.perf_counter() - begin) / limit
        if spent >= 1:
            break
        for group in optimizer.param_groups:  # as LearningRate of scans_64
            group["lr"] = chosen.rate * min(1.0, (steps + 1) / 31) * min(1.0, max(0.02, (1 - spent) / 0.35))
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
    pixels = _drawn_by_ddim(
        average.eval(), data.spec, data.intensity, requests, chosen, DDIMScheduler, DiffusionInferer
    )
    told = {"train_s": seconds, "draw_s_per_image": (time.perf_counter() - begin) / len(requests), "steps": steps}
    write(chosen.out, chosen.arm, chosen.seed, pixels, requests, told)


def _drawn_by_ddim(
    net: nn.Module,
    spec: ConditionSpec,
    intensity: IntensityMap,
    requests: Sequence[ScanRequest],
    chosen: argparse.Namespace,
    scheduler_type: Any,
    inferer_type: Any,
) -> Images:
    scheduler = scheduler_type(TRAINED_STEPS, schedule=chosen.schedule)
    scheduler.set_timesteps(MONAI_EVALUATIONS)
    generator, parts = torch.Generator().manual_seed(chosen.seed), []
    for start in range(0, len(requests), BATCH):
        part = requests[start : start + BATCH]
        values, known = (torch.from_numpy(each) for each in spec.encode(part))
        noise = torch.randn(len(part), 1, chosen.size, chosen.size, generator=generator)
        with in_precision(chosen.precision), torch.inference_mode():
            made = inferer_type(scheduler).sample(
                noise, net, scheduler, conditioning=token(spec, values, known), verbose=False
            )
        for image, request in zip(made.float().clamp(-1, 1).numpy()[:, 0], part, strict=True):
            stored = intensity.to_stored(image, request.modality)
            parts.append(_unit(stored, intensity.bits_written(request.modality)))
    return np.stack(parts)


def main() -> None:
    """Does what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=[*ARMS, "changed", "report"])
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
        {"monai": monai, "changed": changed}.get(chosen.arm, ours)(chosen)
        return
    from scans_radiographs_report import page

    known = chosen.write.read_text(encoding="utf-8") if chosen.write and chosen.write.is_file() else ""
    text = page(chosen.dataset, chosen.out, known)
    print(text)
    if chosen.write:
        chosen.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
