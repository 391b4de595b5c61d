"""Clinical rules as data: what each forbids, for which codes, in which units, and who says so."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal

from medtwin.core.errors import ConfigError
from medtwin.core.files import read_json
from medtwin.core.formulas import Formula, parse_formula
from medtwin.core.paths import schema_dir

Kind = Literal[
    "after-death", "before-birth", "not-of-sex", "age-at-onset", "duplicate-event", "ends-before-start",
    "outside-encounter", "value-range", "dose-range", "identity", "needs-before", "contraindicated", "order", "once",
]  # fmt: skip
REQUIRED: dict[str, tuple[str, ...]] = {
    "after-death": (),
    "before-birth": (),
    "not-of-sex": ("sex", "codes"),
    "age-at-onset": ("codes", "ages"),
    "duplicate-event": (),
    "ends-before-start": (),
    "outside-encounter": (),
    "value-range": ("ranges",),
    "dose-range": ("ranges",),
    "identity": ("inputs", "left", "relation", "right"),
    "needs-before": ("codes", "needs"),
    "contraindicated": ("codes", "against"),
    "order": ("codes", "after"),
    "once": ("codes",),
}
"""What each kind of rule must say, beside title and source."""
KINDS = tuple(REQUIRED)
IMPOSSIBLE: tuple[Kind, ...] = (
    "after-death", "before-birth", "not-of-sex", "duplicate-event", "ends-before-start", "once",
)  # fmt: skip
"""Kinds of what cannot be, whatever care does and whoever measures; the others are of what should not be."""
OF_THE_SUBJECT = ("age", "female")
"""Names that a formula may use without an input: age in years, and 1 for women, 0 for men."""


@dataclass(frozen=True)
class Range:
    """Numbers that a code may have in some units, ends included; None: no end.

    Attributes:
        codes: The codes; one that ends in `*` means all that begin so. units: UCUM; an empty text means no unit.
    """

    codes: tuple[str, ...]
    units: tuple[str, ...]
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ConfigError("ranges must have low, high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ConfigError(f"low must be at most high, got {self.low} and {self.high}")


@dataclass(frozen=True)
class Input:
    """A number that an identity is about.

    Attributes:
        name: Its name in the formulas. codes, units: As of a `Range`.
        within_hours: How far its time may be from that of the first input; 0: the same instant.
    """

    name: str
    codes: tuple[str, ...]
    units: tuple[str, ...]
    within_hours: float = 0.0


@dataclass(frozen=True)
class Rule:
    """One rule; which of the settings beyond `soft` it has is a matter of its kind (docs/plausibility.md).

    Attributes:
        name: Stable name, kebab-case.
        kind: What is looked for.
        title: What it says, in words.
        source: Where it comes from, with version.
        soft: Why real records break it, with the rate; empty: a hard rule, which no real record breaks.
        codes: The codes that it is about; one that ends in `*` means all that begin so. Empty: every clinical event.
        except_codes: Codes that it is not about.
        resources: FHIR types that it is about; empty: all.
        sex: Of `not-of-sex`: the sex that must not have the codes, as in `GENDER//M`.
        ages: Lowest and highest age in years, None: no end. Of `age-at-onset`, and those whom an identity is about.
        events: Of `age-at-onset`: whether the first event of a subject is judged, or every one.
        tolerance_hours: Of rules of time: by how much an event may stand outside.
        ranges: Of `value-range` and `dose-range`.
        inputs, left, relation, right: Of `identity`: the formulas and how they must compare.
        tolerance, tolerance_share: ... by how much they may differ: a number, and a share of the right side.
        needs: Of `needs-before`: codes of which one must stand at or before, or up to `slack_days` after.
        against: Of `contraindicated`: what must not be active within `within_days`; with `against_first` only if it
            was known before.
        after: Of `order`: the k-th of `codes` must not come before the k-th of these.

    Raises:
        ConfigError: If it is not complete.
    """

    name: str
    kind: Kind
    title: str
    source: str
    soft: str = ""
    codes: tuple[str, ...] = ()
    except_codes: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    sex: str | None = None
    ages: tuple[float | None, float | None] | None = None
    events: Literal["first", "every"] = "first"
    tolerance_hours: float = 0.0
    ranges: tuple[Range, ...] = ()
    inputs: tuple[Input, ...] = ()
    left: str = ""
    relation: Literal["equals", "at-most", "below"] | None = None
    right: str = ""
    tolerance: float = 0.0
    tolerance_share: float = 0.0
    needs: tuple[str, ...] = ()
    slack_days: float = 0.0
    against: tuple[str, ...] = ()
    within_days: float = 0.0
    against_first: bool = False
    after: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.kind not in REQUIRED:
            raise ConfigError(f"rule {self.name}: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not self.source.strip():
            raise ConfigError(f"rule {self.name}: source must say where the rule comes from")
        for setting in REQUIRED[self.kind]:
            if not getattr(self, setting):
                raise ConfigError(f"rule {self.name}: a rule of kind {self.kind} needs {setting}")
        if self.kind == "not-of-sex" and self.sex not in ("M", "F"):
            raise ConfigError(f"rule {self.name}: sex must be M or F, got {self.sex!r}")
        low, high = self.ages or (None, None)
        if low is not None and high is not None and low > high:
            raise ConfigError(f"rule {self.name}: ages must be lowest and highest, got {[low, high]}")
        if self.kind == "identity":
            known = {one.name for one in self.inputs} | set(OF_THE_SUBJECT)
            if unknown := sorted((self.formulas[0].names | self.formulas[1].names) - known):
                raise ConfigError(f"rule {self.name}: formulas must name inputs, age or female, got {unknown[0]!r}")

    @cached_property
    def formulas(self) -> tuple[Formula, Formula]:
        """The left and right side of an identity."""
        return parse_formula(self.left), parse_formula(self.right)

    @property
    def is_hard(self) -> bool:
        """Whether no real record breaks it."""
        return not self.soft


def rules_from(config: Mapping[str, Mapping[str, Any]]) -> tuple[Rule, ...]:
    """The rules of a configuration, by name, checked against schemas/rules.schema.json.

    Raises:
        ConfigError: If one is not complete or has unknown settings; it names the rule, the setting, and what to write.
    """
    return tuple(_rule(str(name), values) for name, values in config.items())


def _rule(name: str, values: Mapping[str, Any]) -> Rule:
    _check_schema(name, values)
    built: dict[str, Any] = {
        key: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for key, value in values.items()
    }
    try:
        if "ranges" in values:
            built["ranges"] = tuple(
                Range(tuple(one["codes"]), tuple(one["units"]), one.get("low"), one.get("high"))
                for one in values["ranges"]
            )
        if "inputs" in values:
            built["inputs"] = tuple(
                Input(key, tuple(one["codes"]), tuple(one["units"]), float(one.get("within_hours", 0)))
                for key, one in values["inputs"].items()
            )
        return Rule(name, **built)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(f"rule {name}: ") else f"rule {name}: {text}") from error


def _check_schema(name: str, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"rule {name}: must be a group of settings, got {values!r}")
    kind = values.get("kind")
    if kind not in REQUIRED:
        raise ConfigError(f"rule {name}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    errors = [one for one in _validators()[kind].iter_errors(values) if _tells(kind, one)]
    if errors:
        # A name that does not exist is often the one that is missing: it comes first.
        first = min(errors, key=lambda one: (one.validator not in _UNKNOWN, list(map(str, one.absolute_path))))
        raise ConfigError(f"rule {name}: {_explain(kind, first)}")


_UNKNOWN = ("additionalProperties", "unevaluatedProperties")


def _tells(kind: str, error: Any) -> bool:
    """Whether an error says something: every setting of a rule counts as unevaluated once another one is wrong."""
    return error.validator not in _UNKNOWN or bool(_unknown(kind, error))


def _unknown(kind: str, error: Any) -> list[str]:
    known = list(error.schema.get("properties", ())) if error.absolute_path else _known(kind)
    return [one for one in error.instance if one not in known]


def _explain(kind: str, error: Any) -> str:
    """What is wrong, where, and what to write instead."""
    where = ".".join(map(str, error.absolute_path))
    prefix = f"{where}." if where else ""
    if error.validator == "required":
        missing = next(one for one in error.validator_value if one not in error.instance)
        return f"a rule of kind {kind} needs {prefix}{missing}: {_meaning(error.schema, missing)}"
    if error.validator in _UNKNOWN:
        known = list(error.schema["properties"]) if where else _known(kind)
        unknown = _unknown(kind, error)[0]
        close = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
        return f"a rule of kind {kind} has no setting {prefix + unknown!r}: {hint}"
    return f"{where} {error.schema.get('description') or error.message}, got {error.instance!r}"


def _meaning(schema: Mapping[str, Any], name: str) -> str:
    definitions = _schema()["$defs"]
    meant = {**definitions["common"]["properties"], **schema.get("properties", {})}[name]
    return str({**definitions.get(meant.get("$ref", "").rpartition("/")[2], {}), **meant}["description"])


def _known(kind: str) -> list[str]:
    definitions = _schema()["$defs"]
    return [*definitions["common"]["properties"], *definitions[kind].get("properties", {})]


@cache
def _schema() -> dict[str, Any]:
    return dict(read_json(schema_dir() / "rules.schema.json"))


@cache
def _validators() -> dict[str, Any]:
    """A validator for each kind of rule."""
    from jsonschema import Draft202012Validator

    definitions = _schema()["$defs"]
    return {kind: Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": definitions}) for kind in KINDS}
