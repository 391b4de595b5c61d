from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from medtwin.core.errors import DatasetError
from medtwin.scans import GeneratedScan, ScanModel, ScanRequest
from medtwin.scans.conditions import ConditionSpec
from medtwin.scans.drawing import Sampling
from medtwin.scans.generate import ScanDescription
from medtwin.scans.intensity import IntensityMap
from medtwin.scans.module import ScanDiffusionModule
from medtwin.scans.pose import NUM_PARAMETERS, PoseLaw
from medtwin.scans.shortcut import ScanShortcutModule, ShortcutTraining
from medtwin.scans.spacings import SpacingTable
from tests.scans.test_unet import small, small_monai, woken

IMAGES = [
    ScanRequest(str(i), "CR", "CHEST", "PA", "F", 40.0 + i, ("A",) if i % 2 else (), spacing_mm=(2.0 + i % 3, 2.0))
    for i in range(12)
]
SPEC = ConditionSpec.fit(IMAGES, min_count=1)


def description(modality: str = "CR") -> ScanDescription:
    values = np.linspace(0, 4000, 256, dtype=np.float32).reshape(16, 16)
    intensity = IntensityMap.fit([(values, modality, 12)])
    images = [replace(image, modality=modality) for image in IMAGES]
    spec = ConditionSpec.fit(images, min_count=1)
    values, known = (torch.from_numpy(array) for array in spec.encode(images))
    found = 0.05 * torch.randn(len(images), NUM_PARAMETERS, generator=torch.Generator().manual_seed(6))
    poses = PoseLaw.fit(found, values, known, spec.widths)
    return ScanDescription(16, spec, intensity, SpacingTable.fit(images), poses)


def module(net=None) -> ScanDiffusionModule:
    """As if trained: its network says something, and differs between conditions."""
    torch.manual_seed(0)
    made = ScanDiffusionModule(
        woken(net or small()),
        partial(torch.optim.SGD, lr=0.1),
        size=[16, 16],
        condition_widths=list(SPEC.widths),
        rank=4,
    )
    values, known = (torch.from_numpy(array) for array in SPEC.encode(IMAGES * 4))
    image = torch.rand(48, 1, 16, 16, generator=torch.Generator().manual_seed(4)) - 0.5
    made.measure({"image": image, "values": values, "known": known})
    return made


@pytest.fixture(scope="module", params=[small, small_monai], ids=["unet", "monai"])
def model(request) -> ScanModel:
    return ScanModel(module(request.param()), description())


def requests(count: int = 11) -> list[ScanRequest]:
    return [
        ScanRequest(f"s{i}", "CR", "CHEST", labels=("A",) if i % 3 else (), age_years=30.0 + i) for i in range(count)
    ]


def drawn(model: ScanModel, asked: list[ScanRequest], **settings) -> dict[str, GeneratedScan]:
    return {scan.key: scan for scan in model.sample(asked, **{"seed": 1, "num_steps": 4, "tile": 4, **settings})}


def same(a: GeneratedScan, b: GeneratedScan) -> bool:
    return a.pixels.tobytes() == b.pixels.tobytes() and a.spacing_mm == b.spacing_mm


def test_bytes_do_not_depend_on_batch_size_order_or_company(model) -> None:
    asked = requests()
    scans = drawn(model, asked, batch_size=8)
    assert [*scans] == [request.key for request in asked]
    for others in (
        drawn(model, asked, batch_size=1),
        drawn(model, asked, batch_size=3),
        drawn(model, asked[::-1], batch_size=8),
        drawn(model, asked[4:9], batch_size=64),
        drawn(model, asked[5:6]),
    ):
        assert all(same(scan, scans[key]) for key, scan in others.items())


def test_seed_key_and_conditions_decide(model) -> None:
    one = requests(1)
    scan = drawn(model, one)["s0"]
    assert same(scan, drawn(model, one)["s0"])
    assert not same(scan, drawn(model, one, seed=2)["s0"])
    assert not same(scan, drawn(model, [replace(one[0], key="other")])["other"])
    assert not same(scan, drawn(model, [replace(one[0], labels=("A",))])["s0"])


def test_guidance_exaggerates_and_leaves_alone_at_one(model) -> None:
    one = requests(1)
    plain, strong = drawn(model, one)["s0"], drawn(model, one, guidance=3.0)["s0"]
    assert not same(plain, strong)
    outside = ScanModel(model.module, model.description, Sampling(guidance_from=1e3, guidance_to=1e4))
    assert same(plain, drawn(outside, one, guidance=3.0)["s0"])


def test_guidance_is_about_findings_alone(model) -> None:
    unknown = [replace(requests(1)[0], labels=None)]
    assert same(drawn(model, unknown)["s0"], drawn(model, unknown, guidance=3.0)["s0"])


def test_what_is_drawn_is_moved_by_a_pose_of_its_own(model) -> None:
    still = ScanModel(model.module, replace(model.description, poses=None))
    moved, unmoved = drawn(model, requests()), drawn(still, requests())
    assert not any(same(moved[key], unmoved[key]) for key in moved)


def test_what_is_given_is_what_a_writer_takes(model) -> None:
    scan = drawn(model, requests(1))["s0"]
    assert (scan.pixels.shape, scan.pixels.dtype, scan.bits_stored) == ((16, 16), np.uint16, 12)
    assert scan.pixels.max() <= 4095
    assert scan.pixels.std() > 0
    assert (scan.modality, scan.body_part, scan.view) == ("CR", "CHEST", None)


def test_ct_comes_out_in_hounsfield_units() -> None:
    scans = drawn(ScanModel(module(), description("CT")), [ScanRequest("a", "CT", "CHEST")])
    assert scans["a"].pixels.dtype == np.int16
    assert -1024 <= scans["a"].pixels.min() < scans["a"].pixels.max() <= 3071


def test_spacing_is_written_as_conditioned(model) -> None:
    assert drawn(model, [replace(requests(1)[0], spacing_mm=(3.5, 3.5))])["s0"].spacing_mm == (3.5, 3.5)
    assert {scan.spacing_mm for scan in drawn(model, requests()).values()} <= {(2.0, 2.0), (3.0, 2.0), (4.0, 2.0)}


def test_knows_what_it_can_make_and_refuses_the_rest(model) -> None:
    assert model.can_make(ScanRequest("a", "CR", "CHEST", view="unheard of"))
    assert model.can_make(ScanRequest("a", "CR"))
    assert not model.can_make(ScanRequest("a", "CR", "HAND"))
    assert not model.can_make(ScanRequest("a", "CT", "CHEST"))
    with pytest.raises(ValueError, match="request a: the model has not learned CT of CHEST, only CR of CHEST"):
        drawn(model, [ScanRequest("a", "CT", "CHEST")])
    with pytest.raises(ValueError, match="tile"):
        drawn(model, requests(1), tile=0)


def test_the_noise_of_the_sde_belongs_to_its_image(model) -> None:
    """Whatever else is drawn, and in which order; another seed is another image."""
    other = ScanModel(model.module, model.description, Sampling(sampler="dpmpp_2m_sde"))
    many, one = drawn(other, requests()), drawn(other, requests()[4:5])
    assert same(many["s4"], one["s4"])
    assert not same(drawn(other, requests()[4:5], seed=8)["s4"], one["s4"])


@pytest.mark.parametrize("sampler", ["heun", "euler", "dpmpp_2m_sde"])
def test_every_sampler_draws(model, sampler) -> None:
    other = ScanModel(model.module, model.description, Sampling(sampler=sampler))
    assert not same(drawn(other, requests(1))["s0"], drawn(model, requests(1))["s0"])


def test_loads_a_run(tmp_path: Path) -> None:
    from medtwin.core.files import write_json

    trained = module()
    torch.nn.init.normal_(trained.average.net.out.weight, std=0.2)
    described = description()
    write_json(
        tmp_path / "data" / "scans.json",
        {
            "size": 16,
            "conditions": described.conditions.to_json(),
            "intensity": described.intensity.to_json(),
            "spacings": described.spacings.to_json(),
            "poses": described.poses.to_json(),
        },
    )
    with pytest.raises(DatasetError, match=r"model\.ckpt is missing"):
        ScanModel.load(module(), tmp_path)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "model.ckpt")
    loaded = ScanModel.load(module(), tmp_path)
    assert replace(loaded.description, poses=None) == replace(described, poses=None)
    assert loaded.description.poses.to_json() == described.poses.to_json()
    wanted = drawn(ScanModel(trained, described), requests(2))
    assert all(same(scan, wanted[key]) for key, scan in drawn(loaded, requests(2)).items())
    with pytest.raises(DatasetError, match="not of the module"):
        ScanModel.load(module(small(channels=(16, 16))), tmp_path)


def test_few_steps_are_for_models_that_have_learned_them(model) -> None:
    few = ScanModel(model.module, model.description, Sampling(sampler="shortcut"))
    with pytest.raises(ValueError, match="shortcut is for runs of model=scan_shortcut"):
        drawn(few, requests(1))
    torch.manual_seed(0)
    made = ScanShortcutModule(
        woken(small()), partial(torch.optim.SGD, lr=0.1), size=[16, 16], condition_widths=list(SPEC.widths), rank=4,
        training=ShortcutTraining(guidance=3.0),
    )  # fmt: skip
    made.load_state_dict(module().state_dict())
    few = ScanModel(made, model.description, Sampling(sampler="shortcut"))
    one, two = (drawn(few, requests(), num_steps=n, guidance=3.0) for n in (1, 2))
    assert not any(same(one[key], two[key]) for key in one)
    assert all(same(one[key], scan) for key, scan in drawn(few, requests()[::-1], num_steps=1, guidance=3.0).items())
    with pytest.raises(ValueError, match=r"num_steps must be one of \[1, 2, 4, 8, 16, 32\]"):
        drawn(few, requests(1), num_steps=20, guidance=3.0)
    with pytest.raises(ValueError, match="guidance must be 3 with sampler=shortcut"):
        drawn(few, requests(1), num_steps=2)


def test_a_volume_comes_out_as_slices_rows_and_columns() -> None:
    values = np.linspace(-1000, 3000, 256, dtype=np.float32).reshape(16, 16)
    spec = ConditionSpec.fit([replace(image, modality="CT") for image in IMAGES], min_count=1)
    described = ScanDescription(8, spec, IntensityMap.fit([(values, "CT", 12)]), SpacingTable.fit(IMAGES))
    torch.manual_seed(0)
    made = ScanDiffusionModule(
        woken(small(spatial_dims=3)), partial(torch.optim.SGD, lr=0.1), size=[6, 8, 10],
        condition_widths=list(spec.widths), rank=0,
    )  # fmt: skip
    scan = drawn(ScanModel(made, described), [ScanRequest("a", "CT", "CHEST", spacing_mm=(2.0, 2.0))])["a"]
    assert (scan.pixels.shape, scan.pixels.dtype) == ((6, 8, 10), np.int16)
