"""Practitioners, organizations and places as provider and care_site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medtwin.core.errors import DatasetError
from medtwin.omop.shard import COLUMN, NO_ROW, Rows, Shard
from medtwin.omop.tables import TABLES
from medtwin.omop.vocabulary import Vocabulary

# A ward is where care happens, as an organization is: location holds postal addresses, which no dataset has.
_TABLES = {
    "Practitioner": "provider",
    "PractitionerRole": "provider",
    "Organization": "care_site",
    "Location": "care_site",
}


@dataclass(frozen=True)
class Actors:
    """The actors of a dataset.

    Attributes:
        numbers: Table to reference (`Location/<actor_id>`) to its id there.
        codes: The codes of each actor, by reference.
    """

    numbers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    codes: Mapping[str, list[str]] = field(default_factory=dict)

    def claim(self, shard: Shard, table: str, events: Rows, what: str) -> list[int | None]:
        """The provider or care site of some events: the first child row that refers to one is counted as a column."""
        known = self.numbers.get(table, {})
        none: list[int | None] = [None] * len(events)
        if not known or not len(events):
            return none
        refers = pc.is_in(shard.column("text_value"), value_set=pa.array(list(known), pa.large_string()))
        rows = np.flatnonzero(refers.to_numpy(zero_copy_only=False) & shard.is_detail & shard.fates.open)
        place = np.full(shard.num_rows + 1, NO_ROW)
        place[events] = np.arange(len(events))
        at = place[shard.parent[rows]]
        rows, at = rows[at != NO_ROW], at[at != NO_ROW]
        # A place within an organization says more than the organization.
        texts = np.array(shard.text("text_value", rows) or [""])[: len(rows)]
        order = np.argsort(~np.char.startswith(texts.astype(str), "Location/"), kind="stable")
        at, first = np.unique(at[order], return_index=True)
        rows = rows[order][first]
        shard.fates.assign(rows, COLUMN, f"{what}.{table}_id")
        for position, text in zip(at.tolist(), shard.text("text_value", rows), strict=True):
            none[position] = known[text or ""]
        return none

    def tables(self, vocabulary: Vocabulary) -> dict[str, pa.Table]:
        """The rows of provider and care_site."""
        providers = [
            {
                "provider_id": number,
                "specialty_concept_id": vocabulary.concept(self._first_code(name)),
                "provider_source_value": name,
                "specialty_source_value": self._first_code(name),
                "specialty_source_concept_id": vocabulary.find(self._first_code(name)).source_concept_id,
            }
            for name, number in self.numbers.get("provider", {}).items()
        ]
        sites = [
            {
                "care_site_id": number,
                "place_of_service_concept_id": vocabulary.concept(self._first_code(name)),
                "care_site_source_value": name,
                "place_of_service_source_value": self._first_code(name),
            }
            for name, number in self.numbers.get("care_site", {}).items()
        ]
        return {
            "provider": pa.Table.from_pylist(providers, TABLES["provider"].schema),
            "care_site": pa.Table.from_pylist(sites, TABLES["care_site"].schema),
        }

    def _first_code(self, name: str) -> str | None:
        return next(iter(self.codes.get(name, ())), None)


def read_actors(folder: Path) -> Actors:
    """The actors of a dataset directory, numbered in the order of their names; none where it has no actors.parquet.

    Raises:
        DatasetError: If metadata/actors.parquet is unreadable or lacks a column.
    """
    path = folder / "metadata" / "actors.parquet"
    if not path.is_file():
        return Actors()
    try:
        table = pq.ParquetFile(path).read(columns=["actor_id", "resource", "codes"])
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path} is not a readable table of actors") from error
    if missing := {"actor_id", "resource", "codes"} - set(table.column_names):
        raise DatasetError(f"{path} lacks the columns {', '.join(sorted(missing))}")
    numbers: dict[str, dict[str, int]] = {"provider": {}, "care_site": {}}
    codes = {}
    for row in sorted(table.to_pylist(), key=lambda each: (each["resource"], each["actor_id"])):
        home = _TABLES.get(row["resource"])
        if home is not None:
            name = f"{row['resource']}/{row['actor_id']}"
            numbers[home][name] = len(numbers[home]) + 1
            codes[name] = list(row["codes"] or [])
    return Actors(numbers, codes)
