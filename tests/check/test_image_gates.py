"""Every gate of images passes other real images, and fails the faults that it names as its controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medtwin.check import Findings, Profile, Rule, image_copies, judge
from medtwin.check.image_controls import IMAGE_BREAKS
from medtwin.check.image_findings import compare_images
from medtwin.check.matrix import cells_of, surprises
from tests.check.images_samples import encode, pictures

PROFILES = ("research", "partner", "public")


@pytest.fixture(scope="module")
def found() -> dict[str, Findings]:
    real, fresh, control = (pictures(n, seed, share_ap=0.5) for seed, n in enumerate((160, 130, 90), 1))
    broken = {name: how(fresh, real, np.random.default_rng(0)) for name, how in IMAGE_BREAKS.items()}
    sides = {"fresh": fresh, **broken}
    findings, limits = {}, image_copies.nearness_limits(real, control, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_copies, "nearness_limits", lambda *_: limits)  # of the real sides, which are always these
        for name, twins in sides.items():
            one = compare_images(real, twins, control, encode=encode, seed=0, num_resamples=30)
            findings[name] = Findings(160, 130, 90, one.measures, copies=one.copies)
    return findings


@pytest.mark.parametrize("profile", PROFILES)
def test_gates_of_images_fail_their_controls_and_pass_other_real_images(
    found: dict[str, Findings], shipped: tuple[dict[str, Profile], tuple[Rule, ...]], profile: str
) -> None:
    chosen = shipped[0][profile]
    gates = (gate for gate in chosen.gates if gate.name.startswith("image-") and not gate.by_interval)
    judging = replace(chosen, gates=tuple(gates))  # others: attacks/test_images.py, test_image_losses.py
    outcomes = {name: {one.name: one.outcome for one in judge(one, judging)} for name, one in found.items()}
    assert outcomes["fresh"] == {gate.name: "passed" for gate in judging.gates}
    missed = {
        (gate.name, fault) for gate in judging.gates for fault in gate.control if outcomes[fault][gate.name] != "failed"
    }
    assert missed == set()


# family: the faults that must move every measure of it, and those that must move none of it
BLURRED, DARKENED, GRAINY, ONE, STOLEN, REMEMBERED, DEALT, VIEW = IMAGE_BREAKS
EXPECTED: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("images.intensity",): ((DARKENED,), (STOLEN, DEALT)),
    ("images.spectrum",): ((BLURRED, GRAINY), (STOLEN, DEALT, VIEW)),
    ("images.diversity",): ((ONE,), (STOLEN, DEALT, VIEW)),
    ("images.mixture",): ((VIEW,), (BLURRED, DARKENED, GRAINY, STOLEN, DEALT)),
    ("images.frechet", "images.kid", "images.c2st"): ((BLURRED, DARKENED, ONE), (STOLEN, DEALT)),
    ("images.frechet_within",): ((BLURRED, DARKENED, ONE), (STOLEN, DEALT)),
    ("images.recall", "images.coverage"): ((ONE,), (STOLEN, DEALT)),
    ("images.vendi",): ((ONE,), (STOLEN, DEALT)),
    ("images.precision", "images.density"): ((DARKENED,), (STOLEN, DEALT)),
    ("images.adherence", "images.tstr"): ((DEALT,), ()),  # copied images keep the labels of the twin: some are wrong
    ("copies.images",): ((STOLEN,), (BLURRED, DARKENED, GRAINY, ONE, DEALT, VIEW)),
    ("copies.images_near",): ((STOLEN, REMEMBERED), (DEALT, VIEW)),
    ("images.memory", "images.memory_patches"): ((REMEMBERED,), (DEALT, VIEW)),
    ("images.memory_features", "images.memory_pixels"): ((), (DEALT, VIEW)),
    ("duplicates.images",): ((ONE,), (BLURRED, DARKENED, GRAINY, STOLEN, DEALT, VIEW)),
}


def test_measures_of_images_move_where_they_must_and_only_there(found: dict[str, Findings]) -> None:
    cells = [cell for fault, findings in found.items() for cell in cells_of(fault, findings)]
    moves = {name: must for names, (must, _) in EXPECTED.items() for name in names}
    stays = {name: ("fresh", *still) for names, (_, still) in EXPECTED.items() for name in names}
    assert surprises(cells, moves, stays) == []
