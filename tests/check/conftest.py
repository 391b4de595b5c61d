from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from medtwin.check import Profile, Rule, profile_from, rules_from
from medtwin.check.images import Picture
from medtwin.config import compose
from medtwin.core.dataset import Dataset
from medtwin.core.verdict import SHIPPED
from tests.check import samples


@pytest.fixture(scope="session")
def real_table() -> pa.Table:
    return samples.hospital_table(240, seed=1)


@pytest.fixture(scope="session")
def fresh_table() -> pa.Table:
    """An independent draw: what perfect twins are."""
    return samples.hospital_table(150, seed=2)


@pytest.fixture(scope="session")
def real(real_table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return samples.write_dataset(tmp_path_factory.mktemp("real") / "real", real_table, "simulated", held_out=0.2)


@pytest.fixture(scope="session")
def real_pictures() -> list[Picture]:
    return samples.pictures(120, seed=1)


@pytest.fixture(scope="session")
def fresh_pictures() -> list[Picture]:
    return samples.pictures(80, seed=2)


@pytest.fixture(scope="session")
def shipped() -> tuple[dict[str, Profile], tuple[Rule, ...]]:
    """The profiles and rules that ship with medtwin."""
    configs = {name: compose("check", ["synthetic=x", "real=x", f"gates={name}"]) for name in SHIPPED}
    profiles = {name: profile_from(config["gates"]) for name, config in configs.items()}
    return profiles, rules_from(configs["research"]["rules"])


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("check")
