"""Simple laws of images behind the interface of the diffusion model: what it has to beat."""

from __future__ import annotations

from medtwin.scans.baselines.gan import ScanGan
from medtwin.scans.baselines.mixture import ScanMixture
from medtwin.scans.baselines.module import ScanBaselineModule

__all__ = ["ScanBaselineModule", "ScanGan", "ScanMixture"]
