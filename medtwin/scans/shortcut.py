"""A model of few steps from the same U-Net: told how far a step goes, it aims where many small steps would land.

Two steps of half the length, made by the moving average, say what one step of the whole length has to aim at; what they
aim at was learned from steps of a quarter, and so on down to the shortest, which the denoiser itself makes. One network
draws with 1, 2, 4, ... evaluations, and still denoises. Nothing is drawn at random after the first noise, so an image
keeps its patient however many evaluations it gets.

Why this one of the few-step models: consistency models and their kin add noise anew after each evaluation, which
changes the patient; mean flows need forward derivatives through attention, for which PyTorch's fused kernels have no
rule. Here steps are taken in the noise level, along the ODE that all our samplers solve, and what the Gaussian model of
the training images contributes to a step is known in closed form (`parameterizations.aim`): one evaluation draws from
that model even before training.

Sources: Frans et al. 2024 (arXiv 2410.12557, shortcut models); Song et al. 2023 (consistency models); Geng et al. 2025
(arXiv 2505.13447, mean flows); Kynkaanniemi et al. 2024 (guidance in an interval).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medtwin.scans.denoiser import Condition, without_findings
from medtwin.scans.module import ScanBatch, ScanDiffusionModule, ScanTraining
from medtwin.scans.samplers import even_sigmas
from medtwin.training.sharding import is_sharded

_STEP_FEATURES = "step_features."


@dataclass(frozen=True)
class ShortcutTraining(ScanTraining):
    """How a model of few steps is trained: as a denoiser, and further.

    Attributes:
        step_share: Share of each batch that learns steps; the rest learns to denoise.
        halvings: Steps of 1, 1/2, ... (1/2)^(halvings - 1) of the way are learned; half of the last is the denoiser's.
        sigma_max: Where sampling starts.
        guidance: Exaggeration of what findings do that is learned along; 1: none.
        guidance_from, guidance_to: Noise levels between which it acts.
    """

    step_share: float = 0.5
    halvings: int = 6
    sigma_max: float = 30.0
    guidance: float = 1.0
    guidance_from: float = 0.1
    guidance_to: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.step_share <= 1:
            raise ValueError(f"step_share must be above 0 and at most 1, got {self.step_share!r}")
        if self.halvings < 1:
            raise ValueError(f"halvings must be 1 or more, got {self.halvings!r}")
        if not self.sigma_max > 0 or not self.guidance >= 0 or not 0 <= self.guidance_from < self.guidance_to:
            raise ValueError("sigma_max must be positive, guidance 0 or more, and guidance_from below guidance_to")


class ScanShortcutModule(ScanDiffusionModule):
    """Learns to denoise, and to make in one step what its average makes in two.

    The weights of a `ScanDiffusionModule` may be loaded as its start.
    """

    takes_steps = True
    training_type = ShortcutTraining
    options: ShortcutTraining

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Takes weights; where they are of a model that was not told of steps, its own step features stay."""
        if not any(_STEP_FEATURES in name for name in state_dict):
            own = {name: value for name, value in self.state_dict().items() if _STEP_FEATURES in name}
            state_dict = {**state_dict, **own}
        return super().load_state_dict(state_dict, strict, assign)

    def training_step(self, batch: ScanBatch, batch_idx: int) -> Tensor:
        """The denoising error of one part of a batch and the error of steps of the other; logs train/shortcut too."""
        varied = self.varied(batch)
        count = len(varied["image"])
        stepping = max(1, round(self.options.step_share * count))
        loss = self.step_error(_part(varied, slice(stepping))).mean()
        self.log("train/shortcut", loss.detach(), on_step=True, on_epoch=True, batch_size=stepping)
        if stepping == count:
            return loss
        share = stepping / count
        return share * loss + (1 - share) * self.denoising_loss(_part(varied, slice(stepping, count)))

    def step_error(self, batch: ScanBatch) -> Tensor:
        """How far steps miss what two half steps of the average give, weighted as a denoising error, (batch,)."""
        images, values, known = batch["image"], batch["values"], batch["known"]
        per_image = (-1, *(1,) * (images.ndim - 1))
        levels, last_level = self._draw_levels(len(images))
        sigma, middle, after = (part.to(images.device) for part in levels)
        noisy = images + sigma.reshape(per_image) * torch.randn(images.shape).to(images.device)
        goal = self._goal(noisy, sigma, middle, after, last_level.to(images.device), values, known)
        aimed, weight = self.denoiser.denoise_and_weight(noisy, sigma, self.denoiser.embed(values, known), after)
        return (weight * (aimed - goal).square()).flatten(1).mean(dim=1)

    def _draw_levels(self, count: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Where steps start, are half done, and end, each (count,); and which are of the shortest kind."""
        options, sigma_data = self.options, self.denoiser.prior.sigma_data
        grid = torch.tensor(even_sigmas(2**options.halvings, sigma_max=options.sigma_max, sigma_data=sigma_data))
        halving = (torch.randperm(count) + torch.randint(options.halvings, ())) % options.halvings
        steps = 2**halving
        start = (torch.rand(count) * steps).long()
        width = 2**options.halvings // steps
        at = start * width
        return (grid[at], grid[at + width // 2], grid[at + width]), halving == options.halvings - 1

    @torch.no_grad()
    def _goal(
        self, x: Tensor, sigma: Tensor, middle: Tensor, after: Tensor, is_last: Tensor, values: Tensor, known: Tensor
    ) -> Tensor:
        """What a step from sigma to `after` has to aim at, by two steps of the average."""
        average = self.average.eval()
        cond, null = average.embed(values, known), average.embed(values, without_findings(known))
        per_image = (-1, *(1,) * (x.ndim - 1))

        def stepped(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
            told = torch.where(is_last, start, end)  # the shortest halves are the denoiser's
            aimed = average.denoise_to(x, start, told, cond)
            if self.options.guidance != 1.0:
                aimed = self._guided(x, start, aimed, is_last, null)
            r = (end / start).reshape(per_image)
            return r * x + (1 - r) * aimed

        landed = stepped(stepped(x, sigma, middle), middle, after)
        r = (after / sigma).reshape(per_image)
        return (landed - r * x) / (1 - r)

    def _guided(self, x: Tensor, sigma: Tensor, aimed: Tensor, is_last: Tensor, null: Condition) -> Tensor:
        """Exaggerated where the denoiser itself steps; longer steps have learned it from those."""
        options = self.options
        acts = is_last & (sigma >= options.guidance_from) & (sigma <= options.guidance_to)
        if is_sharded(self.average):  # as often on every process, whatever steps it drew
            plain = self.average.denoise(x, sigma, null)
            where = acts.reshape(-1, *(1,) * (x.ndim - 1))
            return torch.where(where, plain + options.guidance * (aimed - plain), aimed)
        if not bool(acts.any()):
            return aimed
        plain = self.average.denoise(x[acts], sigma[acts], Condition(*(part[acts] for part in null)))
        guided = aimed.clone()
        guided[acts] = plain + options.guidance * (aimed[acts] - plain)
        return guided


def _part(batch: ScanBatch, chosen: slice) -> ScanBatch:
    return {"image": batch["image"][chosen], "values": batch["values"][chosen], "known": batch["known"][chosen]}
