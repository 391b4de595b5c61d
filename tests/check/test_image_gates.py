"""Every gate of images passes other real images, and fails the faults that it names as its controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medtwin.check import Findings, Profile, Rule, judge
from medtwin.check.image_findings import compare_images
from medtwin.check.pictures import Picture
from tests.check.images_samples import changed, encode, pictures

PROFILES = ("research", "partner", "public")
Pictures = list[Picture]


def dealt(sources: Pictures) -> Pictures:
    """Findings dealt anew."""
    order = np.random.default_rng(0).permutation(len(sources))
    return [replace(one, labels=sources[other].labels) for one, other in zip(sources, order, strict=True)]


def stolen(sources: Pictures, real: Pictures) -> Pictures:
    """A tenth of the images are real ones."""
    number = len(sources) // 10
    copies = [
        replace(one, pixels=other.pixels, digest=other.digest)
        for one, other in zip(sources[:number], real, strict=False)
    ]
    return [*copies, *sources[number:]]


FAULTS: dict[str, Callable[[Pictures, Pictures], Pictures]] = {
    "blurred images": lambda fresh, real: changed(fresh, lambda pixels: gaussian_filter(pixels, 1.5)),
    "darkened images": lambda fresh, real: changed(fresh, lambda pixels: pixels * 0.55),
    "one image": lambda fresh, real: changed(fresh, lambda pixels: fresh[0].pixels),
    "copied images": stolen,
    "random labels": lambda fresh, real: dealt(fresh),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Findings]:
    real, fresh, control = pictures(260, 1), pictures(200, 2), pictures(120, 3)
    sides = {"fresh": fresh, **{name: how(fresh, real) for name, how in FAULTS.items()}}
    findings = {}
    for name, twins in sides.items():
        one = compare_images(real, twins, control, encode=encode, seed=0, num_resamples=30)
        findings[name] = Findings(260, 200, 120, one.measures, copies=one.copies)
    return findings


@pytest.mark.parametrize("profile", PROFILES)
def test_gates_of_images_fail_their_controls_and_pass_other_real_images(
    found: dict[str, Findings], shipped: tuple[dict[str, Profile], tuple[Rule, ...]], profile: str
) -> None:
    chosen = shipped[0][profile]
    judging = replace(chosen, gates=tuple(gate for gate in chosen.gates if gate.name.startswith("image-")))
    outcomes = {name: {one.name: one.outcome for one in judge(one, judging)} for name, one in found.items()}
    assert outcomes["fresh"] == {gate.name: "passed" for gate in judging.gates}
    missed = {
        (gate.name, fault) for gate in judging.gates for fault in gate.control if outcomes[fault][gate.name] != "failed"
    }
    assert missed == set()
    assert {fault for gate in judging.gates for fault in gate.control} == set(FAULTS)
