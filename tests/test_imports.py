from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import medtwin

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(medtwin.__path__, "medtwin.") if "__main__" not in module.name
)
LIGHT_ROOMS = ("core", "fhir", "dicom", "omop", "report", "hospital", "check", "trials")
OPTIONAL = ("pylibjpeg", "openjpeg", "libjpeg", "jpeg_ls", "duckdb", "polars", "hypothesis")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_says_what_it_is(name: str) -> None:
    assert importlib.import_module(name).__doc__


def in_new_process(code: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_module_imports_without_the_optional_packages() -> None:
    in_new_process(
        "import sys, importlib\n"
        f"for name in {OPTIONAL!r}: sys.modules[name] = None\n"
        f"for name in {MODULES!r}: importlib.import_module(name)"
    )


def test_the_table_rooms_load_neither_torch_nor_hydra() -> None:
    rooms = [name for name in MODULES if name.split(".")[1] in LIGHT_ROOMS]
    in_new_process(
        "import sys, importlib\n"
        f"for name in {rooms!r}: importlib.import_module(name)\n"
        "heavy = {'torch', 'lightning', 'monai', 'hydra', 'omegaconf'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
