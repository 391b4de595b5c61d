"""Weights of event times for weighted log-rank tests: those of designs, called with an event table."""

from __future__ import annotations

from medtwin.trials.survival_weights import AtRiskPower, EarlyZero, FlemingHarrington, MagirrBurman

__all__ = ["AtRiskPower", "EarlyZero", "FlemingHarrington", "MagirrBurman"]
