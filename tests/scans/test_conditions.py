from __future__ import annotations

import json
import math

import numpy as np
import pytest

from medtwin.scans.conditions import CONDITIONS, ConditionSpec, ScanRequest


def image(**changes) -> ScanRequest:
    settings = {
        "key": "k",
        "modality": "CR",
        "body_part": "CHEST",
        "view": "PA",
        "sex": "F",
        "age_years": 50.0,
        "labels": (),
        "spacing_mm": (2.0, 2.0),
    }
    return ScanRequest(**{**settings, **changes})


@pytest.fixture
def spec() -> ConditionSpec:
    images = [image(labels=("A",), age_years=40.0) for _ in range(3)]
    images += [image(view="AP", sex="M", age_years=60.0, labels=None) for _ in range(3)]
    images += [image(labels=("B",), view="LL", spacing_mm=None, age_years=None)]
    return ConditionSpec.fit(images, min_count=2)


def part(spec: ConditionSpec, request: ScanRequest, name: str) -> list[float] | None:
    encoded = spec.encode([request])
    index = CONDITIONS.index(name)
    start = sum(spec.widths[:index])
    values = encoded.values[0, start : start + spec.widths[index]].tolist()
    if encoded.known[0, index]:
        return values
    assert not any(values)
    return None


def test_vocabularies_hold_what_is_frequent(spec) -> None:
    assert (spec.modalities, spec.views, spec.sexes, spec.findings) == (("CR",), ("AP", "PA"), ("F", "M"), ("A",))
    assert (spec.age.mean, spec.age.deviation) == (50.0, 10.0)
    assert spec.log_spacing.mean == pytest.approx(math.log(2))
    assert spec.learned == (("CR", "CHEST"),)
    assert spec.widths == (1, 1, 2, 2, 1, 3, 1, 0)


def test_encodes_by_hand(spec) -> None:
    request = image(age_years=60.0, labels=("A",), spacing_mm=(2.0, 2.0))
    assert part(spec, request, "view") == [0.0, 1.0]
    assert part(spec, request, "findings") == [1.0]
    assert part(spec, request, "age") == pytest.approx([1.0, math.sin(1.5), math.cos(1.5)])
    assert part(spec, request, "spacing") == pytest.approx([0.0], abs=1e-6)


def test_unknown_is_missing_and_not_labelled_is_not_normal(spec) -> None:
    assert part(spec, image(view="LL"), "view") is None
    assert part(spec, image(sex=None), "sex") is None
    assert part(spec, image(age_years=None), "age") is None
    assert part(spec, image(spacing_mm=None), "spacing") is None
    assert part(spec, image(labels=None), "findings") is None
    assert part(spec, image(labels=()), "findings") == [0.0]
    assert part(spec, image(labels=("B",)), "findings") is None  # not "none found"
    assert part(spec, image(labels=("A", "B")), "findings") == [1.0]


def test_latents(spec) -> None:
    assert part(spec, image(latent=np.ones(4, np.float32)), "latent") is None  # learned without
    with_latent = ConditionSpec.fit([image(latent=np.full(2, i, np.float32)) for i in range(3)], min_count=1)
    assert part(with_latent, image(latent=np.array([1, 2], np.float32)), "latent") == [1.0, 2.0]
    assert part(with_latent, image(), "latent") is None
    with pytest.raises(ValueError, match="must have 2 numbers, got 3"):
        with_latent.encode([image(latent=np.ones(3, np.float32))])


def test_json_round_trip(spec) -> None:
    assert ConditionSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_knows_what_it_has_seen(spec) -> None:
    assert spec.knows("CR", "CHEST")
    assert spec.knows("CR", None)
    assert not spec.knows("CR", "HAND")
    assert not spec.knows("MR", None)
