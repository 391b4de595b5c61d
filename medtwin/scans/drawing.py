"""How the images of a tile are made of noise that belongs to each: by a denoiser, by few steps, by a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from medtwin.scans.denoiser import Condition, Denoiser, without_findings
from medtwin.scans.module import ScanDiffusionModule
from medtwin.scans.samplers import SAMPLERS, Denoise, NoiseSchedule, even_sigmas, num_steps_of, shortcut
from medtwin.scans.shortcut import ScanShortcutModule

SHORTCUT = "shortcut"


@dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    Attributes:
        sampler: dpmpp_2m, dpmpp_2m_sde, heun or euler; or shortcut, of a model of few steps (`shortcut.py`).
        schedule: Its noise levels; shortcut has a grid of its own below the sigma_max that it has learned.
        guidance_from, guidance_to: The noise levels between which guidance acts (Kynkaanniemi et al. 2024).
    """

    sampler: str = "dpmpp_2m"
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)
    guidance_from: float = 0.1
    guidance_to: float = 2.0

    def __post_init__(self) -> None:
        if self.sampler not in (*SAMPLERS, SHORTCUT):
            raise ValueError(f"sampler must be {', '.join(SAMPLERS)} or {SHORTCUT}, got {self.sampler!r}")
        if not 0 <= self.guidance_from < self.guidance_to:
            raise ValueError("guidance_from must be 0 or more and below guidance_to")


@dataclass(frozen=True)
class Tile:
    """Images to draw at once.

    Attributes:
        values, known: Their conditions (`conditions.Encoded`), (tile, values) and (tile, conditions).
        noise: Standard normal numbers for a purpose ("": the first noise) of a shape: (tile, *shape), each image its
            own whatever else is in the tile.
    """

    values: Tensor
    known: Tensor
    noise: Callable[[str, tuple[int, ...]], Tensor]


Drawer = Callable[[Tile], Tensor]
"""Makes the images of a tile, (tile, channels, *size), in the scale of the network."""


@runtime_checkable
class ImageLaw(Protocol):
    """A law of images that is no denoiser: the baselines."""

    def draw(self, tile: Tile) -> Tensor:
        """The images of a tile, (tile, channels, *size), in the scale of the network."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it has learned."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Takes what another has learned."""
        ...


ScanLaw = ScanDiffusionModule | ImageLaw
"""What a run of images may hold."""


def drawer_of(law: ScanLaw, sampling: Sampling, num_steps: int, guidance: float) -> Drawer:
    """What draws from a law.

    Args:
        law: Trained.
        sampling: How; of a baseline nothing of it counts.
        num_steps: Evaluations of the denoiser for an image.
        guidance: 1: as the findings say.

    Raises:
        ValueError: If the sampler is not for this law, or has not learned such steps or guidance.
    """
    if not isinstance(law, ScanDiffusionModule):
        return law.draw
    drawer = _drawer_of(law, sampling, num_steps, guidance)
    return drawer if law.codec is None else (lambda tile: law.decoded(drawer(tile)))


def _drawer_of(law: ScanDiffusionModule, sampling: Sampling, num_steps: int, guidance: float) -> Drawer:
    """What draws what the model's denoiser makes: images, or latents."""
    if sampling.sampler != SHORTCUT:
        return DenoiserDrawer(law.average.eval(), sampling, num_steps, guidance)
    if not isinstance(law, ScanShortcutModule):
        raise ValueError("sampler must be that of a denoiser: shortcut is for runs of model=scan_shortcut")
    learned = law.options
    if num_steps not in (allowed := [2**i for i in range(learned.halvings)]):
        raise ValueError(f"num_steps must be one of {allowed} with sampler=shortcut, got {num_steps!r}")
    if guidance != learned.guidance:
        raise ValueError(
            f"guidance must be {learned.guidance:g} with sampler=shortcut, as the run has learned it, got {guidance:g}"
        )
    return ShortcutDrawer(law.average.eval(), learned.sigma_max, num_steps)


class DenoiserDrawer:
    """Draws by a sampler of the probability-flow ODE or its SDE.

    Attributes:
        denoiser: In evaluation mode. sampling, num_steps, guidance: As of `drawer_of`.
    """

    def __init__(self, denoiser: Denoiser, sampling: Sampling, num_steps: int, guidance: float) -> None:
        self.denoiser, self.sampling, self.guidance = denoiser, sampling, guidance
        self.sigmas = sampling.schedule.sigmas(num_steps_of(sampling.sampler, num_steps))

    def __call__(self, tile: Tile) -> Tensor:
        """The images of a tile."""
        centre = self.centre(tile)
        return self.solve(tile, centre + self.sigmas[0] * tile.noise("", tuple(centre.shape[1:])))

    def centre(self, tile: Tile) -> Tensor:
        """What the first noise lies about: the mean images under the conditions, (tile, channels, *size)."""
        return self.denoiser.mean_image(tile.values, tile.known)

    def solve(self, tile: Tile, x: Tensor) -> Tensor:
        """From noisy images at the first noise level to images."""

        def added(step: int) -> Tensor:
            return tile.noise(f"step {step}", tuple(x.shape[1:]))

        return SAMPLERS[self.sampling.sampler](self.denoise(tile), x, self.sigmas, added)

    def denoise(self, tile: Tile) -> Denoise:
        """The denoiser under the conditions of a tile, guided in the interval."""
        cond, null = self.denoiser.embed(tile.values, tile.known), self._null(tile)
        sampling = self.sampling

        def guided(x: Tensor, sigma: float) -> Tensor:
            sigmas = torch.full((len(x),), sigma, device=x.device)
            x0 = self.denoiser.denoise(x, sigmas, cond)
            if null is not None and sampling.guidance_from <= sigma <= sampling.guidance_to:
                x0_null = self.denoiser.denoise(x, sigmas, null)
                x0 = x0_null + self.guidance * (x0 - x0_null)
            return x0

        return guided

    def _null(self, tile: Tile) -> Condition | None:
        """The conditions with findings unknown; None where that would change nothing."""
        if self.guidance == 1.0 or not len(self.denoiser.effects.centre[self.denoiser.is_finding]):
            return None
        return self.denoiser.embed(tile.values, without_findings(tile.known))


class ShortcutDrawer:
    """Draws by few steps, each told how far it goes.

    Attributes:
        denoiser: In evaluation mode, of a `ScanShortcutModule`. sigmas: Its grid.
    """

    def __init__(self, denoiser: Denoiser, sigma_max: float, num_steps: int) -> None:
        self.denoiser = denoiser
        self.sigmas = even_sigmas(num_steps, sigma_max=sigma_max, sigma_data=denoiser.prior.sigma_data)

    def __call__(self, tile: Tile) -> Tensor:
        """The images of a tile."""
        cond = self.denoiser.embed(tile.values, tile.known)
        centre = self.denoiser.mean_image(tile.values, tile.known)

        def aimed(x: Tensor, sigma: float, after: float) -> Tensor:
            start, end = (torch.full((len(x),), level, device=x.device) for level in (sigma, after))
            return self.denoiser.denoise_to(x, start, end, cond)

        return shortcut(aimed, centre + self.sigmas[0] * tile.noise("", tuple(centre.shape[1:])), self.sigmas)
