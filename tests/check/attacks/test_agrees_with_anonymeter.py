"""The same tables, the same attacks, by another implementation: anonymeter 1.1.0 (scripts/bench/attacks_peers)."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest

from medtwin.check.attack_rows import Risk
from medtwin.check.attacks.inference import guess, guess_blindly, inference_by_attribute
from medtwin.check.attacks.linkability import blind_links, linkability, links
from medtwin.check.attacks.singling_out import singling_out
from medtwin.check.attacks.table import People
from medtwin.core.seeds import generator
from tests.check.attacks.laws import IS_CATEGORY, NAMES, Leak, leak

PYTHON = Path(__file__).resolve().parents[3] / ".peers-attacks" / "anonymeter" / "bin" / "python"
DRIVER = Path(__file__).resolve().parents[3] / "scripts" / "bench" / "attacks_peer_driver.py"
NUM_ATTACKS = 1000
SECRETS = ("race", "age", "marker", "count")
"""None that may be negative: anonymeter divides by the guess with its sign, and so counts any such guess as right."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="needs anonymeter: run scripts/bench/attacks_peers"),
]


def write(people: People, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(people.names)
        for row in people.values.tolist():
            writer.writerow([f"c{int(x)}" if named else repr(x) for x, named in zip(row, IS_CATEGORY, strict=True)])


def theirs(sides: Leak, folder: Path) -> dict[str, dict[str, float]]:
    for name in ("train", "synthetic", "control"):
        write(getattr(sides, name), folder / f"{name}.csv")
    order = generator(0, "check", "attacks", "halves").permutation(len(NAMES)).tolist()
    halves = [[NAMES[i] for i in part] for part in (order[: len(order) // 2], order[len(order) // 2 :])]
    categories = [name for name, named in zip(NAMES, IS_CATEGORY, strict=True) if named]
    plan = {"categories": categories, "num_attacks": NUM_ATTACKS, "halves": halves, "secrets": SECRETS}
    (folder / "plan.json").write_text(json.dumps(plan))
    subprocess.run([PYTHON, DRIVER, folder], check=True, timeout=600)
    found: dict[str, dict[str, float]] = json.loads((folder / "found.json").read_text())
    return found


def ours(sides: Leak) -> dict[str, Risk]:
    linked = [links(side, sides.synthetic, seed=0) for side in (sides.train, sides.control)]
    guesses = [guess(side, sides.synthetic) for side in (sides.train, sides.control)]
    blind = guess_blindly(sides.train, sides.synthetic, seed=0)
    found = [
        *singling_out(sides.train, sides.synthetic, sides.control, seed=1, num_attacks=NUM_ATTACKS, num_columns=4),
        linkability(linked[0], linked[1], blind_links(len(sides.train), len(sides.synthetic), seed=0)),
        *inference_by_attribute(guesses[0], guesses[1], blind),
    ]
    return {one.name: one for one in found}


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.3, 1.0])
def test_every_risk_is_within_its_interval_of_anonymeters(share: float, tmp_path: Path) -> None:
    sides = leak(share, 4)
    other, own = theirs(sides, tmp_path), ours(sides)
    assert set(other) == {
        "singling_out.one",
        "singling_out.several",
        "linkability",
        *(f"inference of {s}" for s in SECRETS),
    }
    for name, told in other.items():
        mine = own[name]
        assert mine.low is not None, name
        assert mine.high is not None, name
        assert mine.low <= told["high"] + 1e-9, (name, mine, told)
        assert mine.high >= told["low"] - 1e-9, (name, mine, told)
        # Predicates are drawn, targets are not: rates differ by chance, of several attributes by four standard errors.
        assert abs(mine.control.rate - told["control"]) < 0.06, (name, mine, told)
        if name.startswith("inference") and share < 1:
            assert abs(mine.train.rate - told["attack"]) < 0.025, (name, mine, told)
