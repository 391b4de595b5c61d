"""Enrolment: arrival and screening of patients, randomisation, dropout, non-adherence, treatment switching.

| question | files |
|---|---|
| when and where patients come | accrual |
| who gets what | randomisation (arrangements: orders of a block), minimisation; by which factors: factors |
| who leaves, stops or switches | adherence |
| an effect that comes late or wanes | effect_over_time |
| how an analysis handles a change of treatment | intercurrent |
| the random numbers of all of it | draws |
"""

from medtwin.trials.enrolment.accrual import poisson_arrivals, ramped_rate
from medtwin.trials.enrolment.randomisation import block_arms, permuted_blocks

__all__ = ["block_arms", "permuted_blocks", "poisson_arrivals", "ramped_rate"]
