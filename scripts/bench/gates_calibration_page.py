"""What gates_calibration.py kept, and the page that it makes of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtwin.check import Estimate, Findings, Measure, Profile, judge
from medtwin.check.findings import CopyRow, RuleRow
from medtwin.check.gates import RULES, exact_interval

MOST = 0.08
"""Share of independent real draws that a gate, or all of a profile's gates together, may fail (issue 10)."""
TOGETHER = "any of them"


def keep_settings(state: Path, settings: Mapping[str, Any]) -> None:
    """Notes what the state is of, or refuses to mix it with something else."""
    path = state / "settings.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        raise SystemExit(f"--state {state} is of other data or settings: {path.read_text()}; choose another folder")
    path.write_text(json.dumps(settings))


def read_part(state: Path, part: str) -> dict[int, dict[str, Any]]:
    """What was kept of a part by pair; a line that was broken off is left out."""
    path = state / f"{part}.jsonl"
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            one = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[one["pair"]] = one
    return found


def findings_of(parts: Sequence[Mapping[str, Any]], num_patients: int) -> Findings:
    """The findings of one pair, as far as gates look at them."""
    measures = [
        Measure(**{**one, "estimate": None if one["estimate"] is None else Estimate(**one["estimate"])})
        for part in parts
        for one in part.get("measures", [])
    ]
    copies = [CopyRow(**one) for part in parts for one in part.get("copies", [])]
    rules = [
        RuleRow(**{name: _plain(value) for name, value in one.items()})
        for part in parts
        for one in part.get("rules", [])
    ]
    sizes = num_patients, num_patients, num_patients // 2
    return Findings(*sizes, measures=tuple(measures), copies=tuple(copies), rules=tuple(rules))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def outcomes(findings: Findings, profile: Profile) -> dict[str, str]:
    """The outcome of every gate whose measure was measured."""
    known = {one.name for one in (*findings.measures, *findings.copies)} | ({RULES} if findings.rules else set())
    gates = tuple(gate for gate in profile.gates if gate.metric in known)
    if not gates:
        return {}
    judged = judge(findings, Profile(profile.name, profile.about, profile.unchecked, gates))
    return {one.name: str(one.outcome) for one in judged}


@dataclass(frozen=True)
class Run:
    """What the page says of a run: its command line, the commit, and how many patients stand on each side."""

    command: str
    commit: str
    num_patients: int


def calibration_page(state: Path, parts: Sequence[str], profiles: Mapping[str, Profile], run: Run) -> str:
    """The page: each gate over the pairs of which its part is measured, all together over those of which all is."""
    kept = {part: found for part in parts if (found := read_part(state, part))}
    rows: list[tuple[str, list[Counter[str]]]] = []
    failing: dict[str, set[int]] = {name: set() for name in profiles}
    for found in kept.values():
        counts: dict[str, list[Counter[str]]] = {}
        for number, one in found.items():
            findings = findings_of([one], run.num_patients)
            for place, (name, profile) in enumerate(profiles.items()):
                judged = outcomes(findings, profile)
                for gate, outcome in judged.items():
                    counts.setdefault(gate, [Counter() for _ in profiles])[place][outcome] += 1
                if "failed" in judged.values():
                    failing[name].add(number)
        rows += counts.items()
    whole = set.intersection(*(set(found) for found in kept.values())) if kept else set()
    together = [Counter(failed=len(who & whole), passed=len(whole - who)) for who in failing.values()]
    rows.insert(0, (TOGETHER, together))
    beyond = [
        f"{gate} of {name}"
        for gate, counters in rows
        for name, one in zip(profiles, counters, strict=True)
        if one["failed"] > MOST * max(one.total(), 1)
    ]
    n = run.num_patients
    lines = [
        "# How often the gates cry wolf",
        "",
        f"Command: `scripts/bench/gates_calibration.py {run.command}`",
        f"at {run.commit}: pairs of {n} and {n} patients, and {n // 2} more as the control, nobody twice in a pair.",
        f"Measured: {', '.join(f'{part} ({len(found)} pairs)' for part, found in kept.items())}.",
        "Images have no part in this, nor what needs a trained model.",
        "",
        "A gate that fails such a pair is wrong. That may happen in 8 % of the pairs at most, to each gate, and to any",
        f"gate of a profile (of the {len(whole)} pairs of which all is measured). Interval: Clopper-Pearson, 95 %.",
        "Unchecked: the gate does not say, for want of patients; not applicable: there is nothing of the kind.",
        "",
        f"Beyond 8 %: {', '.join(beyond) or 'none'}.",
        "",
        "| gate | pairs | " + " | ".join(f"{name}: failed | unchecked" for name in profiles) + " |",
        "|---|---|" + "---|" * (2 * len(profiles)),
    ]
    for gate, counters in rows:
        if all(one["not_applicable"] == one.total() for one in counters):
            lines.append(f"| {gate} | not applicable |" + " |" * (2 * len(profiles)))
            continue
        cells = [str(counters[0].total())]
        for one in counters:
            low, high = exact_interval(one["failed"], one.total())
            cells += [f"{one['failed']} ({low:.1%} to {high:.1%})", "" if gate == TOGETHER else str(one["unchecked"])]
        lines.append(f"| {gate} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
