from __future__ import annotations

from datetime import UTC, date, datetime, time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from medtwin.dicom.terms import manufacturer_of
from medtwin.dicom.values import Values, format_age, format_ds, parse_age, parse_date, parse_offset, parse_time, quiet


@pytest.mark.parametrize(
    ("text", "years", "is_valid"),
    [
        ("042Y", 42.0, True),
        ("006M", 0.5, True),
        ("021D", 21 / 365.25, True),
        ("004W", 28 / 365.25, True),
        ("42", 42.0, False),
        ("42Y", 42.0, False),
        ("089Y", 89.0, True),
        ("090Y", 90.0, True),
        ("103Y", 90.0, True),
        ("999Y", None, False),
        ("-01Y", None, False),
        ("Y", None, False),
        ("", None, False),
    ],
)
def test_age(text: str, years: float | None, is_valid: bool) -> None:
    found, valid = parse_age(text)
    assert found == pytest.approx(years)
    assert valid == is_valid


@given(st.floats(0, 120))
def test_a_written_age_reads_back(years: float) -> None:
    text = format_age(years)
    found, is_valid = parse_age(text)
    assert is_valid
    assert len(text) == 4
    assert found is not None
    assert abs(found - min(years, 90)) <= 1


def test_age_from_birth_date_where_there_is_no_age() -> None:
    dataset = Dataset()
    dataset.PatientBirthDate, dataset.StudyDate = "19000101", "20000101"
    assert Values(dataset).age_years() == 90.0


def test_dates_and_times() -> None:
    assert parse_date("20200229") == date(2020, 2, 29)
    assert parse_date("2020.02.29") == date(2020, 2, 29)
    assert [parse_date(text) for text in ("20210229", "00000000", "2020", "Jane", "20200229x")] == [None] * 5
    assert parse_time("1011") == time(10, 11)
    assert parse_time("101112.25") == time(10, 11, 12, 250000)
    assert [parse_time(text) for text in ("25", "4711", "1", "10111", "Doe")] == [None] * 5
    assert parse_offset("+1500") is None
    assert parse_offset("-0130") is not None


def test_a_time_with_offset_is_utc_and_without_it_floats() -> None:
    dataset = Dataset()
    dataset.StudyDate, dataset.StudyTime = "20200101", "0030"
    assert Values(dataset).study_time() == datetime(2020, 1, 1, 0, 30)
    dataset.TimezoneOffsetFromUTC = "+0100"
    assert Values(dataset).study_time() == datetime(2019, 12, 31, 23, 30, tzinfo=UTC)


def test_malformed_values_are_counted_and_left_out() -> None:
    dataset = Dataset()
    dataset.PatientSex = "JANE DOE"
    with quiet():
        dataset.StudyDate = "yesterday"
    dataset.ImagePositionPatient = [1, 2]
    values = Values(dataset)
    assert values.term("PatientSex", frozenset({"F", "M"})) is None
    assert values.date("StudyDate") is None
    assert values.numbers("ImagePositionPatient", 3) is None
    assert values.bad == {"PatientSex": 1, "StudyDate": 1, "ImagePositionPatient": 1}


@given(st.floats(-1e9, 1e9, allow_subnormal=False))
@settings(max_examples=200)
def test_a_decimal_string_fits_and_reads_back(number: float) -> None:
    text = format_ds(number)
    assert len(text) <= 16
    assert float(text) == pytest.approx(number, rel=1e-9, abs=1e-9)


def test_makers() -> None:
    assert manufacturer_of("GE MEDICAL SYSTEMS") == "GE MEDICAL SYSTEMS"
    assert manufacturer_of("FUJIFILM Corporation") == "FUJIFILM"
    assert manufacturer_of("SIEMENS") == "SIEMENS"
    assert manufacturer_of("Gerda Doe") is None
    assert manufacturer_of("") is None
