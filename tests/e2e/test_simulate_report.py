"""The three forms of a trial's report: report.html, report.md and report.json say the same."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from medtwin.pipelines.simulate import simulate, trial_config
from medtwin.pipelines.simulate_settings import SimulateSettings
from tests.e2e.test_simulate import meds, rows_of

Rows = list[list[str]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a cohort of 60, half of whom die; with futility bounds."""
    folder = tmp_path_factory.mktemp("report")
    futility = "{_target_: medtwin.trials.Spending, kind: hwang_shih_decani, parameter: -4.0}"
    trial = trial_config("any_adult", ["trial.hazard_ratio=0.5", f"trial.plan.futility={futility}"])
    return simulate(SimulateSettings(meds(folder / "meds", num_deaths=30), trial, folder / "trial", 200, 100))


def tables_of_page(path: Path) -> list[Rows]:
    text = path.read_text(encoding="utf-8")
    found = []
    for table in re.findall(r"<table>(.*?)</table>", text, re.DOTALL):
        rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        found.append([[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows])
    return found


def tables_of_markdown(path: Path) -> list[Rows]:
    text = path.read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in block.splitlines()]
        found.append([[cell.replace("\\|", "|").replace("\\<", "<") for cell in row] for row in [rows[0], *rows[2:]]])
    return found


def numbers_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def table_with(tables: list[Rows], *columns: str) -> Rows:
    return next(table[1:] for table in tables if set(columns) <= set(table[0]))


def test_the_page_and_the_markdown_have_the_same_tables(report: Path) -> None:
    page, markdown = tables_of_page(report / "report.html"), tables_of_markdown(report / "report.md")
    assert len(page) >= 12
    assert markdown[1:] == page  # the first of Markdown is the summary, no table on the page
    text = (report / "report.html").read_text(encoding="utf-8")
    told = dict(zip(re.findall(r"<dt>(.*?)</dt>", text), re.findall(r"<dd>(.*?)</dd>", text), strict=True))
    assert dict(markdown[0][1:]) == told
    images = re.findall(r"!\[.+?\]\((.+?)\)", (report / "report.md").read_text(encoding="utf-8"))
    assert len(images) == text.count("<svg") == 8
    for image in images:
        drawn = (report / image).read_text(encoding="utf-8")
        assert drawn.startswith("<svg")
        assert drawn in text


def test_the_operating_characteristics_are_those_of_the_json(report: Path) -> None:
    tables, numbers = tables_of_page(report / "report.html"), numbers_of(report / "report.json")
    shown = [row for table in tables if table[0][-1] == "analytical" and table[0][0] == "" for row in table[1:]]
    lines = [line for line in numbers["characteristics"] if line["scenario"] != "power curve"]
    assert len(shown) == len(lines) > 20
    for row, line in zip(shown, lines, strict=True):
        what, e = line["characteristic"], line["estimate"]
        digits = 1 if what.startswith(("events", "subjects", "duration")) else 4
        assert row[0] == (f"{what} {line['look']}" if line["look"] else what)
        assert row[1] == f"{e['value']:,.{digits}f} ± {e['standard_error']:,.{digits}f}"
        assert row[2] == f"{e['low']:,.{digits}f} to {e['high']:,.{digits}f}"
        theory = line["analytical"]
        assert row[3] == ("\N{EN DASH}" if theory is None else f"{theory:,.{digits}f}")
    told = rows_of(report / "operating_characteristics.csv")
    assert [float(row["estimate"]) for row in told] == [x["estimate"]["value"] for x in numbers["characteristics"]]


def test_bounds_quantiles_and_groups_are_those_of_the_json(report: Path) -> None:
    tables, numbers = tables_of_page(report / "report.html"), numbers_of(report / "report.json")
    bounds = table_with(tables, "efficacy z", "futility z")
    assert len(bounds) == len(numbers["looks"]) == 2
    for row, look in zip(bounds, numbers["looks"], strict=True):
        for at, side in ((1, "efficacy"), (5, "futility")):
            told = look[side]
            cells = [f"{told['z']:.3f}", f"{told['p']:.5f}", f"{told['hazard_ratio']:.3f}"]
            assert row[at : at + 3] == cells
        assert (row[4], row[8]) == (f"{look['alpha_spent']:.5f}", f"{look['beta_spent']:.5f}")
    quantiles = table_with(tables, "25 %", "75 %")
    every = [each for name in ("alternative", "null") for each in numbers["distributions"][name]]
    for row, each in zip(quantiles, every, strict=True):
        digits = 1 if each["name"].endswith("months") else 0
        assert row[2:7] == [
            f"{each['quantiles'][q]['value']:,.{digits}f}" for q in ("0.05", "0.25", "0.5", "0.75", "0.95")
        ]
    groups = table_with(tables, "of the cohort", "of the eligible")
    assert len(groups) == len(numbers["representation"]) > 2
    for row, each in zip(groups, numbers["representation"], strict=True):
        assert row[:3] == [each["division"], each["group"], f"{each['cohort']:,} ({each['cohort_share']:.1%})"]
        spread = each["enrolled"]
        assert row[4] == f"{spread['mean']['value']:.1%} ({spread['low']:.1%} to {spread['high']:.1%})"
    powers = {row[0]: row[1] for row in table_with(tables, "true hazard ratio")}
    for point in numbers["power_curve"]:
        e = point["power"]
        assert powers[f"{point['hazard_ratio']:.3f}"] == f"{e['value']:,.4f} ± {e['standard_error']:,.4f}"


def test_the_bounds_of_the_table_are_on_three_scales(report: Path) -> None:
    rows = rows_of(report / "boundaries.csv")
    assert float(rows[-1]["efficacy_p"]) < 0.025  # the first look spent some of it
    assert float(rows[0]["futility_p"]) > 0.1
    assert float(rows[0]["futility_hazard_ratio"]) > float(rows[0]["efficacy_hazard_ratio"])


def test_the_page_needs_nothing_from_outside(report: Path) -> None:
    text = (report / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text.replace("xlink:href", "href"))
    assert "<script" not in text


def test_the_what_if_is_the_same_in_page_json_and_csv(report: Path) -> None:
    """Every share, value and effect has an interval around it, and says how."""
    numbers, told = numbers_of(report / "report.json")["what_if"], rows_of(report / "what_if.csv")
    assert len(numbers["rows"]) == len(told) > 10
    for row, line in zip(numbers["rows"], told, strict=True):
        assert (line["left_out"], line["quantity"], float(line["value"])) == (
            row["left_out"],
            row["quantity"],
            row["value"],
        )
        assert row["low"] <= row["value"] <= row["high"]
        assert row["method"] in ("exact", "bootstrap of patients", "infinitesimal jackknife")
    kinds = {row["quantity"] for row in numbers["rows"]}
    assert kinds >= {"eligible", "gained", "shapley value", "share", "change of the share", "endpoint"}
    shown = table_with(tables_of_page(report / "report.html"), "left out", "gained")
    first = next(row for row in numbers["rows"] if row["quantity"] == "eligible")
    assert shown[0][0] == "none"
    assert shown[0][1].startswith(f"{first['count']:,}: {first['value']:.1%} (")
