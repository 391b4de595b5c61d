"""The true state of one life: when each course began, which drugs run, what is acute, and when it ends.

Nothing here is recorded yet. The courses fill a `Life` in causal order; the chart writes what the hospital sees of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from medtwin.hospital.hazards import NEVER
from medtwin.hospital.laws import Laws
from medtwin.hospital.population import DAYS_PER_YEAR, Person

AcuteKind = Literal["pneumonia", "decompensation", "exacerbation"]


@dataclass(frozen=True, slots=True)
class Acute:
    """An acute illness from one age to another; its effects are full until half of it has passed, then fade.

    Attributes:
        admitted: Whether it is treated in hospital.
        fatal: Whether the person dies of it, at `end`.
    """

    kind: AcuteKind
    start: float
    end: float
    admitted: bool
    fatal: bool = False

    def strength(self, age: float) -> float:
        """How much of the effect is present at an age, 0 to 1."""
        if not self.start <= age <= self.end:
            return 0.0
        return min(1.0, 2.0 * (self.end - age) / (self.end - self.start) + 0.1)


@dataclass(frozen=True, slots=True)
class Pregnancy:
    """A pregnancy from conception to birth, ages of the mother in years."""

    conception: float
    birth: float
    gestational_diabetes: bool
    cesarean: bool


@dataclass(slots=True)
class Life:
    """Ages in years at which things begin; infinite where they never do.

    Attributes:
        drugs: Start age by RxNorm code, of drugs that are taken from then on.
        death: Age at death, if it falls inside the record.
    """

    person: Person
    laws: Laws
    hypertension: float = NEVER
    diabetes: float = NEVER
    ckd: float = NEVER
    anemia: float = NEVER
    heart_failure: float = NEVER
    heart_failure_severity: float = 0.0  # at onset
    copd: float = NEVER
    breast_cancer: float = NEVER
    osteoarthritis: float = NEVER
    knee_replacement: float = NEVER
    hyperlipidemia: float = NEVER
    pregnancies: list[Pregnancy] = field(default_factory=list)
    acutes: list[Acute] = field(default_factory=list)
    drugs: dict[str, float] = field(default_factory=dict)
    penicillin_allergy: bool = False
    death: float = NEVER

    @property
    def age_at_start(self) -> float:
        """Age at the start of the record."""
        return self.person.age

    @property
    def age_at_end(self) -> float:
        """Age at the end of the record, had the person lived."""
        return self.age_of(self.laws.record.window_end)

    @property
    def last_age(self) -> float:
        """Age at death or at the end of the record."""
        return min(self.death, self.age_at_end)

    def age_of(self, time: datetime) -> float:
        """Age in years at a time."""
        return (time - self.person.birth) / timedelta(days=DAYS_PER_YEAR)

    def time_of(self, age: float) -> datetime:
        """The time of an age, to the minute."""
        time = self.person.birth + timedelta(days=age * DAYS_PER_YEAR)
        return time.replace(second=0, microsecond=0)

    def in_record(self, age: float) -> bool:
        """Whether an age lies inside the record and the life."""
        return self.age_at_start <= age < self.last_age

    def drug_effect(self, drug: str, age: float, delay_days: float = 14.0) -> float:
        """How much of a drug's effect is reached at an age, 0 to 1, rising linearly over the delay."""
        start = self.drugs.get(drug, NEVER)
        return min(max((age - start) * DAYS_PER_YEAR / delay_days, 0.0), 1.0)

    def has_pregnancy(self, age: float) -> bool:
        """Whether the person is pregnant at an age."""
        return any(pregnancy.conception <= age < pregnancy.birth for pregnancy in self.pregnancies)

    def acute_strength(self, kind: AcuteKind, age: float) -> float:
        """How strongly an acute illness of a kind acts at an age, 0 to 1."""
        return max((acute.strength(age) for acute in self.acutes if acute.kind == kind), default=0.0)

    def severity_of_heart_failure(self, age: float) -> float:
        """Severity of heart failure at an age, 0 to 1."""
        if age < self.heart_failure:
            return 0.0
        laws = self.laws.heart_failure
        chronic = self.heart_failure_severity + laws.severity_per_year * (age - self.heart_failure)
        return min(chronic + laws.decompensation_severity * self.acute_strength("decompensation", age), 1.0)
