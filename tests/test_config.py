from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import torch

from medtwin.config import build, compose, settings
from medtwin.core.errors import ConfigError
from medtwin.core.paths import config_dir
from medtwin.dicom.labels import ArrayTable, LabelTable


@dataclass(frozen=True)
class Inner:
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    n: int
    out: Path
    name: str = "x"
    flag: bool = False
    inner: Inner = field(default_factory=Inner)
    keys: tuple[str, ...] = ()
    maybe: Path | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be 1 or more, got {self.n}")


def test_settings_are_typed() -> None:
    made = settings(Outer, {"n": 2, "out": "a/b", "inner": {"share": 1}, "keys": ["a", "b"], "maybe": None, "name": 7})
    assert made == Outer(2, Path("a/b"), name="7", inner=Inner(1.0), keys=("a", "b"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"out": "a"}, "n=... is required"),
        ({"n": "???", "out": "a"}, "n=... is required"),
        ({"n": 1, "out": "a", "nn": 1}, "there is no setting 'nn'"),
        ({"n": 1, "out": "a", "inner": {"shar": 1}}, "there is no setting 'inner.shar'"),
        ({"n": 1.5, "out": "a"}, "n must be int, got 1.5"),
        ({"n": True, "out": "a"}, "n must be int, got True"),
        ({"n": 1, "out": "a", "inner": 3}, "inner must be a group of settings"),
        ({"n": 1, "out": "a", "flag": "yes"}, "flag must be bool"),
        ({"n": 0, "out": "a"}, "n must be 1 or more, got 0"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        settings(Outer, values)


def test_build_makes_objects_and_factories() -> None:
    array = {"_target_": "medtwin.dicom.labels.ArrayTable", "arrays": {"a": "a"}, "classes": [[]]}
    built = build({"table": {**array, "modality": "CR", "body_part": "CHEST"}, "n": [1, 2]})
    assert isinstance(built["table"], ArrayTable)
    assert built["n"] == [1, 2]
    factory = build({**array, "_partial_": True})
    assert isinstance(factory, partial)
    assert isinstance(factory(modality="CR", body_part="CHEST"), ArrayTable)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("os.system", "must be in one of"),
        ("medtwin.config.Path", "no class or function of a trusted package"),
        ("medtwin.core.files.os.system", "cannot be imported|no class or function"),
        ("medtwin.nowhere.X", "cannot be imported"),
        ("medtwin.core.files.MANIFEST", "no class or function"),
        (5, "must be in one of"),
    ],
)
def test_build_refuses_what_is_not_trusted(target: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({"part": {"_target_": target}})


def test_build_names_the_place_of_a_bad_argument() -> None:
    with pytest.raises(ConfigError, match=r"labels: LabelTable has no setting 'colour', only file, subject"):
        build({"labels": {"_target_": "medtwin.dicom.labels.LabelTable", "colour": 1}})
    with pytest.raises(ConfigError, match=r"labels: LabelTable: .*missing"):
        build({"labels": {"_target_": "medtwin.dicom.labels.LabelTable", "file": "f"}})
    bad = {"_target_": "medtwin.core.dataset_writer.SplitRule", "tuning": 2.0}
    with pytest.raises(ConfigError, match="rule: splits: tuning"):
        build({"rule": bad})


@pytest.mark.parametrize("option", sorted(path.stem for path in (config_dir() / "labels").glob("*.yaml")))
def test_every_label_mapping_builds(option: str) -> None:
    config = compose("ingest", [f"labels={option}"])
    built = build(config.get("labels") or {}, "labels")
    assert built == {} if option == "none" else isinstance(built, (LabelTable, ArrayTable))


@pytest.mark.parametrize("net", ["unet", "unet_64", "unet_64_ct", "monai"])
@pytest.mark.parametrize("name", sorted(path.stem for path in (config_dir() / "experiment").glob("scans_*.yaml")))
def test_every_experiment_of_scans_builds_with_every_network(name: str, net: str) -> None:
    config = compose("train", [f"experiment={name}", f"net={net}"])
    assert isinstance(build(config["net"]), torch.nn.Module)
    assert build(config["data"]).batch_size == config["data"]["batch_size"]
    assert compose("train", [f"experiment={name}"])["net"]["patch"] == 2


def test_no_option_is_called_null() -> None:
    with pytest.raises(ConfigError, match=r"trial has no option 'null': .*the options are any_adult"):
        compose("simulate", ["cohort=null", "trial=null"])
