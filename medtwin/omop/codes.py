"""From OMOP back to `SYSTEM//code`: by the source value that medtwin wrote, else by concept, else by its number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pyarrow.compute as pc

from medtwin.core.codes import SEPARATOR, SYSTEMS
from medtwin.omop.concepts import CLASS_OF_VISIT, SYSTEM_OF_VOCABULARY
from medtwin.omop.source import OmopSource
from medtwin.omop.tables import EVENT_TABLES
from medtwin.omop.vocabulary import read_codes

# A local code has a digit somewhere: words may be free text, or a name.
_LOCAL = re.compile(r"(?=.*\d)[A-Za-z0-9][A-Za-z0-9._:/+\-]{0,49}")
# A code of a foreign MEDS dataset, as ours keeps it: one word.
_BARE = re.compile(r"[^\s\x00-\x1f]{1,200}")
_CODE = re.compile(r"[^\s/][^\s]*//[^\s](?:.*[^\s])?")
_MORE_CONCEPTS = (
    "value_as_concept_id",
    "unit_concept_id",
    "route_concept_id",
    "admitted_from_concept_id",
    "discharged_to_concept_id",
)


class ConceptCodes:
    """The codes of concepts.

    Attributes:
        codes: Concept to vocabulary_id and concept_code, of those that a CONCEPT table told.
        is_ours: Whether source values are codes as medtwin wrote them.
    """

    def __init__(self, codes: Mapping[int, tuple[str, str]], *, is_ours: bool) -> None:
        self.codes, self.is_ours = codes, is_ours

    def of_concept(self, concept_id: int | None) -> str | None:
        """`SYSTEM//code` of a concept, `OMOP//<concept_id>` without a CONCEPT table; None for 0 and null.

        >>> ConceptCodes({}, is_ours=False).of_concept(201826)
        'OMOP//201826'
        """
        if not concept_id:
            return None
        found = self.codes.get(concept_id)
        if found is None:
            return f"OMOP{SEPARATOR}{concept_id}"
        vocabulary, code = found
        return f"{SYSTEM_OF_VOCABULARY.get(vocabulary, vocabulary.replace(' ', '_'))}{SEPARATOR}{code}"

    def stated(self, text: str | None) -> str | None:
        """A source value that is a code as it stands; None for any other."""
        if not text:
            return None
        if self.is_ours and _CODE.fullmatch(text):
            return text
        system, separator, bare = text.partition(SEPARATOR)
        return text if separator and system in SYSTEMS and bare and not any(c.isspace() for c in bare) else None

    def of_event(self, source_value: str | None, source_concept: int | None, concept: int | None) -> str | None:
        """The code of an event; None where nothing names it.

        A source concept says what was recorded, a standard one what it means: the first is the better source.

        >>> ConceptCodes({9: ("ICD10CM", "E11.9")}, is_ours=False).of_event("dm 2", 9, 201826)
        'ICD10CM//E11.9'
        """
        if self.is_ours and source_value and _BARE.fullmatch(source_value):
            return source_value
        stated = self.stated(source_value)
        if stated is not None:
            return stated
        for number in (source_concept, concept):
            if number and number in self.codes:
                return self.of_concept(number)
        if concept or source_concept:
            return self.of_concept(concept or source_concept)
        return f"LOCAL{SEPARATOR}{source_value}" if source_value and _LOCAL.fullmatch(source_value) else None

    def of_visit(self, source_value: str | None, source_concept: int | None, concept: int | None) -> str:
        """The code of a visit: what it was coded as, else its class."""
        if self.is_ours and source_value and _BARE.fullmatch(source_value):
            return source_value
        stated = self.stated(source_value)
        if stated is not None:
            return stated
        if concept in CLASS_OF_VISIT:
            return f"ENCOUNTER{SEPARATOR}{CLASS_OF_VISIT[concept]}"
        return self.of_concept(source_concept) or self.of_concept(concept) or f"ENCOUNTER{SEPARATOR}UNK"

    def of_value(self, source_value: str | None, concept: int | None) -> str | None:
        """The code of a coded value, a route, a source of admission ...; None where it is not coded."""
        return self.stated(source_value) or self.of_concept(concept)


def read_concept_codes(source: OmopSource, vocab: Path | None, *, is_ours: bool) -> ConceptCodes:
    """The codes of the concepts that a CDM uses, from its own CONCEPT table or from an Athena download."""
    if vocab is None and "concept" not in source.files:
        return ConceptCodes({}, is_ours=is_ours)
    ids: set[int] = set()
    for table in EVENT_TABLES.values():
        columns = (table.concept, *([table.source_concept] if table.source_concept else []), *_MORE_CONCEPTS)
        for rows in source.rows(table.name, columns):
            for name in columns:
                if name in rows.table.column_names:
                    ids.update(pc.unique(rows.table[name]).drop_null().to_pylist())
    ids.discard(0)
    codes: dict[int, tuple[str, str]] = {}
    for batch in source.concepts():
        for row in batch.to_pylist():
            if row["concept_id"] in ids:
                codes[row["concept_id"]] = (row["vocabulary_id"], row["concept_code"])
    if vocab is not None:
        codes |= read_codes(vocab, ids - set(codes))
    return ConceptCodes(codes, is_ours=is_ours)
