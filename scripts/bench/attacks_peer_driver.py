"""Runs anonymeter's attacks on tables that lie in a folder, in anonymeter's own environment: `driver.py FOLDER`.

The folder holds train.csv, synthetic.csv, control.csv and plan.json; what is found goes to found.json. It imports
nothing of medtwin.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pandas as pd
from anonymeter.evaluators import InferenceEvaluator, LinkabilityEvaluator, SinglingOutEvaluator


def main(folder: Path) -> None:
    """Reads the tables, attacks them, writes found.json."""
    warnings.simplefilter("ignore")
    plan = json.loads((folder / "plan.json").read_text())
    kinds = dict.fromkeys(plan["categories"], "str")
    tables = {name: pd.read_csv(folder / f"{name}.csv", dtype=kinds) for name in ("train", "synthetic", "control")}
    common = {"ori": tables["train"], "syn": tables["synthetic"], "control": tables["control"]}
    found = {}
    for name, mode, width in (("singling_out.one", "univariate", 1), ("singling_out.several", "multivariate", 4)):
        one = SinglingOutEvaluator(**common, n_attacks=plan["num_attacks"], n_cols=width)
        one.evaluate(mode=mode)
        found[name] = told(one)
    one = LinkabilityEvaluator(**common, aux_cols=plan["halves"], n_attacks=plan["num_attacks"], n_neighbors=1)
    one.evaluate(n_jobs=1)
    found["linkability"] = told(one)
    for secret in plan["secrets"]:
        rest = [name for name in tables["train"].columns if name != secret]
        one = InferenceEvaluator(
            **common, aux_cols=rest, secret=secret, regression=secret not in kinds, n_attacks=plan["num_attacks"]
        )
        one.evaluate(n_jobs=1)
        found[f"inference of {secret}"] = told(one)
    (folder / "found.json").write_text(json.dumps(found))


def told(evaluator) -> dict[str, float]:
    """The risk with its interval, and the rates behind it."""
    risk, results = evaluator.risk(), evaluator.results()
    return {
        "risk": float(risk.value),
        "low": float(risk.ci[0]),
        "high": float(risk.ci[1]),
        "attack": float(results.attack_rate.value),
        "control": float(results.control_rate.value),
    }


main(Path(sys.argv[1]))
