"""What `check` finds: numbers with an interval and a real-versus-real baseline, small frozen dataclasses throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

LEVEL = 0.95
"""Level of every interval."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured number beside what real data reaches against itself.

    Attributes:
        value: Synthetic against real (train).
        low, high: 95 % interval, from resampling whole subjects of both sides.
        baseline: Mean of the same number between random halves of the real subjects, scaled to these sample sizes.
        baseline_worst: What 95 % of those halves stay within.
        control: The same number of the control subjects (real, unseen in training) against train; None where they are
            too few.
    """

    value: float
    low: float
    high: float
    baseline: float
    baseline_worst: float
    control: float | None = None

    def complement(self) -> Estimate:
        """One minus everything: turns an unexplained share into R2."""
        control = None if self.control is None else 1 - self.control
        return Estimate(
            1 - self.value, 1 - self.high, 1 - self.low, 1 - self.baseline, 1 - self.baseline_worst, control
        )


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of fidelity.

    Attributes:
        name: Stable name, `family.what`.
        title: What it is, in words.
        estimate: None where nothing could be compared.
        num_compared: How many codes, pairs or images stand behind it.
        better: Whether lower or higher is better.
        reason: Why there is no estimate. applicable: False where the real data has nothing of the kind at all.
    """

    name: str
    title: str
    estimate: Estimate | None
    num_compared: int
    better: Literal["lower", "higher"] = "lower"
    reason: str = ""
    applicable: bool = True


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
        ks: Kolmogorov-Smirnov distance. wasserstein: Wasserstein-1 distance over the real interquartile range.
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
    outside: float
    support: Sequence[float] = field(repr=False)
    cdf_real: Sequence[float] = field(repr=False)
    cdf_synthetic: Sequence[float] = field(repr=False)


@dataclass(frozen=True)
class Distribution:
    """A one-dimensional distribution on both sides, for drawing: cumulative shares at some points."""

    name: str
    label: str
    support: Sequence[float]
    cdf_real: Sequence[float]
    cdf_synthetic: Sequence[float]


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two codes that stand together, or follow each other: the share of steps in which they do."""

    kind: Literal["together", "within-subject", "next"]
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


@dataclass(frozen=True)
class ImageGroup:
    """The images of one modality and view on both sides.

    Attributes:
        size: Rows and columns to which both were resampled.
        intensities: Share of pixels by stored intensity, 0 to 1, as cumulative shares.
        frequency: Cycles per image. power_real, power_synthetic: Mean log10 power there.
    """

    name: str
    num_real: int
    num_synthetic: int
    size: int
    intensity: Estimate
    spectrum: Estimate
    diversity: Estimate
    intensities: Distribution = field(repr=False)
    frequency: Sequence[float] = field(repr=False)
    power_real: Sequence[float] = field(repr=False)
    power_synthetic: Sequence[float] = field(repr=False)


@dataclass(frozen=True)
class RuleRow:
    """A hard rule: how many subjects break it on both sides.

    Attributes:
        rule: Its name. source: Where the rule comes from.
        real_share_high: Upper 97.5 % bound of the real share (Clopper-Pearson); 0 where no real subject breaks it.
    """

    rule: str
    title: str
    source: str
    num_real: int
    num_synthetic: int
    share_real: float
    share_synthetic: float
    real_share_high: float


@dataclass(frozen=True)
class CopyRow:
    """A kind of copy: how many synthetic subjects or images are one, beside what real data reaches.

    Attributes:
        limit: From where on it counts as a copy, from the control or the halves of the real data.
        share: Share of synthetic items beyond it. baseline: Share of real items that would be.
    """

    name: str
    title: str
    limit: float
    num_copies: int
    num_checked: int
    share: float
    baseline: float
    detail: str = ""


@dataclass(frozen=True)
class Findings:
    """Everything that was measured of one synthetic dataset."""

    num_real: int
    num_synthetic: int
    num_control: int
    measures: tuple[Measure, ...]
    codes: tuple[CodeRow, ...]
    deciles: tuple[DecileRow, ...]
    values: tuple[ValueRow, ...]
    distributions: tuple[Distribution, ...]
    pairs: tuple[PairRow, ...]
    ages: tuple[AgeRow, ...]
    image_groups: tuple[ImageGroup, ...]
    rules: tuple[RuleRow, ...]
    copies: tuple[CopyRow, ...]
    notes: Mapping[str, float] = field(default_factory=dict)
    num_images: tuple[int, int] = (0, 0)

    def measure(self, name: str) -> Measure:
        """The measure of this name.

        Raises:
            KeyError: If there is none.
        """
        for one in self.measures:
            if one.name == name:
                return one
        raise KeyError(f"there is no measure {name!r}, only {', '.join(m.name for m in self.measures)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
