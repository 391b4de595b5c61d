#!/usr/bin/env python3
"""Writes what finished checks found, gate by gate with intervals, as one page.

    .venv/bin/python scripts/bench/check_suite.py NAME=my/check ... --write docs/results/suite.md

Every gate that applies stands with its value, its 95 % interval, the same between two halves of the real patients, and
the limit of the profile; the attacks follow with the hits on people in training, on as many whom training did not see,
and of a guess. The section "What it says" of the page is written by hand and stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from head_commit import head_commit
from pages import read_page, said_lines

from medtwin.core.files import read_json

_ATTACKS = {"singling_out.one": "singling out by one", "singling_out.several": "singling out by several"}


def shown(number: float | None) -> str:
    """A number with three digits; empty where there is none."""
    return "" if number is None else f"{number:.3g}"


def spread(row: dict[str, Any], name: str) -> str:
    """What a row has under a name, with its interval."""
    value = shown(row[name])
    return f"{value} ({shown(row['low'])} to {shown(row['high'])})" if value and row["low"] is not None else value


def section(name: str, folder: Path) -> list[str]:
    """The tables of one check."""
    findings = read_json(folder / "findings.json")
    gates = findings["gates"]
    applied = [row for row in gates if row["outcome"] != "not_applicable"]
    counts = {outcome: sum(row["outcome"] == outcome for row in gates) for outcome in ("passed", "failed", "unchecked")}
    sizes = f"{findings['num_synthetic']:,} twins, {findings['num_real']:,} patients of training"
    images = "images {:,} real, {:,} of twins".format(*findings["num_images"])
    lines = [
        f"## {name}",
        "",
        f"Profile {findings['profile']}: {sizes}, {findings['num_control']:,} others; {images}. "
        + ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
        + ".",
        "",
        "| gate | outcome | value (95 %) | real vs real | limit | why |",
        "|---|---|---|---|---|---|",
    ]
    for row in applied:
        outcome = f"**{row['outcome']}**" if row["outcome"] == "failed" else row["outcome"]
        cells = [row["name"], outcome, spread(row, "value"), shown(row["baseline"]), shown(row["limit"]), row["reason"]]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| attack | risk (95 %) | in training | not seen | guess |", "|---|---|---|---|---|"]
    for risk in findings["risks"]:
        if risk["risk"] is None:
            continue
        sides = [_hits(risk[side]) for side in ("train", "control", "naive")]
        lines.append(f"| {_ATTACKS.get(risk['name'], risk['name'])} | {spread(risk, 'risk')} | {' | '.join(sides)} |")
    lines += [
        "",
        "| membership by | of whom | area (95 %) | found among the first 1 % and 0.1 % |",
        "|---|---|---|---|",
    ]
    for one in findings["memberships"]:
        if one["area"] is not None and one["group"].startswith(("everybody", "worst")):
            rates = "; ".join(_rate(found) for found in one["found"])
            lines.append(f"| {one['name']} | {one['group']} | {spread(one, 'area')} | {rates} |")
    return [*lines, ""]


def _hits(side: dict[str, int] | None) -> str:
    """How many of how many; empty where nothing of the kind was tried."""
    return "" if side is None else f"{side['hits']:,} of {side['tried']:,}"


def _rate(found: dict[str, Any]) -> str:
    """A true-positive rate at a false-positive rate, or that there is none."""
    at = f"at {100 * found['false_positives']:g} %"
    if found["rate"] is None:
        return f"{at}: not estimable"
    rate, low, high = (100 * found[name] for name in ("rate", "low", "high"))
    return f"{at}: {rate:.2g} % ({low:.2g} to {high:.2g})"


def main(words: Sequence[str] | None = None) -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="+", help="NAME=DIR, a finished check")
    parser.add_argument("--write", type=Path, help="write the page here; what it says by hand stays")
    chosen = parser.parse_args(words)
    lines = ["# The whole suite on twins of shipped experiments", ""]
    lines += [f"Tables by `scripts/bench/check_suite.py` at {head_commit()}.", ""]
    page = chosen.write
    lines += said_lines(read_page(page))
    for check in chosen.checks:
        name, _, folder = check.partition("=")
        if not (Path(folder) / "findings.json").is_file():
            raise SystemExit(f"{check}: NAME=DIR of a finished check is wanted")
        lines += section(name, Path(folder))
    text = "\n".join(lines).rstrip() + "\n"
    if page is None:
        print(text)
    else:
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
