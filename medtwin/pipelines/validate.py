"""`medtwin validate`: every rule that a dataset directory breaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtwin.config import settings
from medtwin.core.dataset import open_dataset
from medtwin.core.errors import DatasetError
from medtwin.core.findings import errors_in
from medtwin.pipelines.say import tell


@dataclass(frozen=True)
class ValidateSettings:
    """The settings of configs/validate.yaml."""

    dataset: Path
    deep: bool = True


def main(config: Mapping[str, Any]) -> None:
    """Prints every finding.

    Raises:
        DatasetError: If one of them makes the dataset invalid.
    """
    chosen = settings(ValidateSettings, config)
    dataset = open_dataset(chosen.dataset)
    findings = dataset.validate(deep=chosen.deep)
    for finding in findings:
        tell(str(finding))
    if errors := errors_in(findings):
        raise DatasetError(f"{dataset.path} is not valid: {len(errors)} errors")
    num_subjects = len(dataset.subject_splits())
    tell(
        f"{dataset.path} is valid: {num_subjects:,} subjects, origin {dataset.origin}, {len(dataset.images()):,} series"
    )
