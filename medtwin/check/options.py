"""What is measured of twins, and how: the settings of a comparison and of everything that it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medtwin.check.collapse.lineage import Lineage
from medtwin.check.fairness.settings import Fairness
from medtwin.check.image_features import Encode
from medtwin.check.plausibility import Rule
from medtwin.check.resample import NUM_RESAMPLES
from medtwin.check.strata import Stratification


@dataclass(frozen=True)
class Options:
    """What is measured, and how.

    Attributes:
        seed: Decides every draw. num_resamples: Bootstrap resamples of subjects.
        rules: Hard rules to count (`rules_from`).
        strata: Divisions of the subjects into groups, in which the main measures are repeated (`stratifications_from`).
        fairness: From how many people on a group is judged, and the population that the twins should stand for.
        with_images: Also read and compare the images.
        with_attacks: Also attack the twins, against the control.
        encode: Images (n, size, size) from 0 to 1 to features (n, d); None: what needs features is not measured.
        lineage: Where the twins come from; None: from real patients at once, and training did not see the control.
    """

    seed: int = 0
    num_resamples: int = NUM_RESAMPLES
    rules: Sequence[Rule] = ()
    strata: Sequence[Stratification] = ()
    fairness: Fairness = field(default_factory=Fairness)
    with_images: bool = True
    with_attacks: bool = False
    encode: Encode | None = None
    lineage: Lineage | None = None


DEFAULT_OPTIONS = Options()
