"""OMOP concepts of the codes of a dataset, read from an Athena download. Only what the dataset uses is kept.

Source: OHDSI, CDM 5.4: tables CONCEPT and CONCEPT_RELATIONSHIP, relationships `Maps to` and `Maps to value`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from medtwin.core.codes import SEPARATOR
from medtwin.core.errors import SourceError
from medtwin.omop.concepts import DOTTED, VOCABULARIES

_CONCEPT_COLUMNS = (
    "concept_id",
    "domain_id",
    "vocabulary_id",
    "standard_concept",
    "concept_code",
    "invalid_reason",
)
_LINK_COLUMNS = ("concept_id_1", "concept_id_2", "relationship_id", "invalid_reason")
_MAPS_TO, _MAPS_TO_VALUE = "Maps to", "Maps to value"
_BLOCK_BYTES = 16 * 2**20
_NDC_PARTS = re.compile(r"(\d{4,5})-(\d{3,4})-(\d{1,2})")


@dataclass(frozen=True, slots=True)
class Concept:
    """A concept: its id, and the domain that says which table it belongs to."""

    concept_id: int
    domain: str


@dataclass(frozen=True, slots=True)
class CodeConcepts:
    """What a code is in OMOP.

    Attributes:
        source_concept_id: The concept of the code itself; 0 where the vocabulary lacks it.
        standard: The standard, valid concepts that it maps to; several where one code says several things.
        values: The standard, valid concepts that it maps to as a value (`Maps to value`).
    """

    source_concept_id: int = 0
    standard: tuple[Concept, ...] = ()
    values: tuple[int, ...] = ()


UNMAPPED = CodeConcepts()


@dataclass(frozen=True)
class Vocabulary:
    """The concepts of some codes.

    Attributes:
        codes: `SYSTEM//code` to its concepts; codes that the vocabulary lacks are absent.
        units: UCUM to concept.
        version: Of the vocabulary; `none` without one.
    """

    codes: Mapping[str, CodeConcepts] = field(default_factory=dict)
    units: Mapping[str, int] = field(default_factory=dict)
    version: str = "none"

    def find(self, code: str | None) -> CodeConcepts:
        """The concepts of a code; those of an unknown code are 0 and none."""
        return self.codes.get(code, UNMAPPED) if code is not None else UNMAPPED

    def concept(self, code: str | None) -> int:
        """The first standard concept of a code; 0 if there is none."""
        standard = self.find(code).standard
        return standard[0].concept_id if standard else 0

    def unit(self, unit: str | None) -> int:
        """The concept of a UCUM unit; 0 if there is none."""
        return self.units.get(unit, 0) if unit is not None else 0


def load_vocabulary(
    folder: Path, codes: Iterable[str], units: Iterable[str] = (), systems: Mapping[str, str] | None = None
) -> Vocabulary:
    """The concepts of some codes and units, from an Athena download; its files are streamed, not held.

    Args:
        folder: Holds CONCEPT.csv and CONCEPT_RELATIONSHIP.csv (tab separated, no quoting), also gzipped.
        codes: `SYSTEM//code`.
        units: UCUM units.
        systems: Further system names and the vocabulary_id of each, beside `medtwin.omop.concepts.VOCABULARIES`.

    Raises:
        SourceError: If a file is missing, unreadable, or not an Athena table.
    """
    wanted = _wanted(codes, units, systems or {})
    found: dict[str, _Row] = {}
    for row in _concepts_by_code(folder, wanted):
        for code in wanted[row.vocabulary, row.key]:
            if code not in found or row.rank < found[code].rank:
                found[code] = row
    ids = {row.concept_id for row in found.values()}
    links, value_links = _links(folder, ids)
    targets = {target for each in (*links.values(), *value_links.values()) for target in each} - ids
    by_id = {row.concept_id: row for row in found.values()} | _concepts_by_id(folder, targets)
    mapped = {code: _code_concepts(row, links, value_links, by_id) for code, row in found.items()}
    unit_ids = {
        code.removeprefix("UCUM//"): concepts.standard[0].concept_id
        for code, concepts in mapped.items()
        if code.startswith("UCUM//") and concepts.standard
    }
    return Vocabulary(mapped, unit_ids, _version(folder))


def read_codes(folder: Path, ids: set[int]) -> dict[int, tuple[str, str]]:
    """vocabulary_id and concept_code of some concepts, from an Athena download.

    Raises:
        SourceError: If CONCEPT.csv is missing, unreadable, or not an Athena table.
    """
    wanted = pa.array(sorted(map(str, ids)), pa.string())
    found = {}
    for batch in _stream(folder, "CONCEPT", ("concept_id", "vocabulary_id", "concept_code")):
        for row in batch.filter(pc.is_in(batch["concept_id"], value_set=wanted)).to_pylist():
            found[int(row["concept_id"])] = (row["vocabulary_id"], row["concept_code"])
    return found


@dataclass(frozen=True, slots=True)
class _Row:
    concept_id: int
    vocabulary: str
    key: str
    domain: str
    is_standard: bool
    is_valid: bool

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Valid before invalid, standard before others, then the oldest."""
        return (not self.is_valid, not self.is_standard, self.concept_id)


def _wanted(codes: Iterable[str], units: Iterable[str], systems: Mapping[str, str]) -> dict[tuple[str, str], list[str]]:
    """The codes by the vocabulary and the key under which they stand there."""
    known = VOCABULARIES | {name: (vocabulary,) for name, vocabulary in systems.items()}
    wanted: dict[tuple[str, str], list[str]] = {}
    for code in [*dict.fromkeys(codes), *(f"UCUM//{unit}" for unit in dict.fromkeys(units))]:
        system, separator, bare = code.partition(SEPARATOR)
        for vocabulary in known.get(system, ()) if separator else ():
            holders = wanted.setdefault((vocabulary, _key(vocabulary, bare)), [])
            if code not in holders:
                holders.append(code)
    return wanted


def _key(vocabulary: str, code: str) -> str:
    """The code as we compare it: ICD without its dot, NDC as eleven digits.

    >>> _key("ICD10CM", "E11.9"), _key("NDC", "0002-7597-1"), _key("LOINC", "4548-4")
    ('E119', '00002759701', '4548-4')
    """
    if vocabulary in DOTTED:
        return code.replace(".", "")
    parts = _NDC_PARTS.fullmatch(code) if vocabulary == "NDC" else None
    return f"{parts[1]:>05}{parts[2]:>04}{parts[3]:>02}" if parts else code


def _concepts_by_code(folder: Path, wanted: Mapping[tuple[str, str], list[str]]) -> Iterator[_Row]:
    if not wanted:
        return
    vocabularies = pa.array(sorted({vocabulary for vocabulary, _ in wanted}))
    dotted = pa.array(sorted(DOTTED))
    keys = pa.array([f"{vocabulary}\t{key}" for vocabulary, key in wanted])
    for batch in _stream(folder, "CONCEPT", _CONCEPT_COLUMNS):
        table = batch.filter(pc.is_in(batch["vocabulary_id"], value_set=vocabularies))
        bare = pc.replace_substring(table["concept_code"], ".", "")
        key = pc.if_else(pc.is_in(table["vocabulary_id"], value_set=dotted), bare, table["concept_code"])
        full = pc.binary_join_element_wise(table["vocabulary_id"], key, "\t")
        yield from _rows(table.append_column("key", key).filter(pc.is_in(full, value_set=keys)))


def _concepts_by_id(folder: Path, ids: set[int]) -> dict[int, _Row]:
    if not ids:
        return {}
    wanted = pa.array(sorted(map(str, ids)))
    found = {}
    for batch in _stream(folder, "CONCEPT", _CONCEPT_COLUMNS):
        table = batch.filter(pc.is_in(batch["concept_id"], value_set=wanted))
        found.update({row.concept_id: row for row in _rows(table.append_column("key", table["concept_code"]))})
    return found


def _rows(table: pa.Table) -> Iterator[_Row]:
    for row in table.to_pylist():
        is_valid = not (row["invalid_reason"] or "").strip()
        is_standard = (row["standard_concept"] or "").strip() == "S"
        try:
            concept_id = int(row["concept_id"])
        except ValueError as error:
            raise SourceError("omop.vocab: CONCEPT.csv has a concept_id that is no integer") from error
        yield _Row(concept_id, row["vocabulary_id"], row["key"], row["domain_id"], is_standard, is_valid)


def _links(folder: Path, ids: set[int]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """The valid `Maps to` and `Maps to value` of some concepts, each in ascending order of the target."""
    links: dict[str, dict[int, list[int]]] = {_MAPS_TO: {}, _MAPS_TO_VALUE: {}}
    if not ids:
        return links[_MAPS_TO], links[_MAPS_TO_VALUE]
    wanted, names = pa.array(sorted(map(str, ids))), pa.array(list(links))
    for batch in _stream(folder, "CONCEPT_RELATIONSHIP", _LINK_COLUMNS):
        is_ours = pc.and_(
            pc.is_in(batch["relationship_id"], value_set=names), pc.is_in(batch["concept_id_1"], value_set=wanted)
        )
        for row in batch.filter(is_ours).to_pylist():
            if not (row["invalid_reason"] or "").strip():
                links[row["relationship_id"]].setdefault(int(row["concept_id_1"]), []).append(int(row["concept_id_2"]))
    for each in links.values():
        for targets in each.values():
            targets[:] = sorted(set(targets))
    return links[_MAPS_TO], links[_MAPS_TO_VALUE]


def _code_concepts(
    row: _Row,
    links: Mapping[int, list[int]],
    value_links: Mapping[int, list[int]],
    by_id: Mapping[int, _Row],
) -> CodeConcepts:
    def usable(targets: Iterable[int]) -> list[_Row]:
        known = (by_id[target] for target in targets if target in by_id)
        return [each for each in known if each.is_standard and each.is_valid]

    # A standard concept maps to itself, also where the download leaves that row out.
    standard = usable(links.get(row.concept_id, [row.concept_id]))
    values = usable(value_links.get(row.concept_id, ()))
    return CodeConcepts(
        row.concept_id,
        tuple(Concept(each.concept_id, each.domain) for each in standard),
        tuple(each.concept_id for each in values),
    )


def _stream(folder: Path, name: str, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    path = _find(folder, name)
    if path is None:
        raise SourceError(f"omop.vocab: {folder} has no {name}.csv: give the folder of an unpacked Athena download")
    try:
        reader = pa_csv.open_csv(
            path,
            read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(columns), column_types=dict.fromkeys(columns, pa.string())
            ),
        )
        for batch in reader:
            yield pa.Table.from_batches([batch])
    except (KeyError, pa.ArrowKeyError) as error:
        names = ", ".join(columns)
        raise SourceError(f"omop.vocab: {path.name} must have the columns {names}, tab separated") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"omop.vocab: {path.name} is not a readable tab-separated file") from error


def _find(folder: Path, name: str) -> Path | None:
    names = {f"{name}.csv".lower(), f"{name}.csv.gz".lower()}
    found = sorted(path for path in folder.iterdir() if path.name.lower() in names) if folder.is_dir() else []
    return found[0] if found else None


def _version(folder: Path) -> str:
    """The version of the download, which Athena states for the vocabulary `None`."""
    if _find(folder, "VOCABULARY") is None:
        return "unknown"
    for batch in _stream(folder, "VOCABULARY", ("vocabulary_id", "vocabulary_version")):
        for row in batch.to_pylist():
            if row["vocabulary_id"] == "None":
                return str(row["vocabulary_version"])
    return "unknown"
