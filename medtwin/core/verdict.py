"""The verdict protocol: what `check` concluded about one dataset, and whether that allows it to leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from medtwin.core.dataset import Dataset
from medtwin.core.errors import DatasetError, ReleaseRefusedError
from medtwin.core.files import read_json, verify_manifest, write_json
from medtwin.core.paths import schema_dir

VERDICT = "verdict.json"
Outcome = Literal["passed", "failed", "unchecked", "not_applicable"]

Unchecked = Literal["allowed", "refused"]

SHIPPED: dict[str, Unchecked] = {"research": "allowed", "partner": "refused", "public": "refused"}
"""The profiles that ship with medtwin, and what each makes of a gate that is unchecked (too few subjects, say).
Somebody else's profile has a name of its own."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of every gate, for the dataset whose manifest has this hash.

    Attributes:
        profile: Whose bounds were applied. A profile that ships with medtwin and was changed is called, say, `public,
            changed`.
        unchecked: What the profile makes of a gate that is unchecked.

    Raises:
        DatasetError: If a profile that ships with medtwin is to let through what it does not.
    """

    manifest_sha256: str
    profile: str
    gates: Mapping[str, Outcome]
    unchecked: Unchecked = "refused"

    def __post_init__(self) -> None:
        if self.unchecked == "allowed" and SHIPPED.get(self.profile, "allowed") == "refused":
            raise DatasetError(f"verdict: unchecked must be refused under the profile {self.profile}, got 'allowed'")

    def refusals(self) -> list[str]:
        """The gates that keep the dataset from leaving, each with its outcome; empty if it may leave."""
        allowed = {"passed", "not_applicable", *(["unchecked"] if self.unchecked == "allowed" else [])}
        return [f"{gate} {outcome}" for gate, outcome in sorted(self.gates.items()) if outcome not in allowed]


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """Writes verdict.json."""
    gates = {name: {"outcome": outcome} for name, outcome in verdict.gates.items()}
    record = {
        "version": 2,
        "manifest_sha256": verdict.manifest_sha256,
        "profile": verdict.profile,
        "unchecked": verdict.unchecked,
        "gates": gates,
    }
    _check(folder / VERDICT, record)
    write_json(folder / VERDICT, record)


def read_verdict(folder: Path) -> Verdict:
    """Reads verdict.json, checked against its schema.

    Raises:
        DatasetError: If it is missing or does not match the schema.
    """
    record = read_json(folder / VERDICT)
    _check(folder / VERDICT, record)
    gates = {name: gate["outcome"] for name, gate in record["gates"].items()}
    return Verdict(record["manifest_sha256"], record["profile"], gates, record["unchecked"])


def _check(path: Path, record: Mapping[str, Any]) -> None:
    errors = list(_validator().iter_errors(record))
    if errors:
        raise DatasetError(f"{path}: {errors[0].json_path}: {errors[0].message}")


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(read_json(schema_dir() / "verdict.schema.json"))


def require_release(dataset: Dataset, check: Path | None, *, override_reason: str | None) -> str | None:
    """Lets a dataset leave, or refuses: the rule of DESIGN section 1.

    Simulated data needs no verdict. Synthetic data needs one with its own manifest hash whose profile allows every
    outcome. Real data, and anything refused, leaves only with a reason, which the caller records in provenance.

    Args:
        dataset: What is to leave.
        check: The directory that `check` wrote, if any.
        override_reason: Why it may leave all the same; None: it may not.

    Returns:
        What was overridden, for provenance; None if nothing was.

    Raises:
        ReleaseRefusedError: If it may not leave.
        DatasetError: If its files are not those of its manifest.
    """
    if dataset.is_finished and (changed := verify_manifest(dataset.path)):
        raise DatasetError(f"{dataset.path} is not what its manifest says ({len(changed)} files differ, {changed[0]})")
    refusal = _refusal(dataset, check)
    if refusal is None:
        return None
    if override_reason is None or not override_reason.strip():
        raise ReleaseRefusedError(f"{refusal}. To export it all the same, say why: override.reason='...'")
    return refusal


def _refusal(dataset: Dataset, check: Path | None) -> str | None:
    if dataset.origin == "simulated":
        return None
    if dataset.origin == "real":
        return f"{dataset.path} holds real patients"
    if check is None:
        return f"{dataset.path} is synthetic and unchecked: run `medtwin check` and pass check=DIR"
    verdict = read_verdict(check)
    if not dataset.is_finished or verdict.manifest_sha256 != dataset.manifest_hash():
        return f"{check} is the verdict of another dataset, not of {dataset.path}"
    refusals = verdict.refusals()
    return f"the {verdict.profile} profile refuses {dataset.path}: {', '.join(refusals)}" if refusals else None
