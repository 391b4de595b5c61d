from __future__ import annotations

import pyarrow as pa
import pytest

from medtwin.trials.export.variables import Column, Dataset, variable


@pytest.mark.parametrize("name", ["", "adt", "1ADT", "TOOLONGXX", "A-B"])
def test_a_name_that_xpt_could_not_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must be 1 to 8 capitals, digits or _"):
        variable(name, "Analysis Date", "date")


@pytest.mark.parametrize("label", ["", "x" * 41])
def test_a_label_has_1_to_40_characters(label: str) -> None:
    with pytest.raises(ValueError, match="label must have 1 to 40 characters"):
        variable("ADT", label, "date")


def test_dates_of_adam_are_numbers_to_the_receiver() -> None:
    made = variable("ADT", "Analysis Date", "date")
    assert (made.target_type, made.display_format, made.arrow_type) == ("integer", "E8601DA.", pa.date32())
    assert Column("AESTDTC", "Start", "date").arrow_type == pa.string()  # a date of SDTM may be partial


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_type": "number"}, "data_type must be one of string"),
        ({"data_type": "decimal"}, "target_type of a decimal must be 'decimal', got None"),
        ({"data_type": "string", "target_type": "integer"}, "target_type of a string must be None"),
        ({"data_type": "date", "target_type": "decimal"}, "target_type of a date must be 'integer'"),
        ({"data_type": "string", "length": 0}, "length must be 1 or more, got 0"),
        ({"data_type": "string", "key": 0}, "key must be 1 or more, got 0"),
    ],
)
def test_columns_that_the_standard_does_not_know_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Column("X", "label", **arguments)  # type: ignore[arg-type]


def test_a_dataset_is_as_its_columns_say() -> None:
    columns = [Column("A", "a", "string", key=1), Column("B", "b", "integer")]
    made = Dataset("D", "d", columns, pa.table({"A": ["x", "y"], "B": [1, None]}))
    assert made.keys == ["A"]
    with pytest.raises(ValueError, match="columns of D must be those of its table, got A, B"):
        Dataset("D", "d", columns, pa.table({"B": [1], "A": ["x"]}))
    with pytest.raises(ValueError, match=r"D\.B must be of type int64, got double"):
        Dataset("D", "d", columns, pa.table({"A": ["x"], "B": [1.0]}))
    with pytest.raises(ValueError, match="rows of D must differ in A"):
        Dataset("D", "d", columns, pa.table({"A": ["x", "x"], "B": [1, 2]}))
    with pytest.raises(ValueError, match=r"keys of D must be numbered from 1, got \[2\]"):
        Dataset("D", "d", [Column("A", "a", "string", key=2)], pa.table({"A": ["x"]}))
