"""Draws images from a trained model: each depends on (seed, key of its request, its conditions) and on nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medtwin.core.errors import DatasetError
from medtwin.core.files import read_json
from medtwin.core.seeds import generator
from medtwin.scans.conditions import ConditionSpec, ScanRequest
from medtwin.scans.data import DESCRIPTION
from medtwin.scans.drawing import Drawer, Sampling, ScanLaw, Tile, drawer_of
from medtwin.scans.intensity import BITS_WRITTEN, IntensityMap
from medtwin.scans.pose import NUM_PARAMETERS, PoseLaw, inverse, warp
from medtwin.scans.spacings import Spacing, SpacingTable
from medtwin.training.threads import torch_threads

CHECKPOINT = "model.ckpt"
DATA_FOLDER = "data"


@dataclass(frozen=True)
class GeneratedScan:
    """An image that was drawn.

    Attributes:
        key: Of its request.
        pixels: (rows, columns), or (slices, rows, columns) of a volume. Hounsfield units (int16) for CT, else stored
            values (uint16) of `bits_stored` bits.
        spacing_mm: Row and column, under which it was drawn; None: the training images state none.
        slice_spacing_mm: Distance of the slices of a volume.
    """

    key: str
    pixels: NDArray[np.int16] | NDArray[np.uint16]
    spacing_mm: Spacing
    modality: str
    body_part: str | None
    view: str | None
    bits_stored: int = BITS_WRITTEN
    slice_spacing_mm: float | None = None


@dataclass(frozen=True)
class ScanDescription:
    """What of the training data generation needs; `data.ScanDataModule.save` writes it.

    Attributes:
        size: Rows and columns of an image, or (slices, rows, columns) of a volume.
        poses: How the training images lie on their template; None: they were learned as they are.
        voxel_ratio: Of volumes, distance of slices over that of rows and columns; None: the images are single ones.
    """

    size: int | tuple[int, ...]
    conditions: ConditionSpec
    intensity: IntensityMap
    spacings: SpacingTable
    poses: PoseLaw | None = None
    voxel_ratio: float | None = None

    def slice_spacing_mm(self, spacing: Spacing) -> float | None:
        """Distance of the slices of a volume with such rows and columns; None of a single image."""
        return None if self.voxel_ratio is None or spacing is None else self.voxel_ratio * spacing[0]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ScanDescription:
        """From what was written."""
        conditions, poses, size = ConditionSpec.from_json(value["conditions"]), value.get("poses"), value["size"]
        return cls(
            size=size if isinstance(size, int) else tuple(size),
            conditions=conditions,
            intensity=IntensityMap.from_json(value["intensity"]),
            spacings=SpacingTable.from_json(value["spacings"]),
            poses=None if poses is None else PoseLaw.from_json(poses, conditions.widths),
            voxel_ratio=value.get("voxel_ratio"),
        )


class ScanModel:
    """A trained model that draws images on request."""

    def __init__(self, module: ScanLaw, description: ScanDescription, sampling: Sampling | None = None) -> None:
        self.module, self.description = module, description
        self.sampling = sampling or Sampling()

    @classmethod
    def load(cls, module: ScanLaw, run: Path, sampling: Sampling | None = None) -> ScanModel:
        """The model of a run directory.

        Args:
            module: Built from the run's config.yaml; its weights are replaced by those of the run.
            run: The run directory.
            sampling: How to draw; None: the defaults.

        Raises:
            DatasetError: If the run has no checkpoint or description, or they are of another module.
        """
        path = run / CHECKPOINT
        if not path.is_file():
            raise DatasetError(f"{path} is missing: {run} is no finished run of model=scan_diffusion")
        description = ScanDescription.from_json(read_json(run / DATA_FOLDER / DESCRIPTION))
        weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise DatasetError(f"{path} is not of the module that {run}/config.yaml describes") from error
        return cls(module, description, sampling)

    def can_make(self, request: ScanRequest) -> bool:
        """Whether images of the modality and body part of a request were among the training images."""
        return self.description.conditions.knows(request.modality, request.body_part)

    def sample(
        self,
        requests: Sequence[ScanRequest],
        *,
        seed: int,
        num_steps: int = 20,
        guidance: float = 1.0,
        tile: int = 16,
        batch_size: int = 64,
    ) -> Iterator[GeneratedScan]:
        """The images of some requests, in their order.

        The network always sees `tile` images at once, the last ones repeated where there are fewer: its sums are then
        the same whatever is drawn beside an image, and one thread draws. On one machine an image has the same bytes for
        every order and number of requests and every batch_size.

        Args:
            requests: What to draw.
            seed: With the key of a request it gives the noise.
            num_steps: Evaluations of the denoiser for an image.
            guidance: 1: as the conditions say; above 1 what the findings do is exaggerated, at half the speed, against
                the blur of a small model (Ho & Salimans 2022, of one condition among several).
            tile: Images that the network sees at once.
            batch_size: Images that are drawn before any is handed out.

        Raises:
            ValueError: If the model cannot make a request, or a number is out of its range.
        """
        if tile < 1 or batch_size < 1 or not guidance >= 0:
            raise ValueError("tile and batch_size must be 1 or more, and guidance 0 or more")
        drawer = drawer_of(self.module, self.sampling, num_steps, guidance)
        for request in requests:
            if not self.can_make(request):
                raise ValueError(
                    f"request {request.key}: the model has not learned {request.modality} of {request.body_part}, "
                    f"only {', '.join(f'{m} of {b}' for m, b in self.description.conditions.learned)}"
                )
        spaced = [replace(r, spacing_mm=self.description.spacings.draw(r, seed)) for r in requests]
        for start in range(0, len(spaced), batch_size):
            batch = spaced[start : start + batch_size]
            parts = [batch[i : i + tile] for i in range(0, len(batch), tile)]
            with torch_threads(1):
                images = [self._draw(part, seed, drawer, tile) for part in parts]
            for request, image in zip(batch, np.concatenate(images), strict=True):
                yield GeneratedScan(
                    key=request.key,
                    pixels=self.description.intensity.to_stored(image, request.modality),
                    spacing_mm=request.spacing_mm,
                    modality=request.modality,
                    body_part=request.body_part,
                    view=request.view,
                    bits_stored=self.description.intensity.bits_written(request.modality),
                    slice_spacing_mm=self.description.slice_spacing_mm(request.spacing_mm),
                )

    @torch.inference_mode()
    def _draw(self, requests: Sequence[ScanRequest], seed: int, drawer: Drawer, tile: int) -> NDArray[np.float32]:
        """The images of one tile, (requests, *size), in the scale of the network."""
        asked = self.tile(requests, seed, tile)
        images = drawer(asked).float().cpu()[: len(requests)]
        if (poses := self.description.poses) is not None:
            drawn, values, known = (
                each.cpu() for each in (asked.noise("pose", (NUM_PARAMETERS,)), asked.values, asked.known)
            )
            one_by_one = (slice(i, i + 1) for i in range(len(requests)))  # sums of few rows depend on the row's place
            moved = [warp(images[i], inverse(poses.draw(drawn[i], values[i], known[i])), "bicubic") for i in one_by_one]
            images = torch.cat(moved).clamp(-1, 1)
        return cast(NDArray[np.float32], images[:, 0].numpy())

    def tile(self, requests: Sequence[ScanRequest], seed: int, size: int) -> Tile:
        """Requests, the last one repeated up to the size, as what draws takes them."""
        device = next(iter(self.module.state_dict().values())).device
        filled = [*requests, *[requests[-1]] * (size - len(requests))]
        values, known = (torch.from_numpy(array).to(device) for array in self.description.conditions.encode(filled))

        def noise(purpose: str, shape: tuple[int, ...]) -> Tensor:
            names = [f"{purpose} of {each.key}" if purpose else each.key for each in filled]
            return torch.from_numpy(np.stack([_noise(seed, name, shape) for name in names])).to(device)

        return Tile(values, known, noise)


def _noise(seed: int, key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return generator(seed, "scan", key).standard_normal(shape, dtype=np.float32)
