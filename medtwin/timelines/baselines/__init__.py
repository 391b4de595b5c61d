"""Simple laws of records behind the interface of the temporal VAE: what it has to beat."""

from __future__ import annotations

from medtwin.timelines.baselines.law import CountedLaw
from medtwin.timelines.baselines.marginals import Marginals
from medtwin.timelines.baselines.markov import Markov
from medtwin.timelines.baselines.module import BaselineModule
from medtwin.timelines.baselines.summary import SummaryGan, SummaryMixture

__all__ = ["BaselineModule", "CountedLaw", "Marginals", "Markov", "SummaryGan", "SummaryMixture"]
