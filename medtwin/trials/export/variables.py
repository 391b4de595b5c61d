"""Variables and datasets as CDISC describes them: a name, a label, a type, and where the values come from.

Source: CDISC ADaM Implementation Guide 1.3, section 3 (names, labels, lengths); Dataset-JSON 1.1, "Supported Column
Data Type Combinations".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa

DataType = Literal["string", "integer", "decimal", "float", "double", "boolean", "datetime", "date", "time", "URI"]
TargetType = Literal["integer", "decimal"]
MAX_LABEL, MAX_TEXT = 40, 200
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,7}")
_DATED = ("datetime", "date", "time")
_ARROW: dict[str, pa.DataType] = {
    "string": pa.string(),
    "URI": pa.string(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
}
_NUMERIC_DATES: dict[str, pa.DataType] = {"date": pa.date32(), "datetime": pa.timestamp("us"), "time": pa.time64("us")}


@dataclass(frozen=True)
class Column:
    """A column as Dataset-JSON describes it.

    Attributes:
        name: Of the column. label: What it holds.
        data_type: Of its values, logically.
        target_type: What a receiver turns them into, where that is another type: `integer` for dates, times and
            datetimes that are numbers (ADaM), `decimal` for decimals.
        length: Characters that a value may have.
        display_format: How SAS shows numbers and dates.
        key: Its place among the keys of the dataset, from 1; None: no key.
        item_oid: Its identifier; empty: `IT.<dataset>.<name>`.
        derivation: How its values come about, for the reader.

    Raises:
        ValueError: If the name is empty, or types, length or key are none that the standard knows.
    """

    name: str
    label: str
    data_type: DataType
    target_type: TargetType | None = None
    length: int | None = None
    display_format: str | None = None
    key: int | None = None
    item_oid: str = ""
    derivation: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError(f"name must be that of a column, got {self.name!r}")
        if self.data_type not in get_args(DataType):
            raise ValueError(f"data_type must be one of {', '.join(get_args(DataType))}, got {self.data_type!r}")
        for name, number in (("length", self.length), ("key", self.key)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be 1 or more, got {number!r}")
        allowed = {"decimal": ("decimal",), **dict.fromkeys(_DATED, (None, "integer"))}.get(self.data_type, (None,))
        if self.target_type not in allowed:
            raise ValueError(f"target_type of a {self.data_type} must be {allowed[-1]!r}, got {self.target_type!r}")

    @property
    def arrow_type(self) -> pa.DataType | None:
        """The Arrow type of its values; None for a decimal, whose precision is that of its values.

        Dates that stay text may be partial (`2014-03`), and are strings here too.
        """
        if self.data_type in _DATED:
            return _NUMERIC_DATES[self.data_type] if self.target_type else pa.string()
        return _ARROW.get(self.data_type)


def variable(
    name: str,
    label: str,
    data_type: DataType,
    derivation: str = "",
    *,
    key: int | None = None,
) -> Column:
    """A variable of ADaM: dates are numbers to the receiver, shown as ISO 8601; texts have at most 200 characters.

    Raises:
        ValueError: If the name has more than 8 characters or others than capitals, digits and `_`, or the label more
            than 40.

    >>> variable("ADT", "Analysis Date", "date").target_type
    'integer'
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"name must be 1 to 8 capitals, digits or _, a capital first, got {name!r}")
    if not 0 < len(label) <= MAX_LABEL:
        raise ValueError(f"label must have 1 to {MAX_LABEL} characters, got {label!r}")
    target: TargetType | None = "integer" if data_type in _DATED else None
    shown = {"date": "E8601DA.", "datetime": "E8601DT.", "time": "E8601TM."}.get(data_type)
    return Column(name, label, data_type, target, display_format=shown, key=key, derivation=derivation)


@dataclass(frozen=True)
class Dataset:
    """A table with the description of its columns.

    Attributes:
        name: Such as `ADSL`. label: What it holds.
        columns: In the order of the table's.
        table: The rows; column types are those of `Column.arrow_type`.
        structure: What a row is, in words.

    Raises:
        ValueError: If columns and table differ, a text is longer than its column allows, keys are not numbered from 1,
            or two rows have the same keys.
    """

    name: str
    label: str
    columns: Sequence[Column]
    table: pa.Table
    structure: str = ""

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if names != self.table.column_names:
            raise ValueError(f"columns of {self.name} must be those of its table, got {', '.join(names)}")
        for column in self.columns:
            if column.arrow_type not in (None, self.table.schema.field(column.name).type):
                got = self.table.schema.field(column.name).type
                raise ValueError(f"{self.name}.{column.name} must be of type {column.arrow_type}, got {got}")
        if (keys := self.keys) and len(self.table.select(keys).group_by(keys).aggregate([])) < self.table.num_rows:
            raise ValueError(f"rows of {self.name} must differ in {', '.join(keys)}")

    @property
    def keys(self) -> list[str]:
        """The names of its keys, in their order.

        Raises:
            ValueError: If they are not numbered 1, 2, ...
        """
        found = sorted((column.key, column.name) for column in self.columns if column.key is not None)
        if [number for number, _ in found] != list(range(1, len(found) + 1)):
            raise ValueError(f"keys of {self.name} must be numbered from 1, got {[number for number, _ in found]}")
        return [name for _, name in found]
