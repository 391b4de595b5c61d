from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtwin.trials.population.code_family import DRUG_RESOURCES, CodeFamily
from medtwin.trials.population.evaluation import statements
from medtwin.trials.population.language import parse
from medtwin.trials.population.measures import COMMON_MEASURES, Measure
from medtwin.trials.population.propositions import (
    And,
    Attribute,
    InRange,
    Not,
    Occurrence,
    OneOf,
    Or,
    Series,
    Summary,
    Time,
    Window,
    codes_of,
)
from medtwin.trials.population.tokens import EligibilityError
from tests.trials.population.expressions import propositions

EGFR = tuple(CodeFamily(code) for code in COMMON_MEASURES["egfr"].codes)
INR = (CodeFamily("LOINC//6301-6"),)
I50 = CodeFamily("I50", ("Condition",))


def test_the_example_of_the_language() -> None:
    assert parse("age >= 18 & egfr[-90d:] > 30 & no condition(I50)[-365d:]") == And(
        (
            InRange(Time("age"), low=18),
            InRange(Summary("last", Series(EGFR, "mL/min/{1.73_m2}", Window(-90), "egfr")), low=30, includes_low=False),
            Not(Occurrence("condition", (I50,), Window(-365))),
        )
    )


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("18 <= age < 75", InRange(Time("age"), 18, 75, True, False)),
        ("75 >= age > 18", InRange(Time("age"), 18, 75, False, True)),
        ("18 < age", InRange(Time("age"), 18, math.inf, False)),
        ("age = 50y", InRange(Time("age"), 50, 50)),
        ("age != 50", Not(InRange(Time("age"), 50, 50))),
        ("age in {50, 60, 50}", OneOf(Time("age"), (50.0, 60.0))),
        ("followed >= 2w", InRange(Time("followed"), low=14)),
        ("observed >= 1y", InRange(Time("observed"), low=365.25)),
        ("sex = female", Attribute("sex", ("F",))),
        ("sex != M", Not(Attribute("sex", ("M",)))),
        ("race in {2106-3, black, white}", Attribute("race", ("white", "black"))),
        ("drug(C09*)", Occurrence("drug", (CodeFamily("C09*", DRUG_RESOURCES),))),
        ('event("A,b|c")', Occurrence("event", (CodeFamily("A,b|c"),))),
        (
            "count(procedure(SNOMED//1 | X//2)[-2y:-30d]) >= 2",
            InRange(
                Summary(
                    "count",
                    Occurrence(
                        "procedure",
                        (CodeFamily("SNOMED//1", ("Procedure",)), CodeFamily("X//2", ("Procedure",))),
                        Window(-730, -30),
                    ),
                ),
                low=2,
            ),
        ),
        (
            "mean(value(A//1, mL/min/(1.73.m2))[:]) < -1.5",
            InRange(Summary("mean", Series((CodeFamily("A//1"),), "mL/min/(1.73.m2)")), high=-1.5, includes_high=False),
        ),
        (
            "value(A//1) <= 3 mg/dL",
            InRange(Summary("last", Series((CodeFamily("A//1"),), "mg/dL")), high=3.0),
        ),
        ("max(inr[-1w:]) <= 1.5", InRange(Summary("max", Series(INR, None, Window(-7), "inr")), high=1.5)),
    ],
)  # fmt: skip
def test_each_form(text: str, tree: object) -> None:
    assert parse(text) == tree


def test_not_binds_before_and_before_or() -> None:
    a, b, c = (InRange(Time("age"), low=float(n)) for n in (1, 2, 3))
    assert parse("age >= 1 | age >= 2 & not age >= 3") == Or((a, And((b, Not(c)))))
    assert parse("(age >= 1 or age >= 2) and ! age >= 3") == And((Or((a, b)), Not(c)))
    assert parse("age >= 1 &\n (age >= 2 & age >= 3)") == And((a, b, c))


def test_bounds_are_converted_to_the_unit_of_the_measure() -> None:
    assert parse("creatinine <= 15 mg/L") == parse("creatinine <= 1.5")
    assert parse("leukocytes > 4 10*9/L") == parse("leukocytes > 4 K/uL") == parse("leukocytes > 4")
    assert parse("temperature <= 98.6 [degF]") == parse("temperature <= 37")


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("[:]", Window()),
        ("[-90d:]", Window(-90)),
        ("[:-1d]", Window(None, -1)),
        ("[-2y:-30d]", Window(-730, -30)),  # 730.5 days back: the 730 whole days
        ("[-1m:]", Window(-30)),
        ("[:-1m]", Window(None, -31)),  # at least 30.4375 days back
        ("[0d:0d]", Window(0, 0)),
        ("[0:]", Window(0, 0)),
        ("[ -2w : 0 ]", Window(-14, 0)),
    ],
)
def test_windows(window: str, expected: Window) -> None:
    assert parse(f"event(A){window}") == Occurrence("event", (CodeFamily("A"),), expected)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "expected a criterion, got the end"),
        ("age 18", 5, r"expected a comparison \(<, <=, >, >=, =, !=\) after age, got '18'"),
        ("agee > 3", 1, "got 'agee'; did you mean age"),
        ("age > 3 & creatinin < 2", 11, "got 'creatinin'; did you mean creatinine"),
        ("no conditon(I50)", 4, "did you mean condition"),
        ("no egfr", 4, "expected condition, drug, procedure or event after 'no'"),
        ("sex = X", 7, "expected F, M, female or male, got 'X'"),
        ("race = blak", 8, "did you mean black"),
        ("race > 3", 6, "expected '=', '!=' or 'in' after 'race'"),
        ("age > 18 age < 3", 10, "expected '&', '|' or the end"),
        ("(age > 18", 10, r"expected '\)' to close the parenthesis, got the end"),
        ("age > 18)", 9, "the end, got"),
        ("condition I50", 11, r"expected '\(' and codes after 'condition'"),
        ("condition()", 11, "expected a code, such as I50"),
        ("condition(I50", 14, r"expected '\)' after the codes"),
        ("condition(I*0)", 11, r"a '\*' at most at its end"),
        ("condition(*)", 11, "a code"),
        ("condition(I50, mg)", 14, "or '|' and another code"),
        ("value(A//1, wombats per litre) > 3", 13, "expected a UCUM unit"),
        ("creatinine < 132 umol/L", 14, "expected a unit that can be converted to mg/dL"),
        ("count(creatinine) < 2 mg/dL", 21, "expected a count without a unit"),
        ("egfr[-90:] > 30", 7, r"expected a unit of time after 90 \(d, w, m or y\)"),
        ("egfr[-48h:] > 30", 7, "the resolution is the day"),
        ("egfr[-90d] > 30", 10, "expected ':' between the ends"),
        ("egfr[1d:2d] > 30", 5, "up to the index day: what comes after it cannot decide who enters"),
        ("egfr[:30d] > 30", 5, "up to the index day"),
        ("egfr[-30d:-90d] > 30", 5, "starts before its end"),
        ("followed >= 365", 13, "expected a duration in d, w, m or y"),
        ("age >= 18m", 8, "expected an age in years"),
        ("last(condition(I50)) > 1", 6, "events have no value"),
        ("18 <= age >= 20", 11, "as on the other side"),
        ("18 <= age <= 3", 14, "leaves room for the range"),
        ("18 < age < 18", 12, "leaves room"),
        ("age in [18, 20]", 8, "expected '{' and a list"),
        ("age > $", 7, r"'\$' has no meaning"),
        ("age > --3", 8, "a number"),
        ("age > 1e999", 7, "a finite number"),
        ("(" * 101 + "age > 1" + ")" * 101, 102, "at most 100 parentheses"),
    ],
)
def test_errors_point_at_the_place(text: str, column: int, message: str) -> None:
    with pytest.raises(EligibilityError, match=message) as caught:
        parse(text)
    assert caught.value.column == min(column, len(text) + 1)
    said = str(caught.value).splitlines()
    assert said[0].startswith(f"eligibility, column {caught.value.column}: ")
    assert said[2].index("^") == caught.value.column + 1


def test_names_are_those_of_the_mapping() -> None:
    ours = {"nyha": Measure(["LOCAL//nyha"])}
    assert codes_of(parse("nyha in {2, 3}", ours)) == [CodeFamily("LOCAL//nyha")]
    with pytest.raises(EligibilityError, match="got 'egfr'"):
        parse("egfr > 30", ours)
    with pytest.raises(ValueError, match="must not be named like a word of the language, got age"):
        parse("age > 3", {"age": Measure(["X//1"])})
    with pytest.raises(ValueError, match="must be a list"):
        Measure("X//1")


def test_a_conjunction_is_several_criteria() -> None:
    labels = [one.label for one in statements("age >= 18 & (sex = F | egfr > 30) & no drug(C09)[-1y:]")]
    assert labels == ["age >= 18", "sex = F | egfr > 30 mL/min/{1.73_m2}", "no drug(C09)[-365d:]"]
    assert len(statements("age >= 18 | sex = F")) == 1


@pytest.mark.parametrize(
    ("pattern", "code", "belongs"),
    [
        ("I50", "ICD10CM//I50", True),
        ("I50", "ICD10CM//I50.9", True),
        ("I50", "ICD10//I5021", True),
        ("I50.2", "ICD10CM//I50.21", True),
        ("I50.2", "DIAGNOSIS//ICD//10//I5021", True),
        ("I50", "ICD10CM//I51.0", False),
        ("I5", "ICD10CM//I50.9", False),  # no category
        ("I5*", "ICD10CM//I50.9", True),
        ("250", "ICD9CM//25000", True),
        ("ICD9//250", "ICD10CM//250", False),
        ("SNOMED//44054006", "SNOMED//44054006", True),
        ("SNOMED//4405400", "SNOMED//44054006", False),
        ("44054006", "SNOMED//44054006", True),
        ("LOINC//4548", "LOINC//4548-4", False),
        ("C09", "ATC//C09AA02", True),
        ("C", "ATC//C09AA02", True),
        ("C09", "RXNORM//C09AA02", False),
        ("I50", "NEGATED//I50", False),
        ("I50", "FHIR//I50", False),
        ("mimic.mit.edu/fhir/x//51222", "mimic.mit.edu/fhir/x//51222", True),
    ],
)
def test_families_of_codes(pattern: str, code: str, belongs: bool) -> None:
    assert CodeFamily(pattern).matches(code) is belongs


@settings(max_examples=80, deadline=None)
@given(propositions())
def test_the_text_of_a_tree_says_the_tree(text: str) -> None:
    tree = parse(text)
    assert parse(str(tree)) == tree


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='age rf[]()-:9d<>=&|!{}.,"%I5conditvlu/*', max_size=40))
def test_what_is_no_expression_is_refused_and_nothing_else_happens(text: str) -> None:
    with contextlib.suppress(EligibilityError):
        tree = parse(text)
        assert parse(str(tree)) == tree
