"""What a CDM must be, asked in SQL of the files alone: by another engine, and with rules written anew from the CDM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

# Primary key, start, end, start time of the event tables; CDM 5.4.
_EVENTS = {
    "visit_occurrence": ("visit_start_date", "visit_start_datetime", "visit_end_date", "visit_end_datetime"),
    "visit_detail": (
        "visit_detail_start_date",
        "visit_detail_start_datetime",
        "visit_detail_end_date",
        "visit_detail_end_datetime",
    ),
    "condition_occurrence": (
        "condition_start_date",
        "condition_start_datetime",
        "condition_end_date",
        "condition_end_datetime",
    ),
    "drug_exposure": (
        "drug_exposure_start_date",
        "drug_exposure_start_datetime",
        "drug_exposure_end_date",
        "drug_exposure_end_datetime",
    ),
    "procedure_occurrence": ("procedure_date", "procedure_datetime", "procedure_end_date", "procedure_end_datetime"),
    "measurement": ("measurement_date", "measurement_datetime", None, None),
    "observation": ("observation_date", "observation_datetime", None, None),
    "specimen": ("specimen_date", "specimen_datetime", None, None),
}
_PARENTS = {
    "visit_occurrence_id": "visit_occurrence",
    "preceding_visit_occurrence_id": "visit_occurrence",
    "visit_detail_id": "visit_detail",
    "preceding_visit_detail_id": "visit_detail",
    "provider_id": "provider",
    "care_site_id": "care_site",
}
_LINKS = {
    1147127: "condition_occurrence",
    1147094: "drug_exposure",
    1147082: "procedure_occurrence",
    1147138: "measurement",
    1147165: "observation",
    1147049: "specimen",
    1147070: "visit_occurrence",
}


def violations(folder: Path) -> dict[str, int]:
    """How many rows break each rule; empty for a sound CDM."""
    with duckdb.connect() as connection:
        for path in folder.glob("*.parquet"):
            connection.execute(f"CREATE VIEW {path.stem} AS SELECT * FROM read_parquet('{path}')")
        rules = {**_keys(connection), **_times(), **_periods(), **_links()}
        found = {rule: int(connection.execute(query).fetchall()[0][0]) for rule, query in rules.items()}
    return {rule: count for rule, count in found.items() if count}


def _keys(connection: Any) -> dict[str, str]:
    rules = {"person once": "SELECT count(*) - count(DISTINCT person_id) FROM person"}
    for table in (*_EVENTS, "observation_period", "death"):
        columns = {row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()}
        rules[f"{table}: person"] = (
            f"SELECT count(*) FROM {table} ANTI JOIN person USING (person_id)"  # the person is there
        )
        if table in _EVENTS:
            rules[f"{table}: key"] = f"SELECT count(*) - count(DISTINCT {table}_id) FROM {table}"
        for column, parent in _PARENTS.items():
            if column in columns and column != f"{table}_id":
                rules[f"{table}.{column}"] = (
                    f"SELECT count(*) FROM {table} t LEFT JOIN {parent} p ON t.{column} = p.{parent}_id "
                    f"WHERE t.{column} IS NOT NULL AND p.{parent}_id IS NULL"
                )
        if table not in ("visit_occurrence", "specimen", "observation_period", "death"):
            rules[f"{table}: visit of the same person"] = (
                f"SELECT count(*) FROM {table} t JOIN visit_occurrence v USING (visit_occurrence_id) "
                "WHERE t.person_id <> v.person_id"
            )
    return rules


def _times() -> dict[str, str]:
    rules = {}
    for table, (day, time, end_day, end_time) in _EVENTS.items():
        rules[f"{table}: date of the time"] = f"SELECT count(*) FROM {table} WHERE CAST({time} AS DATE) <> {day}"
        if end_day is not None:
            rules[f"{table}: end"] = (
                f"SELECT count(*) FROM {table} WHERE {end_day} < {day} OR {end_time} < {time} "
                f"OR CAST({end_time} AS DATE) <> {end_day}"
            )
    return rules


def _periods() -> dict[str, str]:
    start, end = "observation_period_start_date", "observation_period_end_date"
    rules = {
        "periods: order": f"SELECT count(*) FROM observation_period WHERE {end} < {start}",
        "periods: overlap": (
            "SELECT count(*) FROM observation_period a JOIN observation_period b USING (person_id) "
            f"WHERE a.observation_period_id < b.observation_period_id AND a.{start} <= b.{end} AND b.{start} <= a.{end}"
        ),
    }
    for table, (day, *_) in _EVENTS.items():
        rules[f"{table}: in a period"] = (
            f"SELECT count(*) FROM {table} t WHERE NOT EXISTS (SELECT 1 FROM observation_period p "
            f"WHERE p.person_id = t.person_id AND t.{day} BETWEEN p.{start} AND p.{end})"
        )
    return rules


def _links() -> dict[str, str]:
    rules = {}
    for table, event, field in (
        ("measurement", "measurement_event_id", "meas_event_field_concept_id"),
        ("observation", "observation_event_id", "obs_event_field_concept_id"),
    ):
        rules[f"{table}: link and its field"] = (
            f"SELECT count(*) FROM {table} WHERE ({event} IS NULL) <> ({field} IS NULL)"
        )
        rules[f"{table}: known field"] = (
            f"SELECT count(*) FROM {table} WHERE {field} NOT IN ({', '.join(map(str, _LINKS))})"
        )
        for concept, target in _LINKS.items():
            rules[f"{table}: link to {target}"] = (
                f"SELECT count(*) FROM {table} t LEFT JOIN {target} o ON t.{event} = o.{target}_id "
                f"WHERE t.{field} = {concept} AND (o.{target}_id IS NULL OR o.person_id <> t.person_id)"
            )
    return rules
