"""Pages of results: what is measured is written anew at each run, what is said of it by hand stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

SAID = "## What it says"


def said_in(text: str) -> str:
    r"""The section of a page that is written by hand, its heading left out; empty where there is none.

    >>> said_in("# Page\n\n## What it says\n\nAll is well.\n\n## Cost\n")
    'All is well.'
    """
    _, _, rest = text.partition(SAID + "\n")
    return rest.partition("\n## ")[0].strip()


def said_lines(text: str) -> list[str]:
    r"""That section of a page as it was, to stand in the new one; nothing where there is none.

    >>> said_lines("# Page\n\n## What it says\n\nAll is well.\n\n## Cost\n")
    ['## What it says', '', 'All is well.', '']
    """
    return [SAID, "", said, ""] if (said := said_in(text)) else []


def read_page(path: Path | None) -> str:
    """A page as it was; empty where there is none."""
    return path.read_text(encoding="utf-8") if path is not None and path.is_file() else ""


def tell(make: Callable[[str], str], path: Path | None) -> None:
    """Makes a page of the page as it was, prints it, and writes it where a path is given."""
    text = make(read_page(path))
    print(text)
    if path is not None:
        path.write_text(text, encoding="utf-8")
