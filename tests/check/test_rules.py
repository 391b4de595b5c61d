from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from medtwin.check.rules import KINDS, REQUIRED, Rule, rules_from
from medtwin.config import compose
from medtwin.core.errors import ConfigError
from medtwin.core.files import read_json
from medtwin.core.formulas import parse_formula
from medtwin.core.paths import schema_dir

CODED: dict[str, Any] = {"codes": ["A"]}
RANGES = {"ranges": [{"codes": ["A", "B*"], "units": ["kg", ""], "low": 1, "high": 2.5}]}
SETTINGS: dict[str, dict[str, Any]] = {
    "after-death": {"tolerance_hours": 24},
    "before-birth": {"codes": ["A*"], "except_codes": ["AB"]},
    "not-of-sex": {**CODED, "sex": "M"},
    "age-at-onset": {**CODED, "ages": [10, None], "events": "every"},
    "duplicate-event": {},
    "ends-before-start": {},
    "outside-encounter": {"resources": ["Observation"]},
    "value-range": RANGES,
    "dose-range": RANGES,
    "identity": {
        "inputs": {"a": {"codes": ["A"], "units": ["kg"]}, "b": {"codes": ["B"], "units": ["kg"], "within_hours": 2}},
        "left": "a",
        "relation": "equals",
        "right": "2 * b",
        "tolerance": 0.5,
    },
    "needs-before": {**CODED, "needs": ["B"], "slack_days": 3},
    "contraindicated": {**CODED, "against": ["B"], "within_days": 3, "against_first": True},
    "order": {**CODED, "after": ["B"]},
    "once": CODED,
}


def values(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "title": "t", "source": "s", **SETTINGS[kind], **more}


def test_every_kind_is_read_from_plain_values() -> None:
    assert set(SETTINGS) == set(KINDS)
    rules = rules_from({kind: values(kind) for kind in KINDS})
    assert [rule.kind for rule in rules] == list(KINDS)
    by_name = {rule.name: rule for rule in rules}
    assert by_name["value-range"].ranges[0].units == ("kg", "")
    assert (by_name["value-range"].ranges[0].low, by_name["value-range"].ranges[0].high) == (1, 2.5)
    assert by_name["age-at-onset"].ages == (10, None)
    assert [one.within_hours for one in by_name["identity"].inputs] == [0, 2]
    assert by_name["once"].is_hard
    assert not rules_from({"r": values("once", soft="1 of 3")})[0].is_hard


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_kind_needs_is_missed(kind: str) -> None:
    for setting in ("title", "source", *REQUIRED[kind]):
        wrong = {key: value for key, value in values(kind).items() if key != setting}
        with pytest.raises(ConfigError, match=f"rule r: a rule of kind {kind} needs {setting}: must "):
            rules_from({"r": wrong})


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("after-death", {"kind": "never"}, "rule r: kind must be one of after-death, .*, got 'never'"),
        ("after-death", {"scource": "x"}, "rule r: .*no setting 'scource': did you mean 'source'?"),
        ("after-death", {"sex": "M"}, "rule r: a rule of kind after-death has no setting 'sex'"),
        ("after-death", {"source": " "}, "rule r: source must say where the rule comes from"),
        ("after-death", {"soft": ""}, "rule r: soft must say why real records break"),
        ("not-of-sex", {"sex": "X"}, "rule r: sex must be M or F"),
        ("not-of-sex", {"codes": []}, "rule r: codes must be a list of codes"),
        ("not-of-sex", {"codes": "A"}, "rule r: codes must be a list of codes"),
        ("age-at-onset", {"ages": [3]}, "rule r: ages must be the lowest and the highest age"),
        ("age-at-onset", {"ages": [9, 3]}, "rule r: ages must be lowest and highest"),
        ("value-range", {"ranges": [{"codes": ["A"], "units": ["kg"], "low": "x"}]}, r"rule r: ranges\.0\.low must be"),
        (
            "value-range",
            {"ranges": [{"codes": ["A"], "units": ["kg"]}]},
            "rule r: ranges.0 must have codes, units",
        ),
        (
            "value-range",
            {"ranges": [{"codes": ["A"], "unit": "kg", "low": 1}]},
            "'ranges.0.unit': did you mean",
        ),
        (
            "value-range",
            {"ranges": [{"codes": ["A"], "units": ["kg"], "low": 3, "high": 1}]},
            "rule r: low must be at most high, got 3 and 1",
        ),
        ("identity", {"right": "2 * c"}, "rule r: formulas must name inputs, age or female, got 'c'"),
        ("identity", {"right": "__import__('os')"}, "rule r: formula must hold only numbers"),
        ("identity", {"right": "b.real"}, "rule r: formula must hold only numbers"),
        ("identity", {"right": "2 *"}, "rule r: formula must be arithmetic"),
        ("identity", {"relation": "near"}, "rule r: relation must be equals, at-most or below"),
        ("needs-before", {"slack_days": -1}, "rule r: slack_days must be days, 0 or more"),
    ],
)
def test_what_is_wrong_is_told_with_rule_setting_and_remedy(kind: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rules_from({"r": {**values(kind), **more}})


def test_a_rule_is_a_group_of_settings() -> None:
    with pytest.raises(ConfigError, match="rule r: must be a group of settings, got 'x'"):
        rules_from({"r": "x"})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="source must say"):
        Rule("r", "after-death", "r", " ")
    with pytest.raises(ConfigError, match="needs codes"):
        Rule("r", "once", "r", "s")


def test_the_schema_says_the_same_of_the_shipped_rules_as_the_code() -> None:
    schema = read_json(schema_dir() / "rules.schema.json")
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    shipped = compose("check", ["synthetic=x", "real=x"])["rules"]
    assert not list(validator.iter_errors(shipped))
    assert list(validator.iter_errors({"r": {**values("once"), "codess": 1}}))
    assert set(schema["$defs"]["common"]["properties"]["kind"]["enum"]) == set(KINDS)
    rules = rules_from(shipped)
    assert {rule.kind for rule in rules} == set(KINDS)
    assert len({rule.title for rule in rules}) == len(rules)
    for rule in rules:
        codes = [*rule.codes, *rule.needs, *rule.against, *rule.after]
        codes += [code for part in (*rule.ranges, *rule.inputs) for code in part.codes]
        assert len(set(rule.codes)) == len(rule.codes), rule.name
        assert all("//" in code or code in ("MEDS_BIRTH", "MEDS_DEATH") for code in codes), rule.name
        assert not any("*" in code[:-1] for code in codes), rule.name


def test_shipped_rules_can_be_chosen_left_out_and_added_to() -> None:
    def names(*overrides: str) -> set[str]:
        return {rule.name for rule in rules_from(compose("check", ["synthetic=x", "real=x", *overrides])["rules"])}

    mine = (
        "+rules.our-lactate.kind=value-range",
        "+rules.our-lactate.title=Lactate is at most 20",
        "+rules.our-lactate.source=our ward",
        "+rules.our-lactate.ranges=[{codes: [LOINC//2524-7], units: [mmol/L], high: 20}]",
    )
    record = names("rules=record", "~rules.born-once", *mine)
    assert {"nothing-after-death", "our-lactate"} < record
    assert not {"born-once", "value-sodium"} & record


def test_the_page_of_rules_lists_every_one_and_every_kind() -> None:
    """`scripts/bench/check_rules.py --list docs/plausibility.md` writes the table anew."""
    page = (Path(__file__).parents[2] / "docs" / "plausibility.md").read_text()
    for rule in rules_from(compose("check", ["synthetic=x", "real=x"])["rules"]):
        assert f"| {rule.name} | {rule.title}." in page, rule.name
        assert rule.source in page, rule.name
    assert all(f"| {kind} |" in page for kind in KINDS)


def test_formulas_are_arithmetic() -> None:
    formula = parse_formula("-a + min(b, 2) * max(b, 2) / sqrt(4) - abs(exp(0) - log(1)) ** 2")
    assert formula.names == {"a", "b"}
    found = formula.evaluate({"a": np.array([1.0, 2.0]), "b": np.array([4.0, 1.0])})
    assert found.tolist() == [-1 + 2 * 4 / 2 - 1, -2 + 1 * 2 / 2 - 1]
    assert not np.isfinite(parse_formula("1 / a").evaluate({"a": np.array([0.0])})).any()
