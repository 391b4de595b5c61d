"""Units of measure in UCUM: recognise, normalise, convert. Parsing and conversion are done by ucumvert and pint."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Spellings that hospitals write and UCUM does not know. Only spellings with one possible meaning stand here:
# "cc", "units" or "%/L" do not. Source: UCUM 2.1, table 1 and the common-units list of the Regenstrief Institute.
SYNONYMS: dict[str, str] = {
    "mmHg": "mm[Hg]",
    "mm Hg": "mm[Hg]",
    "cmH2O": "cm[H2O]",
    "bpm": "/min",
    "beats/min": "/min",
    "breaths/min": "/min",
    "insp/min": "/min",
    "°C": "Cel",
    "deg C": "Cel",
    "degC": "Cel",
    "°F": "[degF]",
    "deg F": "[degF]",
    "degF": "[degF]",
    "lb": "[lb_av]",
    "lbs": "[lb_av]",
    "in": "[in_i]",
    "inch": "[in_i]",
    "inches": "[in_i]",
    "IU/L": "[IU]/L",
    "IU/mL": "[IU]/mL",
    "mIU/L": "m[IU]/L",
    "uIU/mL": "u[IU]/mL",
    "mEq/L": "meq/L",
    "mEq/l": "meq/L",
    "mg/dl": "mg/dL",
    "g/dl": "g/dL",
    "ug/dl": "ug/dL",
    "ng/ml": "ng/mL",
    "pg/ml": "pg/mL",
    "ug/ml": "ug/mL",
    "mcg/mL": "ug/mL",
    "mcg/dL": "ug/dL",
    "mcg": "ug",
    "mcg/hour": "ug/h",
    "mcg/min": "ug/min",
    "mg/hour": "mg/h",
    "mL/hour": "mL/h",
    "ml/hr": "mL/h",
    "gm": "g",
    "sec": "s",
    "min": "min",
    "hour": "h",
    "hours": "h",
    "hr": "h",
    "day": "d",
    "days": "d",
    "years": "a",
    "ml": "mL",
    "K/uL": "10*3/uL",
    "k/uL": "10*3/uL",
    "m/uL": "10*6/uL",
    "M/uL": "10*6/uL",
    "K/mcL": "10*3/uL",
    "10^3/uL": "10*3/uL",
    "10^6/uL": "10*6/uL",
    "10*9/L": "10*9/L",
    "#/uL": "/uL",
    "#/CU MM": "/mm3",
    "mOsm/kg": "mosm/kg",
    "mmol/l": "mmol/L",
    "umol/l": "umol/L",
    "{nominal}": "{nominal}",
}

# UCUM by its grammar, but hospitals that write these in capitals mean something else: grams, not megagauss.
AMBIGUOUS = frozenset({"C", "F", "G", "H", "KG", "MG", "ML", "P", "S"})


@cache
def _registry() -> Any:
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()


@cache
def _grammar() -> Any:
    """The parser of UCUM, from the grammar that ucumvert brings; without pint, which takes a second to load."""
    from lark import Lark

    folders = getattr(find_spec("ucumvert"), "submodule_search_locations", None) or []
    text = (Path(folders[0]) / "ucum_grammar.lark").read_text(encoding="utf-8")
    return Lark(text, start="main_term", strict=True)


@lru_cache(maxsize=4096)
def is_ucum(unit: str) -> bool:
    """Whether `unit` is a valid, case-sensitive UCUM expression; pint need not have such a unit, as of [pH].

    >>> is_ucum("mm[Hg]"), is_ucum("mmHg"), is_ucum("mL/min/{1.73_m2}")
    (True, False, True)
    """
    from lark.exceptions import LarkError

    if not unit or unit != unit.strip():
        return False
    try:
        _grammar().parse(unit)
    except LarkError:
        return False
    return True


@lru_cache(maxsize=4096)
def to_ucum(unit: str) -> str | None:
    """The UCUM code of a unit as a hospital writes it; None if it has no single meaning.

    >>> to_ucum("mmHg"), to_ucum("K/uL"), to_ucum("units")
    ('mm[Hg]', '10*3/uL', None)
    """
    text = unit.strip()
    if text in SYNONYMS:
        return SYNONYMS[text]
    if text in AMBIGUOUS:
        return None
    return text if is_ucum(text) else None


def convert(value: float, unit: str, to: str) -> float:
    """The value in another UCUM unit of the same dimension.

    Raises:
        ValueError: If a unit is not UCUM, or the two measure different things. Mass and amount of substance differ by
            the molar mass of the analyte, and are different things here.

    >>> round(convert(98.6, "[degF]", "Cel"), 6)
    37.0
    """
    from lark.exceptions import VisitError
    from pint.errors import PintError

    for name in (unit, to):
        if not is_ucum(name):
            raise ValueError(f"unit must be UCUM, got {name!r}")
    if unit == to:
        return value
    registry = _registry()
    try:
        source, target = registry.from_ucum(unit), registry.from_ucum(to)
        if not (hasattr(source, "units") and hasattr(target, "units")):
            raise ValueError(f"{unit!r} cannot be converted to {to!r}: an annotation is no unit")
        quantity = registry.Quantity(value * source.magnitude, source.units)
        return float(quantity.to(target.units).magnitude / target.magnitude)
    except (PintError, VisitError) as error:
        raise ValueError(f"{unit!r} cannot be converted to {to!r}: they measure different things") from error
