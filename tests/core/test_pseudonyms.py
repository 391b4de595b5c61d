from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from medtwin.core.errors import ConfigError
from medtwin.core.pseudonyms import Pseudonyms, load_or_create_key

ONE, TWO = Pseudonyms(bytes(32)), Pseudonyms(bytes(31) + b"\1")


def test_the_same_key_gives_the_same_pseudonyms_and_another_key_others() -> None:
    assert ONE.subject_id("mr:7") == Pseudonyms(bytes(32)).subject_id("mr:7")
    assert ONE.subject_id("mr:7") != TWO.subject_id("mr:7")
    assert ONE.event_id("Observation", "7") != ONE.event_id("Condition", "7")
    assert ONE.fingerprint() != TWO.fingerprint()


def test_subject_ids_are_positive_int64_and_distinct() -> None:
    ids = {ONE.subject_id(f"mr:{i}") for i in range(5000)}
    assert len(ids) == 5000
    assert min(ids) >= 0
    assert max(ids) < 2**63


def test_dates_move_by_whole_weeks_both_ways_and_never_by_zero() -> None:
    shifts = [ONE.shift(subject) for subject in range(2000)]
    assert all(shift % timedelta(weeks=1) == timedelta(0) and shift != timedelta(0) for shift in shifts)
    assert max(abs(shift) for shift in shifts) == timedelta(weeks=52)
    assert 900 < sum(shift > timedelta(0) for shift in shifts) < 1100
    assert Pseudonyms(bytes(32), max_shift_weeks=0).shift(3) == timedelta(0)


def test_event_ids_are_fhir_ids_that_hold_a_letter() -> None:
    ids = [ONE.event_id("Patient", str(i)) for i in range(300)]
    assert all(re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", i) and re.search("[a-z]", i) for i in ids)


def test_uids_are_valid_dicom_uids() -> None:
    uids = [ONE.uid(f"1.2.{i}") for i in range(300)]
    assert all(re.fullmatch(r"2\.25\.(0|[1-9]\d*)", uid) and len(uid) <= 64 for uid in uids)


def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = load_or_create_key(path)
    assert load_or_create_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create_key(path)


@pytest.mark.parametrize("text", ["", "xyz", "00" * 31])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        load_or_create_key(path)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        Pseudonyms(b"short")
    with pytest.raises(ConfigError, match="max_shift_weeks"):
        Pseudonyms(bytes(32), -1)
