"""The page of trials_errors_survival.py: a matrix of tests by designs for each law, and what is not as expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trials_errors_survival_laws import Law
from trials_errors_survival_tests import HORIZON, log_rank_powers
from trials_errors_survival_verdict import Measured

_APPROXIMATIONS = ("score's law", "its null variance", "average hazard ratio", "Schoenfeld")
INTRO = f"""
450 patients (60 in the small trials), Poisson accrual over 12 months, control median 12 months, 5 % a year leave; looks
at 150, 225 and 300 events (two looks: 150 and 300; small: 40 events, one look). Alpha is 0.025, one-sided. Bounds are
those of the design at the fractions of information that the law expects of each test. `engine: log-rank` is
`medtwin.trials.engine` by itself, at the events of its own design (power 0.85 at hazard ratio 0.7). Restricted means
and survival are to {HORIZON:g} months: with three looks nothing would be new at the last, so two are measured; the
naive scale and MaxCombo are offered at one look. Tests of non-inferiority are those of a hazard ratio.

`*`: further from nominal than 0.003 (or from the large-sample power than 3 Monte-Carlo standard errors), and as an
independent programme in R finds it on the same law, within 4 standard errors of the difference. `!`: further, and R
finds something else, or has not been run of this row (`-` in the last table).
"""


def page(laws: Sequence[Law], found: Sequence[Measured], made: str, speeds: Mapping[str, float]) -> str:
    """The page in Markdown."""
    astray = [each for each in found if each.verdict != "ok"]
    missed = [each for each in found if each.verdict == "MISS"]
    nulls = [each for each in found if each.is_null]
    parts = [
        "# Type I error and power of the tests of survival",
        f"{made}\n{INTRO}",
        f"{len(found)} rows of {min(each.trials for each in found):,} trials or more: "
        f"{len(found) - len(astray)} as expected, "
        f"{len(astray) - len(missed)} as R finds, {len(missed)} missed. {_spread(nulls)}",
        "## Type I error, %",
    ]
    for law in laws:
        mine = [each for each in found if each.row.law == law.name]
        if mine and law.is_null:
            parts += [_title(law, mine), _matrix(mine)]
    if any(not each.is_null for each in found):
        parts += [
            "## Power, %",
            "Simulated, and in brackets the large-sample value; Monte-Carlo errors are at most 0.16.",
        ]
    for law in laws:
        mine = [each for each in found if each.row.law == law.name]
        if mine and not law.is_null:
            parts += [_title(law, mine), _matrix(mine)]
    table = _approximations([law for law in laws if not law.is_null and law.margin == 1], found)
    parts += [table] if table else []
    if speeds:
        parts += ["## Speed", _speeds(laws[0], speeds)]
    if astray:
        parts += ["## What is not as expected, beside R", _exceptions(astray)]
    return "\n\n".join(parts) + "\n"


def _title(law: Law, found: Sequence[Measured]) -> str:
    return f"### {law.title[0].upper()}{law.title[1:]} ({min(each.trials for each in found):,} trials)"


def _spread(nulls: Sequence[Measured]) -> str:
    """Of the errors."""
    if not nulls:
        return ""
    rates = sorted(each.rate for each in nulls)
    error = max(each.standard_error for each in nulls)
    return (
        f"Type I errors lie between {100 * rates[0]:.2f} and {100 * rates[-1]:.2f} %; "
        f"their Monte-Carlo standard errors are at most {100 * error:.3f}."
    )


def _matrix(found: Sequence[Measured]) -> str:
    """Tests by designs."""
    tests = list(dict.fromkeys(each.row.test for each in found))
    designs = list(dict.fromkeys(each.row.design for each in found))
    cells = {(each.row.test, each.row.design): _cell(each) for each in found}
    lines = [f"| design | {' | '.join(tests)} |", "|---" * (len(tests) + 1) + "|"]
    for design in designs:
        lines.append(f"| {design} | {' | '.join(cells.get((test, design), '') for test in tests)} |")
    return "\n".join(lines)


def _cell(found: Measured) -> str:
    mark = {"ok": "", "as R": "\\*", "MISS": "!"}[found.verdict]
    if found.is_null:
        return f"{100 * found.rate:.2f}{mark}"
    return f"{100 * found.rate:.2f}{mark} ({100 * found.row.expected:.2f})"


def _approximations(laws: Sequence[Law], found: Sequence[Measured]) -> str:
    """The log-rank test of one look: its power as simulated, and by each approximation."""
    lines = []
    for law in laws:
        name = "log-rank, stratified" if law.has_strata else "log-rank"
        mine = [each for each in found if each.row.key == f"{law.name} | {name} | fixed"]
        if mine:
            powers = log_rank_powers(law)
            cells = [f"{100 * powers[each]:.2f}" if each in powers else "" for each in _APPROXIMATIONS]
            error = 100 * mine[0].standard_error
            lines.append(f"| {law.title} | {100 * mine[0].rate:.2f} ± {error:.2f} | {' | '.join(cells)} |")
    if not lines:
        return ""
    head = f"| law | simulated | {' | '.join(_APPROXIMATIONS)} |"
    title = "### The log-rank test of one look by every approximation of its power, %"
    return "\n".join([title, "", head, "|---" * (len(_APPROXIMATIONS) + 2) + "|", *lines])


def _speeds(law: Law, speeds: Mapping[str, float]) -> str:
    lines = ["| test | trials per CPU second |", "|---|---|"]
    lines += [f"| {test} | {speed:,.0f} |" for test, speed in speeds.items()]
    said = f"Of {law.num_subjects} patients, their ordering included, in batches of 100; least CPU time of 7 turns."
    return "\n".join([said, "", *lines])


def _exceptions(found: Sequence[Measured]) -> str:
    lines = [
        "| law | test | design | rate | +- | expected | R | +- | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        if each.independent is None:
            other = "- | -"
        else:
            rate, trials = each.independent
            other = f"{rate:.4f} | {(rate * (1 - rate) / trials) ** 0.5:.4f}"
        lines.append(
            f"| {each.row.law} | {each.row.test} | {each.row.design} | {each.rate:.4f} | {each.standard_error:.4f} | "
            f"{each.row.expected:.4f} | {other} | {each.verdict} |"
        )
    return "\n".join(lines)
