"""Application entity titles, by which DICOM's peers call each other."""

from __future__ import annotations

from medtwin.core.places import SettingError

_MAX_TITLE = 16


def checked_title(title: str, setting: str) -> str:
    r"""An AE title that may stand in an association: 1 to 16 characters of ASCII, spaces around it without meaning.

    Source: DICOM PS3.5 table 6.2-1 (AE: no backslash, no control character, not all spaces), PS3.8 table 9-11.

    Raises:
        SettingError: If it is none.
    """
    text = title.strip(" ")
    if not 0 < len(text) <= _MAX_TITLE or not all(" " <= each <= "~" and each != "\\" for each in text):
        raise SettingError(
            f"{setting} must be 1 to {_MAX_TITLE} characters of ASCII without a backslash, got {len(text)} characters"
        )
    return text
