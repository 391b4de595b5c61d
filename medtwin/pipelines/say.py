"""What the verbs tell the person at the terminal: progress on stderr, results on stdout; counts and paths only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "") -> Iterable[Item]:
    """The items, with a progress bar on a terminal and silence elsewhere."""
    bar: Iterable[Item] = tqdm(
        items, desc=what, total=total, unit=unit or "it", disable=None, file=sys.stderr, leave=False
    )
    return bar


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar for work whose end is not known: call what it gives with every further number of items."""
    with tqdm(desc=what, unit=unit, disable=None, file=sys.stderr, leave=False) as bar:

        def count(number: int) -> None:
            bar.update(number)

        yield count


def tell(line: str = "") -> None:
    """One line of result."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tell_counts(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """A small table: one line per row, columns aligned, numbers with thousands separators."""
    if not rows:
        return
    names = list(rows[0])
    cells = [[f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    tell(title)
    for line in [names, *cells]:
        first, *rest = (
            f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        tell("  " + "  ".join([first, *rest]).rstrip())
