"""Priors over the latent of a patient: N(0, I), a Gaussian mixture, a normalising flow, an adversarial generator."""

from __future__ import annotations

from medtwin.timelines.priors.files import load_prior, save_prior
from medtwin.timelines.priors.flow import FitFlow, FlowPrior
from medtwin.timelines.priors.gan import FitGan, GanPrior, energy_distance
from medtwin.timelines.priors.mixture import FitMixture, MixturePrior
from medtwin.timelines.priors.normal import FitNormal, NormalPrior
from medtwin.timelines.priors.prior import DensityPrior, PhenotypePrior, Prior, PriorFactory

__all__ = [
    "DensityPrior",
    "FitFlow",
    "FitGan",
    "FitMixture",
    "FitNormal",
    "FlowPrior",
    "GanPrior",
    "MixturePrior",
    "NormalPrior",
    "PhenotypePrior",
    "Prior",
    "PriorFactory",
    "energy_distance",
    "load_prior",
    "save_prior",
]
