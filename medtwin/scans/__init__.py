"""Images: MONAI loading, the U-Net diffusion model, its Lightning module, samplers, generation. See docs/scans.md.

A map of the room:

- Images to train on: `reader` reads a series as a square, `cache` keeps squares on disk, `intensity` scales them,
  `pose` lays them on a template, `conditions` says what is known of each, `class_weights` how often each is shown;
  `data` is the module. Series of slices as volumes: `volumes` reads them, `volume_data` is the module.
- What is measured of them: `effects` of the conditions on the mean image, the `gaussian` model of the rest, how
  findings change its `spread`, on `folds`; pixel `spacings`.
- The network: `unet` (with `norms`) or `monai_net`; the `denoiser` wraps either, by one of the `parameterizations`.
- Latents in the place of images: `autoencoder_net`, trained by `autoencoder`; `codec` scales them and decodes.
- Training: `module`, with noise levels in `balance`; `shortcut` learns few steps; `sample_grid` shows what is drawn.
- Drawing: `samplers` solve, `drawing` chooses what draws, `generate` draws for requests, `counterfactual` the same
  patient under other conditions.
- `baselines`: simpler laws behind the same door.
- Features for `check`: `features` learns none or on the spot, `encoder` in a run of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medtwin.scans.conditions import ScanRequest
    from medtwin.scans.generate import GeneratedScan, ScanModel

__all__ = ["GeneratedScan", "ScanModel", "ScanRequest"]

# Resolved on first use: a request needs neither torch nor MONAI.
_HOME = {"ScanRequest": "conditions", "ScanModel": "generate", "GeneratedScan": "generate"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
