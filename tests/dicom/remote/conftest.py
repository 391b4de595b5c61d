from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dicom.remote.fake_web import FakeWeb
from tests.dicom.remote.samples import write_objects
from tests.servers.orthanc import orthanc, orthanc_process  # noqa: F401


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the waits between attempts too short to notice."""
    monkeypatch.setattr("medtwin.dicom.remote.patience._FIRST_WAIT_S", 0.0005)


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    """A DICOMweb server of ours, empty."""
    with FakeWeb() as server:
        yield server


@pytest.fixture(scope="session")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten marked objects in two series."""
    return write_objects(tmp_path_factory.mktemp("objects") / "ten", 10, per_series=5)
