"""Enrolment: arrival and screening of patients, randomisation, dropout, non-adherence, treatment switching."""

from medtwin.trials.enrolment.accrual import poisson_arrivals, ramped_rate
from medtwin.trials.enrolment.randomisation import block_arms, permuted_blocks

__all__ = ["block_arms", "permuted_blocks", "poisson_arrivals", "ramped_rate"]
