"""The page tells of the groups that are judged, in one order, and of the others how many they are and why."""

from __future__ import annotations

from medtwin.check import Findings
from medtwin.check.attack_rows import Attempts, GroupRisk, Risk
from medtwin.check.findings import StratumRow
from medtwin.check.group_rows import OF_RECORDS, FairnessRow
from medtwin.pipelines.check_attack_section import attacks_section
from medtwin.pipelines.check_group_section import fairness_section
from medtwin.report import Table

FEW, FEW_TWINS = "not judged: fewer than 50 patients", "not judged: fewer than 50 twins"


def row(metric: str, division: str, group: str, reason: str = "") -> FairnessRow:
    numbers = () if reason else (0.2, 0.1, 0.3, 0.1, 0.1, 0.0, 0.2)
    return FairnessRow(metric, division, group, 60, 70, *numbers, reason=reason)


def test_groups_that_are_not_judged_are_counted_and_not_listed() -> None:
    rows = [
        row(OF_RECORDS, "race", "X", FEW),
        row(OF_RECORDS, "race", "W"),
        row(OF_RECORDS, "race", "Y", FEW),
        row(OF_RECORDS, "race", "Z", FEW_TWINS),
        row(OF_RECORDS, "sex", "F"),
        row("linkability", "sex", "F", FEW),
        row("inference", "sex", "M"),
    ]
    strata = tuple(StratumRow(division, "any", 60, 60, "", None) for division in ("sex", "race"))
    section = fairness_section(Findings(200, 200, 0, fairness=tuple(rows), strata=strata))
    assert section is not None
    tables = [part for part in section.parts if isinstance(part, Table)]
    assert [[cells[:2] for cells in table.rows] for table in tables] == [[["sex", "F"], ["race", "W"]], [["sex", "M"]]]
    assert [table.note for table in tables] == [
        "Not judged: 3 groups (2: fewer than 50 patients; 1: fewer than 50 twins).",
        "",
    ]
    assert list(section.paragraphs)[1:] == ["Attack: linkability: not judged: 1 group (fewer than 50 patients)."]


def test_risks_of_groups_that_are_not_known_are_counted() -> None:
    known = GroupRisk("sex", "F", Risk("linkability", "L", 0.1, 0.0, 0.2, Attempts(9, 90), Attempts(5, 90)))
    unknown = GroupRisk("sex", "M", Risk.unknown("linkability", "L", "too few"))
    section = attacks_section(Findings(200, 200, 0, risks=(known.risk,), group_risks=(known, unknown, unknown)))
    assert section is not None
    (table,) = (part for part in section.parts if isinstance(part, Table) and part.title == "The same in groups")
    assert [cells[0] for cells in table.rows] == ["linkability, sex F"]
    assert table.note == "Not estimable, and in tables/risks.csv: 2: too few."
