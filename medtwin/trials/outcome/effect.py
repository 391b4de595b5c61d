"""An effect of treatment that differs between patients: the log hazard ratio as a function of baseline covariates.

    -0.36 + 0.2 * scale(age) - 0.1 * female + 0.15 * (egfr < 60)

Grammar:

    effect = ["log_hr" "="] ["-"] term {("+" | "-") term}
    term   = factor {"*" factor}
    factor = number | name | "scale" "(" name ")" | "(" name relation number ")"

A name is that of a covariate; `scale` takes its mean and standard deviation among the eligible away; a comparison is 1
where it holds and else 0. The text is parsed into terms, never executed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from medtwin.core.errors import ConfigError
from medtwin.trials.population.criteria import Baseline

Floats = NDArray[np.float64]
_NUMBER, _NAME, _SIGN = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+", r"[A-Za-z_]\w*", r"<=|>=|!=|==|[-+*()<>=]"
_TOKEN = re.compile(rf"\s*(?:({_NUMBER})|({_NAME})|({_SIGN})|$)", re.ASCII)
_RELATIONS = ("<", "<=", ">", ">=", "=", "!=")
ALIASES = {"age": "age_years", "female": "is_female"}
LOG_RISK = "log_risk"
_MOST = 10.0  # a hazard ratio of e^10 is a slip of the pen


@dataclass(frozen=True)
class Factor:
    """A number for each patient. `scaled`: standardised; `relation` and `bound`: 1 where it holds, else 0."""

    name: str
    scaled: bool = False
    relation: str = ""
    bound: float = 0.0

    def __str__(self) -> str:
        if self.relation:
            return f"({self.name} {self.relation} {self.bound:g})"
        return f"scale({self.name})" if self.scaled else self.name

    def values(self, covariates: Mapping[str, Floats]) -> Floats:
        """Of each patient, (pool,).

        Raises:
            ConfigError: If there is no such covariate, or it is to be scaled and is the same for all.
        """
        name = ALIASES.get(self.name, self.name)
        if name not in covariates:
            near = difflib.get_close_matches(self.name, [*covariates, *ALIASES], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"trial.effect: there is no covariate {self.name!r} but {', '.join(covariates)}{hint}")
        x = covariates[name]
        if self.relation:
            holds = {
                "<": x < self.bound,
                "<=": x <= self.bound,
                ">": x > self.bound,
                ">=": x >= self.bound,
                "=": x == self.bound,
                "!=": x != self.bound,
            }[self.relation]
            return np.asarray(holds, dtype=np.float64)
        if not self.scaled:
            return x
        spread = float(x.std())
        if not spread > 1e-9:
            raise ConfigError(f"trial.effect: {self} needs a covariate that differs between patients")
        return np.asarray((x - x.mean()) / spread)


@dataclass(frozen=True)
class Term:
    """A coefficient times factors; none: a constant."""

    coefficient: float
    factors: Sequence[Factor] = ()

    def __str__(self) -> str:
        return " * ".join([f"{self.coefficient:g}", *map(str, self.factors)])

    def values(self, covariates: Mapping[str, Floats], size: int) -> Floats:
        """Of each patient, (pool,)."""
        found = np.full(size, self.coefficient)
        for factor in self.factors:
            found = found * factor.values(covariates)
        return found


@dataclass(frozen=True)
class EffectModel:
    """The log hazard ratio of each patient, experimental / control: the sum of the terms."""

    terms: Sequence[Term]

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms)).replace("+ -", "- ")

    def log_hazard_ratios(self, log_risk: Floats, baseline: Baseline | None = None) -> Floats:
        """Of each patient, (pool,).

        Args:
            log_risk: (pool,) the prognostic score, which the text may name `log_risk`.
            baseline: The covariates, missing ones replaced by the median; None: there are none.

        Raises:
            ConfigError: If there is no such covariate, or a log hazard ratio is beyond 10.
        """
        covariates = {LOG_RISK: log_risk}
        if baseline is not None:
            covariates |= dict(zip(baseline.names, baseline.imputed().T, strict=True))
        found = np.zeros(len(log_risk))
        for term in self.terms:
            found += term.values(covariates, len(log_risk))
        if not (np.abs(found) <= _MOST).all():
            raise ConfigError(
                f"trial.effect must give log hazard ratios within {_MOST:g}, got {np.abs(found).max():.3g}; "
                "did you forget scale(...)?"
            )
        return found


def parse_effect(text: str) -> EffectModel:
    """The effect that a text states.

    Raises:
        ConfigError: If it states none; names the column and what was expected.

    >>> str(parse_effect("log_hr = -0.36 + 0.2*scale(age) - .1*female*(egfr<60)"))
    '-0.36 + 0.2 * scale(age) - 0.1 * female * (egfr < 60)'
    """
    parser = _Parser(text, _tokens(text))
    return parser.effect()


def _tokens(text: str) -> list[tuple[str, int]]:
    """The tokens with their places, from 0; the last is empty."""
    found, place = [], 0
    while True:
        match = _TOKEN.match(text, place)
        if match is None:
            blank = len(text[place:]) - len(text[place:].lstrip())
            _refuse(text, place + blank, f"{text[place + blank]!r} has no meaning here")
        token = next((group for group in match.groups() if group), "")
        found.append((token, match.end() - len(token)))
        if not token:
            return found
        place = match.end()


def _refuse(text: str, place: int, message: str) -> NoReturn:
    raise ConfigError(f"trial.effect, column {place + 1}: {message}\n  {text}\n  {' ' * place}^")


@dataclass
class _Parser:
    """Recursive descent, a method per line of the grammar."""

    text: str
    tokens: list[tuple[str, int]]
    place: int = 0

    @property
    def here(self) -> str:
        return self.tokens[self.place][0]

    def take(self) -> str:
        self.place += 1
        return self.tokens[self.place - 1][0]

    def expect(self, what: str, holds: bool) -> str:
        if not holds:
            _refuse(self.text, self.tokens[self.place][1], f"expected {what}, got {self.here or 'the end'!r}")
        return self.take()

    def effect(self) -> EffectModel:
        if self.here == "log_hr":
            self.take()
            self.expect("'='", self.here == "=")
        terms = [self.term(self.sign())]
        while self.here in ("+", "-"):
            terms.append(self.term(-1.0 if self.take() == "-" else 1.0))
        self.expect("'+', '-', '*' or the end", not self.here)
        return EffectModel(terms)

    def sign(self) -> float:
        if self.here == "-":
            self.take()
            return -1.0
        return 1.0

    def term(self, coefficient: float) -> Term:
        factors: list[Factor] = []
        while True:
            if self.is_number():
                coefficient *= float(self.take())
            else:
                factors.append(self.factor())
            if self.here != "*":
                return Term(coefficient, tuple(factors))
            self.take()

    def factor(self) -> Factor:
        if self.here == "(":
            self.take()
            name = self.name()
            relation = self.expect(f"one of {' '.join(_RELATIONS)}", self.here in (*_RELATIONS, "=="))
            sign = self.sign()
            bound = sign * float(self.expect("a number", self.is_number()))
            self.expect("')'", self.here == ")")
            return Factor(name, relation="=" if relation == "==" else relation, bound=bound)
        if self.here == "scale":
            self.take()
            self.expect("'('", self.here == "(")
            name = self.name()
            self.expect("')'", self.here == ")")
            return Factor(name, scaled=True)
        return Factor(self.name())

    def is_number(self) -> bool:
        return self.here[:1].isdigit() or self.here[:1] == "."

    def name(self) -> str:
        return self.expect("a number or a covariate", self.here[:1].isalpha() or self.here[:1] == "_")
