"""The one HTML report: self-contained, opens offline, the same look for every verb."""

from medtwin.report.page import (
    Figure,
    ImageGrid,
    Page,
    Score,
    Scorecard,
    Section,
    SideBySide,
    Table,
    write_page,
)

__all__ = ["Figure", "ImageGrid", "Page", "Score", "Scorecard", "Section", "SideBySide", "Table", "write_page"]
