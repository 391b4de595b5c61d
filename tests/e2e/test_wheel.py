from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from medtwin.core.paths import config_dir, schema_dir

ROOT = Path(__file__).resolve().parent.parent.parent


def test_configs_and_schemas_are_found_in_the_checkout() -> None:
    assert (config_dir() / "hospital.yaml").is_file()
    assert (schema_dir() / "provenance.schema.json").is_file()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the hatchling of this environment: no network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "medtwin/configs/hospital.yaml",
        "medtwin/configs/labels/nih_cxr.yaml",
        "medtwin/report/page.html.j2",
    ):
        assert needed in names
    assert "medtwin/schemas/provenance.schema.json" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"medtwin"}
    assert any(name.endswith("licenses/NOTICE") for name in names)


def test_the_installed_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Installed alone into an environment of its own, with this environment's libraries behind it."""
    venv.create(tmp_path / "env", with_pip=False)
    packages = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(packages)
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "behind.pth").write_text(libraries + "\n")
    python = tmp_path / "env" / "bin" / "python"
    where = subprocess.run(
        [python, "-c", "import medtwin; print(medtwin.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(packages) in where.stdout
    for arguments in (["hospital", "n=3", "out=h"], ["ingest", "source=h", "out=d"], ["export", "dataset=d", "out=e"]):
        command = [str(python), "-m", "medtwin", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "e" / "manifest.json").is_file()
