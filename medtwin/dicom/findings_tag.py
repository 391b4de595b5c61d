"""Findings that stand in a named text attribute of the images: read through a closed vocabulary before text goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from medtwin.core.codes import SEPARATOR
from medtwin.core.errors import ConfigError
from medtwin.core.sources import Ledger
from medtwin.dicom.labels import RowError, parse_findings
from medtwin.dicom.reading.decode import DECODE_ERRORS
from medtwin.dicom.reading.series import Series
from medtwin.dicom.values import PARSE_ERRORS, Values, quiet

_TEXT_VRS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "CS"})
_NOT_FINDINGS = frozenset({"PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID", "OtherPatientIDs"})


@dataclass(frozen=True)
class FindingsTag:
    """Where the headers of a source state findings, and the code of each; all other text of the tag stays out.

    Attributes:
        tag: Keyword of a text attribute at the top level of the header, such as ImageComments.
        separator: Between findings. none: What states that there are none.
        codes: Finding, as the tag spells it, to `SYSTEM//code`.

    Raises:
        ConfigError: If the tag is no text attribute, or the vocabulary is empty or names no codes.
    """

    tag: str
    separator: str
    none: str
    codes: Mapping[str, str]

    def __post_init__(self) -> None:
        if tag_for_keyword(self.tag) is None or dictionary_VR(self.tag) not in _TEXT_VRS or self.tag in _NOT_FINDINGS:
            raise ConfigError(
                f"tag must be the keyword of a text attribute such as ImageComments (VR {', '.join(sorted(_TEXT_VRS))})"
                f", got {self.tag!r}"
            )
        if not self.separator or not self.codes:
            raise ConfigError("separator must be a text, and codes must name at least one finding")
        odd = [name for name, code in self.codes.items() if not all(str(code).partition(SEPARATOR))]
        if odd or self.none in self.codes:
            raise ConfigError(f"codes must be SYSTEM//code, and none no finding: {(odd or [self.none])[0]!r}")

    @cached_property
    def _vocabulary(self) -> dict[str, str | None]:
        return {**self.codes, self.none: None}

    def labels(self, series: Series, ledger: Ledger) -> list[str] | None:
        """The findings of a series, sorted codes: those of all its images; empty: stated to have none; None: unknown.

        Unknown where no image states any (counted by the flag `DICOM.label-absent`), where one holds something that the
        vocabulary lacks (`DICOM.label-unknown`), or where one cannot be read any more (as `label-unknown`): half a
        label would pass for a whole one. The flags count series.
        """
        found: set[str] = set()
        is_stated = False
        for path in dict.fromkeys(instance.path for instance in series.instances):
            try:
                stated = self._of_file(path)
            except RowError:
                ledger.flags["DICOM.label-unknown"] += 1
                return None
            if stated is not None:
                found.update(stated)
                is_stated = True
        if not is_stated:
            ledger.flags["DICOM.label-absent"] += 1
            return None
        return sorted(found)

    def _of_file(self, path: Path) -> list[str] | None:
        with quiet():
            try:
                header: Dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[self.tag], force=True)
            except (*PARSE_ERRORS, *DECODE_ERRORS) as error:
                raise RowError("unreadable-label", "the header cannot be read any more") from error
            values = Values(header)
            text = values.text(self.tag)
        if values.bad:
            raise RowError("unreadable-label", f"{self.tag} cannot be read")
        return parse_findings(text or "", self.separator, self._vocabulary, self.tag)
