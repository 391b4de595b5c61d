"""What `check` finds: numbers with an interval and a real-versus-real baseline, small frozen dataclasses throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from medtwin.check.attack_rows import GroupRisk, Membership, Risk
from medtwin.check.collapse_rows import GenerationRow, RareRow
from medtwin.check.estimates import Distribution, Estimate, Measure
from medtwin.check.group_rows import FairnessRow, SmallCellRow
from medtwin.check.image_rows import ImageGroup, ImageLabelRow, ImageStratumRow


@dataclass(frozen=True, slots=True)
class CodeRow:
    """One code on both sides: how many have it, and how often.

    Attributes:
        prevalence_real, prevalence_synthetic: Share of subjects with the code.
        rate_real, rate_synthetic: Events per patient-year of follow-up.
        log_ratio: Natural logarithm of synthetic over real prevalence, half a subject added to both.
        low, high: Its interval.
    """

    code: str
    description: str
    num_real: int
    num_synthetic: int
    prevalence_real: float
    prevalence_synthetic: float
    rate_real: float
    rate_synthetic: float
    log_ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DecileRow:
    """Codes of one tenth of the real codes by prevalence (1: the most common): mean absolute log ratio."""

    decile: int
    num_codes: int
    smallest_prevalence: float
    largest_prevalence: float
    error: Estimate


@dataclass(frozen=True)
class ValueRow:
    """The numbers of one code and unit on both sides.

    Attributes:
        ks: Kolmogorov-Smirnov distance. wasserstein: Wasserstein-1 distance over the real interquartile
            range, numbers beyond the real 0.1-99.9 % range pulled in: a few absurd ones, as real data has them, would
            decide it else.
        js: Jensen-Shannon divergence in bits, 0 to 1.
        outside: Share of synthetic values outside the real 0.1-99.9 % range.
        support: (points,) values. cdf_real, cdf_synthetic: (points,) cumulative shares there.
    """

    code: str
    unit: str
    description: str
    num_real: int
    num_synthetic: int
    ks: Estimate
    wasserstein: Estimate
    js: Estimate
    outside: float
    support: Sequence[float] = field(repr=False)
    cdf_real: Sequence[float] = field(repr=False)
    cdf_synthetic: Sequence[float] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two codes that stand together, or follow each other: the share of steps, subjects or encounters that do."""

    kind: Literal["together", "within-subject", "next", "encounter"]
    first: str
    second: str
    real: float
    synthetic: float


@dataclass(frozen=True, slots=True)
class AgeRow:
    """Record length of subjects by their age at the first event: median number of events, and of years."""

    band: str
    num_real: int | None
    num_synthetic: int
    events_real: float | None
    events_synthetic: float | None
    years_real: float | None
    years_synthetic: float | None


@dataclass(frozen=True, slots=True)
class StratumRow:
    """A measure within one group of subjects.

    Attributes:
        division, level: As in `sex` and `F`.
        num_real, num_synthetic: Subjects of the group on both sides. None: not told, as it would give away few real
            ones of another group.
        measure: Name of the measure; empty where the group is too small for any, and only its size is told.
    """

    division: str
    level: str
    num_real: int | None
    num_synthetic: int
    measure: str
    estimate: Estimate | None


RuleOutcome = Literal["kept", "broken", "untested", "not_applicable"]


@dataclass(frozen=True)
class RuleRow:
    """A rule: how many subjects and events break it on both sides. Pairs are (real, synthetic).

    Attributes:
        rule: Its name. source: Where the rule comes from.
        num_real, num_synthetic: Subjects that break it; share_real, share_synthetic: of those to whom it applies. What
            would tell of 1 to 10 real people is None in what leaves the house.
        real_share_high: The share of twins that may break it: what chance explains, given the real ones; 0 of a hard
            rule that no real subject breaks. event_share_high: The same of events.
        kind: What is looked for. soft: Why real records break it; empty: a hard rule.
        outcome: `not_applicable` where it applies to nobody on either side, `untested` where it applies to real
            subjects and to no twin, or is soft and applies to no real subject.
        applicable: Subjects to whom it applies. events: Items that were judged. None: of few real people.
        broken_events, event_shares: Those that break it. unknown: Items that could not be judged: in a unit that is not
            listed, or several numbers at once.
        detail: The codes of the twins that break it most often.
    """

    rule: str
    title: str
    source: str
    num_real: int | None
    num_synthetic: int
    share_real: float | None
    share_synthetic: float
    real_share_high: float
    kind: str = ""
    soft: str = ""
    outcome: RuleOutcome = "kept"
    applicable: tuple[int | None, int] = (0, 0)
    events: tuple[int | None, int] = (0, 0)
    broken_events: tuple[int | None, int] = (0, 0)
    event_shares: tuple[float | None, float] = (0.0, 0.0)
    event_share_high: float = 0.0
    unknown: tuple[int | None, int] = (0, 0)
    detail: str = ""


@dataclass(frozen=True)
class CopyRow:
    """A kind of copy: how many synthetic subjects or images are one, beside what real data reaches.

    Attributes:
        limit: From where on it counts as a copy, from the control or the halves of the real data.
        share: Share of synthetic items beyond it. baseline: Share of real items that would be.
        tolerated: Share that chance explains; 0 of verbatim copies.
    """

    name: str
    title: str
    limit: float
    num_copies: int
    num_checked: int
    share: float
    baseline: float
    detail: str = ""
    tolerated: float = 0.0


@dataclass(frozen=True, slots=True)
class KindRow:
    """The dated events of one kind (a FHIR type, or a code system) on both sides.

    Attributes:
        num_codes: Codes of the kind on either side.
        num_real, num_synthetic: Subjects with an event of the kind.
        events_real, events_synthetic: Mean events of the kind per subject, subjects without any counted.
        gap_real, gap_synthetic: Median hours from one time with such an event to the subject's next; None as `gaps`,
            and where there is no such gap.
        length: KS distance of the events of the kind per subject.
        gaps: KS distance of the gaps; None where fewer than 20 real subjects have one.
    """

    kind: str
    num_codes: int
    num_real: int
    num_synthetic: int
    events_real: float
    events_synthetic: float
    gap_real: float | None
    gap_synthetic: float | None
    length: Estimate
    gaps: Estimate | None


@dataclass(frozen=True, slots=True)
class LagRow:
    """Pairs of codes so many times apart: mean absolute log ratio of the share of steps in which they stand."""

    lag: int
    num_pairs: int
    error: Estimate


@dataclass(frozen=True, slots=True)
class SurvivalRow:
    """Deaths on both sides, in numbers.

    Attributes:
        tau_years: Up to where the restricted mean survival time goes, from the first event on.
        mean_real, mean_synthetic: Restricted mean survival time, years.
        deaths_real, deaths_synthetic: Subjects that die. share_real, share_synthetic: Their share. None: of 1
            to 10 real people.
    """

    tau_years: float
    mean_real: float
    mean_synthetic: float
    deaths_real: int | None
    deaths_synthetic: int
    share_real: float | None
    share_synthetic: float


@dataclass(frozen=True, slots=True)
class UnitRow:
    """A unit that only one side uses for a code whose numbers both sides have.

    Attributes:
        side: Whose unit it is. num_subjects, num_values: How many have it there, and how often.
    """

    side: Literal["real", "synthetic"]
    code: str
    unit: str
    description: str
    num_subjects: int
    num_values: int


@dataclass(frozen=True, slots=True)
class WithinRow:
    """How the numbers of one code and unit hang together within a subject, on both sides; None where undefined.

    Attributes:
        num_real, num_synthetic: Subjects with the number at two times or more.
        autocorrelation_real, autocorrelation_synthetic: How alike consecutive numbers are beyond chance: 0 where their
            order is arbitrary, 1 where they do not change.
        within_share_real, within_share_synthetic: Share of the variance that lies within subjects.
    """

    code: str
    unit: str
    description: str
    num_real: int
    num_synthetic: int
    autocorrelation_real: float | None
    autocorrelation_synthetic: float | None
    within_share_real: float | None
    within_share_synthetic: float | None


@dataclass(frozen=True, slots=True)
class CorrelationRow:
    """Two numbers and how they go together on both sides; None where that is undefined.

    Attributes:
        kind: Between the means of subjects; within a subject between the means of days; within a subject at one time.
        num_real, num_synthetic: Subjects who have both; within a subject: on two days, or at two times.
    """

    kind: Literal["between", "day", "time"]
    first: str
    first_unit: str
    second: str
    second_unit: str
    real: float | None
    synthetic: float | None
    num_real: int
    num_synthetic: int


@dataclass(frozen=True, slots=True)
class TrajectoryRow:
    """The mean of a number in one stretch of time before or after an index event, on both sides.

    Attributes:
        index: Code of the event; `start`: the first time of the record. index_description: In words.
        code, unit, description: Of the number; an empty code: all events, then the means are events per subject.
        hours: Median real time of the stretch, in hours from the index event; negative before it.
        real, synthetic: Means over subjects of each subject's mean, in `unit`, the 1 % of values at either end pulled
            in; None where nobody has one.
        num_real, num_synthetic: Subjects behind them.
    """

    index: str
    index_description: str
    code: str
    unit: str
    description: str
    hours: float
    real: float | None
    synthetic: float | None
    num_real: int
    num_synthetic: int


@dataclass(frozen=True, slots=True)
class MissingnessRow:
    """The share of subjects, days or encounters in which a code has no number, on both sides."""

    kind: Literal["subject", "day", "encounter"]
    code: str
    description: str
    real: float
    synthetic: float


@dataclass(frozen=True, slots=True)
class CoMissingnessRow:
    """The phi coefficient of the presence of two codes in a subject or on a day; None where it is undefined."""

    kind: Literal["subject", "day"]
    first: str
    second: str
    real: float | None
    synthetic: float | None


@dataclass(frozen=True, slots=True)
class SeparatorRow:
    """What a classifier tells the twins by.

    Attributes:
        name: A code, with its unit where it is a number, or another property of a record.
        aspect: Which summary of it tells most, such as its mean or how often it is there.
        importance: How far the area under the ROC curve falls when everything about it is dealt anew among the subjects
            that are scored, on average over the folds.
        real, synthetic: Mean of that summary; None where fewer than 11 of the subjects that are compared have one.
    """

    name: str
    aspect: str
    importance: float
    real: float | None
    synthetic: float | None


@dataclass(frozen=True)
class Findings:
    """Everything that was measured of one synthetic dataset."""

    num_real: int
    num_synthetic: int
    num_control: int
    measures: tuple[Measure, ...] = ()
    codes: tuple[CodeRow, ...] = ()
    deciles: tuple[DecileRow, ...] = ()
    values: tuple[ValueRow, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    pairs: tuple[PairRow, ...] = ()
    ages: tuple[AgeRow, ...] = ()
    image_groups: tuple[ImageGroup, ...] = ()
    rules: tuple[RuleRow, ...] = ()
    copies: tuple[CopyRow, ...] = ()
    notes: Mapping[str, float] = field(default_factory=dict)
    num_images: tuple[int, int] = (0, 0)
    strata: tuple[StratumRow, ...] = ()
    kinds: tuple[KindRow, ...] = ()
    lags: tuple[LagRow, ...] = ()
    survival: tuple[SurvivalRow, ...] = ()
    units: tuple[UnitRow, ...] = ()
    within: tuple[WithinRow, ...] = ()
    correlations: tuple[CorrelationRow, ...] = ()
    trajectories: tuple[TrajectoryRow, ...] = ()
    missingness: tuple[MissingnessRow, ...] = ()
    co_missingness: tuple[CoMissingnessRow, ...] = ()
    separators: tuple[SeparatorRow, ...] = ()
    image_strata: tuple[ImageStratumRow, ...] = ()
    image_labels: tuple[ImageLabelRow, ...] = ()
    risks: tuple[Risk, ...] = ()
    group_risks: tuple[GroupRisk, ...] = ()
    memberships: tuple[Membership, ...] = ()
    generations: tuple[GenerationRow, ...] = ()
    rare_codes: tuple[RareRow, ...] = ()
    fairness: tuple[FairnessRow, ...] = ()
    small_cells: tuple[SmallCellRow, ...] = ()

    def measure(self, name: str) -> Measure:
        """The measure of this name.

        Raises:
            KeyError: If there is none.
        """
        for one in self.measures:
            if one.name == name:
                return one
        raise KeyError(f"there is no measure {name!r}, only {', '.join(m.name for m in self.measures)}")

    def with_measures(self, measures: Sequence[Measure]) -> Findings:
        """The same with some measures in the place of those of their names, or added."""
        names = {one.name for one in measures}
        return replace(self, measures=(*(one for one in self.measures if one.name not in names), *measures))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
