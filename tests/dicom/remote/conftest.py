from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dicom.remote.fake_web import FakeWeb
from tests.dicom.remote.samples import write_objects
from tests.servers.orthanc import orthanc, orthanc_process  # noqa: F401


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the waits between attempts too short to notice."""
    monkeypatch.setattr("medtwin.core.patience._FIRST_WAIT_S", 0.0005)


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    """A DICOMweb server of ours, empty."""
    with FakeWeb() as server:
        yield server


@pytest.fixture(scope="session")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten marked objects in two series."""
    return write_objects(tmp_path_factory.mktemp("objects") / "ten", 10, per_series=5)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates of a server at 127.0.0.1 and of a client, made by openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    (folder / "server.cnf").write_text("subjectAltName=IP:127.0.0.1\n")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
    for name in ("server", "client"):
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        sign = ("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
        openssl(*sign, "-out", f"{name}.pem", "-days", "2", "-extfile", "server.cnf")
    return folder
