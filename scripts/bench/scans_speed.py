"""How long a step of training and an image take, beside MONAI's network of as many operations in the same run.

One thread, radiographs of 64 x 64 pixels in batches of 16. MONAI's DiffusionModelUNet has 32, 64 and 128 channels, two
residual blocks a level and attention at the coarsest (notes/images.md measured this one); ours has the same, with its
conditions, and the shipped one of `experiment=scans_64` is shown besides. What is left of unlike numbers of operations
is taken out in the columns "at equal FLOP": times by operation. A step is what training does: noise, network, loss,
backward pass, clipping, AdamW, and of ours the moving average, too. Cases take turns, so that a slow moment of the
machine is everybody's. Times are CPU seconds, the median of the turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from head_commit import head_commit
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from pages import said_lines
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medtwin.config import build, compose
from medtwin.scans.denoiser import Denoiser
from medtwin.scans.drawing import DenoiserDrawer, Drawer, Sampling, ShortcutDrawer, Tile
from medtwin.scans.module import ScanBatch, ScanDiffusionModule, ScanTraining
from medtwin.scans.unet import UNet, UNetShape
from medtwin.training.flops import matrix_rate

SIZE, BATCH, DRAWN = 64, 16, 4
WIDTHS = (2, 1, 1, 8)  # numbers of four conditions
EVALUATIONS, MONAI_EVALUATIONS, FEW = 20, 50, 4
NET: Mapping[str, Any] = {
    "channels": (32, 64, 128),
    "num_res_blocks": 2,
    "attention_levels": (False, False, True),
}
MONAI = {False: "MONAI DiffusionModelUNet", True: "the same, conditioned by cross-attention"}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def in_precision(name: str) -> Any:
    """The context in which a case runs."""
    return nullcontext() if name == "fp32" else torch.autocast("cpu", dtype=torch.bfloat16)


@dataclass
class Case:
    """What is timed.

    Attributes:
        title, precision: For the table.
        run: One step, or one draw. flops: Operations of it.
        parameters: Of the network.
    """

    title: str
    precision: str
    run: Callable[[], None]
    parameters: int
    flops: float = 0.0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Title and precision."""
        return f"{self.title}, {self.precision}"


def _batch() -> ScanBatch:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(BATCH, 1, SIZE, SIZE, generator=generator) * 2 - 1,
        "values": torch.randn(BATCH, sum(WIDTHS), generator=generator),
        "known": torch.ones(BATCH, len(WIDTHS)),
    }


def our_module(net: UNet) -> ScanDiffusionModule:
    """A network as `medtwin train model=scan_diffusion` trains it, rank 48."""
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    torch.manual_seed(0)
    training = ScanTraining(learned_weights=True)
    return ScanDiffusionModule(net, optimizer, size=[SIZE, SIZE], condition_widths=WIDTHS, training=training, rank=48)


def our_step(title: str, net: UNet, precision: str) -> Case:
    """A step of training of ours."""
    return Case(title, precision, step_of(our_module(net), _batch(), precision), _count(net))


def step_of(module: ScanDiffusionModule, batch: ScanBatch, precision: str) -> Callable[[], None]:
    """What a step of training does, with the same batch each time."""
    module.log = lambda *args, **kwargs: None  # there is no trainer to log to
    assert module.expected_error is not None
    parameters = [*module.denoiser.parameters(), *module.expected_error.parameters()]
    optimizer = module.optimizer_factory(parameters)

    def run() -> None:
        with in_precision(precision):
            loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        module.num_averaged += 1
        module.options.averaging.move(module.average, module.denoiser, int(module.num_averaged))

    return run


def monai_net(width: int | None) -> DiffusionModelUNet:
    """MONAI's network, with one token of cross-attention of some width, as its tutorials do it; None: unconditioned."""
    return DiffusionModelUNet(
        **NET,
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        num_head_channels=32,
        with_conditioning=width is not None,
        cross_attention_dim=width,
    )


def monai_step(precision: str, *, conditioned: bool) -> Case:
    """A step of training of MONAI's, by its own inferer and scheduler."""
    torch.manual_seed(0)
    net, batch = monai_net(sum(WIDTHS) if conditioned else None), _batch()
    inferer, optimizer = DiffusionInferer(DDPMScheduler(1000)), torch.optim.AdamW(net.parameters(), lr=1e-4)

    def run() -> None:
        images = batch["image"]
        noise, times = torch.randn_like(images), torch.randint(0, 1000, (BATCH,))
        with in_precision(precision):
            context = batch["values"][:, None] if conditioned else None
            predicted = inferer(images, net, noise, times, condition=context)
            loss = nn.functional.mse_loss(predicted.float(), noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

    return Case(MONAI[conditioned], precision, run, _count(net))


def our_draw(title: str, net: UNet, precision: str, evaluations: int) -> Case:
    """`DRAWN` images by a sampler of ours, or by the few-step model where there are few evaluations."""
    torch.manual_seed(0)
    few = evaluations == FEW
    denoiser = Denoiser(net, WIDTHS, [SIZE, SIZE], rank=48, takes_steps=few).eval()
    drawer: Drawer = (
        ShortcutDrawer(denoiser, 30.0, evaluations) if few else DenoiserDrawer(denoiser, Sampling(), evaluations, 1.0)
    )
    batch, noise = _batch(), torch.randn(DRAWN, 1, SIZE, SIZE)
    tile = Tile(batch["values"][:DRAWN], batch["known"][:DRAWN], lambda purpose, shape: noise)

    def run() -> None:
        with in_precision(precision), torch.inference_mode():
            drawer(tile)

    return Case(f"{title}, {evaluations} evaluations", precision, run, _count(net))


def monai_draw(precision: str, *, conditioned: bool) -> Case:
    """As many by MONAI's DDIM."""
    torch.manual_seed(0)
    net, batch = monai_net(sum(WIDTHS) if conditioned else None).eval(), _batch()
    noise = torch.randn(DRAWN, 1, SIZE, SIZE)
    scheduler = DDIMScheduler(1000)
    scheduler.set_timesteps(MONAI_EVALUATIONS)
    inferer = DiffusionInferer(scheduler)

    def run() -> None:
        with in_precision(precision), torch.inference_mode():
            context = batch["values"][:DRAWN, None] if conditioned else None
            inferer.sample(noise, net, scheduler, conditioning=context, verbose=False)

    return Case(f"{MONAI[conditioned]}, DDIM, {MONAI_EVALUATIONS} evaluations", precision, run, _count(net))


def nets() -> dict[str, Callable[[], UNet]]:
    """Our networks, by title."""
    made: dict[str, Callable[[], UNet]] = {
        f"ours, norm {norm}": partial(UNet, **NET, gain=True, shape=UNetShape(norm=norm))
        for norm in ("group", "layer", "rms")
    }
    shape = UNetShape(norm="layer", channels_last=True)
    made["ours, norm layer, channels last"] = partial(UNet, **NET, gain=True, shape=shape)
    shipped = compose("train", ["experiment=scans_64"])["net"]
    made["ours, as experiment=scans_64"] = lambda: build(shipped)
    return made


def _count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def measure(cases: list[Case], turns: int) -> None:
    """Counts the operations of each case and times it, in turns."""
    for case in cases:
        with FlopCounterMode(display=False) as counter:
            case.run()
        case.flops = float(counter.get_total_flops())
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    assert len(times) == len(cases), "cases must have names of their own"
    for _ in range(turns):
        for case in cases:
            start = time.process_time()
            case.run()
            times[case.name].append(time.process_time() - start)
    for case in cases:
        case.seconds = statistics.median(times[case.name])


def bounds() -> dict[str, float]:
    """Operations a second of products of matrices, by precision."""
    return {name: matrix_rate(torch.device("cpu"), dtype) for name, dtype in PRECISIONS.items()}


def _table(cases: list[Case], best: Mapping[str, float], per: int) -> list[str]:
    """A row for each case; the first is MONAI's in each precision, with which the others are compared."""
    others = {case.precision: case for case in cases[: len(PRECISIONS)]}
    titles = " | ".join(
        [f"of MONAI in {name}" for name in others] + [f"of MONAI in {name}, at equal FLOP" for name in others]
    )
    lines = [
        f"| | precision | parameters | GFLOP | s | {titles} | of the bound |",
        f"|---|---|---|---|---|{'---|' * 2 * len(others)}---|",
    ]
    for case in cases:
        ratios = " | ".join(
            f"{case.seconds / other.seconds / share:.2f}"
            for is_equal in (False, True)
            for other in others.values()
            for share in (case.flops / other.flops if is_equal else 1.0,)
        )
        share = case.flops / case.seconds / best[case.precision]
        lines.append(
            f"| {case.title} | {case.precision} | {case.parameters:,} | {case.flops / per / 1e9:.1f} | "
            f"{case.seconds / per:.3f} | {ratios} | {share:.0%} |"
        )
    return lines


def page(turns: int, known: str = "") -> str:
    """The page as Markdown; `known` is the page as it was, of which what is written by hand stays."""
    torch.set_num_threads(1)
    best = bounds()
    steps = [monai_step(name, conditioned=one) for one in MONAI for name in PRECISIONS]
    steps += [our_step(title, make(), name) for title, make in nets().items() for name in PRECISIONS]
    measure(steps, turns)
    draws = [monai_draw(name, conditioned=one) for one in MONAI for name in PRECISIONS]
    draws += [
        our_draw(title, make(), name, evaluations)
        for title, make in nets().items()
        for evaluations in (EVALUATIONS, FEW)
        for name in PRECISIONS
    ]
    measure(draws, max(1, turns // 4))
    rates = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in best.items())
    has_amx = torch.cpu._is_amx_tile_supported()
    lines = [
        "# Speed of the diffusion model of images",
        "",
        f"Command: `scripts/bench/scans.py speed --turns {turns}`; commit {head_commit()}; one thread, CPU seconds, "
        f"the median of {turns} turns ({max(1, turns // 4)} of drawing). Products of 1024 x 1024 matrices, the bound: "
        f"{rates}; matrix units (AMX): {'yes' if has_amx else 'no'}.",
        "",
        *said_lines(known),
        f"## A step of training, {BATCH} images of {SIZE} x {SIZE}",
        "",
        *_table(steps, best, 1),
        "",
        f"## An image of {SIZE} x {SIZE}, {DRAWN} at once",
        "",
        *_table(draws, best, DRAWN),
    ]
    return "\n".join(lines) + "\n"
