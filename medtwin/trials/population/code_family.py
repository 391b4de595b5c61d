"""Families of codes: what `I50`, `SNOMED//44054006` or `ATC//C09*` stand for among the codes of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from medtwin.core.codes import SEPARATOR, is_clinical

# Systems in which a longer code is a narrower one, and from what length on: an ICD category has three characters (WHO,
# ICD-10 volume 2, section 2.4; ICD-9-CM likewise), an anatomical group of ATC one (WHO, Guidelines for ATC
# classification and DDD assignment, section I.A).
_SHORTEST_PREFIX = {"ICD10CM": 3, "ICD10": 3, "ICD9CM": 3, "ICD9": 3, "ICD10PCS": 3, "ATC": 1}

DRUG_RESOURCES = ("MedicationRequest", "MedicationDispense", "MedicationAdministration", "MedicationStatement")


@dataclass(frozen=True)
class CodeFamily:
    """The codes that a pattern stands for, of rows of some FHIR resources.

    `I50` is the code itself in any system, and `I50.9` below it; in ICD and ATC also `I5021`, as dots do not count
    there. `ICD10CM//I50` is the same in one system; `C09*` every code that begins so. Codes below a matching one by
    `parent_codes` belong to the family too, which `read_cohort` sees to.

    Attributes:
        pattern: `code` or `SYSTEM//code`, perhaps with a `*` at its end.
        resources: FHIR types of the rows that count; empty: all.

    >>> CodeFamily("I50").matches("ICD10CM//I50.9"), CodeFamily("I50").matches("DIAGNOSIS//ICD//10//I5021")
    (True, True)
    >>> CodeFamily("4548").matches("LOINC//4548-4"), CodeFamily("SNOMED//4405").matches("SNOMED//44054006")
    (False, False)
    """

    pattern: str
    resources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.pattern.rstrip("*").rpartition(SEPARATOR)[2] or "*" in self.pattern[:-1]:
            raise ValueError(f"pattern must be a code, with a * at most at its end, got {self.pattern!r}")

    def __str__(self) -> str:
        return self.pattern

    def matches(self, code: str) -> bool:
        """Whether a code of a dataset belongs to the family by its name."""
        if not is_clinical(code):
            return False
        wanted_system, wanted = _system_and_code(self.pattern.rstrip("*"))
        system, bare = _system_and_code(code)
        if wanted_system and wanted_system != system:
            return False
        if system in _SHORTEST_PREFIX:
            wanted, bare = wanted.replace(".", ""), bare.replace(".", "")
            return bare == wanted or (
                bare.startswith(wanted) and (len(wanted) >= _SHORTEST_PREFIX[system] or self.pattern.endswith("*"))
            )
        is_prefix = self.pattern.endswith("*") and bare.startswith(wanted)
        return is_prefix or bare == wanted or bare.startswith(f"{wanted}.")


def _system_and_code(text: str) -> tuple[str, str]:
    """The system, empty for none, and the bare code; MEDS extracts write `DIAGNOSIS//ICD//10//I5021`."""
    parts = text.split(SEPARATOR)
    if len(parts) > 2 and parts[-3] == "ICD" and parts[-2] in ("9", "10"):
        return f"ICD{parts[-2]}", parts[-1]
    system, _, bare = text.rpartition(SEPARATOR) if len(parts) <= 2 else text.partition(SEPARATOR)
    return system, bare
