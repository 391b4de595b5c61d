"""Images within confounder strata, and the mix of strata: a wrong mixture is told apart from wrong images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medtwin.check.estimates import Estimate, Measure
from medtwin.check.image_features import Encoded, frechet_estimate
from medtwin.check.image_rows import ImageStratumRow
from medtwin.check.images import intensity_draws, is_comparable
from medtwin.check.marginals import total_variation
from medtwin.check.pictures import MIN_IMAGES, Picture, subjects_of
from medtwin.check.resample import compare, make_plan
from medtwin.check.times import band_name
from medtwin.check.two_sample import MIN_ROWS
from medtwin.core.seeds import generator

AGE_BANDS = ((0, 18), (18, 40), (40, 65), (65, 200))
MAX_RESAMPLES = 60
TITLES = {
    "images.mixture": "Mix of modalities, views, sexes and ages: share of images that would have to change",
    "images.frechet_within": "Features of images: Frechet distance of twins and real images in the twins' mix of views",
}

Division = Literal["view", "sex", "age"]
Floats = NDArray[np.float64]


def band_of(one: Picture) -> str:
    """The band of age of a picture; empty where unknown."""
    for low, high in AGE_BANDS:
        if one.age_years is not None and low <= one.age_years < high:
            return band_name(low, high, AGE_BANDS)
    return ""


def cell_of(one: Picture) -> str:
    """Modality, view, sex and band of age."""
    return ", ".join((one.group, one.sex or "", band_of(one)))


def mixture_measure(
    real: Sequence[Picture], synthetic: Sequence[Picture], control: Sequence[Picture], *, seed: int, num_resamples: int
) -> Measure:
    """`images.mixture`: total variation distance between the shares of modality, view, sex and band of age."""
    name, title = "images.mixture", TITLES["images.mixture"]
    sides = [side for side in (real, synthetic, control) if side]
    if len(np.unique(subjects_of(real))) < 2 or not synthetic:
        return Measure(name, title, None, 0, "lower", "there are no images on both sides", bool(synthetic))
    cells = {name: number for number, name in enumerate(sorted({cell_of(one) for side in sides for one in side}))}
    features = []
    for side in sides:
        subjects, subject = np.unique(subjects_of(side), return_inverse=True)
        counts = np.zeros((len(subjects), len(cells)))
        cell = np.array([cells[cell_of(one)] for one in side], np.int64)
        np.add.at(counts, (subject, cell), 1)
        features.append(counts)
    plan = make_plan(
        len(features[0]),
        len(features[1]),
        len(features[2]) if len(features) > 2 else 0,
        seed=seed,
        num_resamples=num_resamples,
        purpose="images mixture",
    )
    third = features[2] if len(features) > 2 else None
    draws = compare(plan, features[0], features[1], third, total_variation)
    return Measure(name, title, draws.estimate(plan), len(synthetic))


def within_measure(real: Encoded, synthetic: Encoded, control: Encoded, *, seed: int, num_resamples: int) -> Measure:
    """`images.frechet_within`: the Frechet distance where real images have the twins' mix of modality and view.

    Of each view so many real images are taken, at random, that their shares are the twins'; views of fewer than
    `MIN_IMAGES` on either side are left out. What is left of a distance is no matter of the mixture.
    """
    name, title = "images.frechet_within", TITLES["images.frechet_within"]
    rng = generator(seed, "check", "image matching")
    counts = [_count(side.pictures, lambda one: one.group) for side in (real, synthetic)]
    twins = synthetic.where(lambda one: min(side.get(one.group, 0) for side in counts) >= MIN_IMAGES)
    matched = [in_mix_of(side, twins, rng).sample() for side in (real, control)]
    third = matched[1] if matched[1].num_rows else None
    estimate = frechet_estimate(
        matched[0], twins.sample(), third, seed=seed, num_resamples=num_resamples, purpose="within"
    )
    if estimate is None:
        reason = f"needs {2 * MIN_ROWS} real images in the twins' mix of views and {MIN_ROWS} twins"
        return Measure(name, title, None, 0, "lower", reason)
    return Measure(name, title, estimate, matched[0].num_rows + len(twins.pictures))


def in_mix_of(side: Encoded, wanted: Encoded, rng: np.random.Generator) -> Encoded:
    """The most pictures of a side whose shares of groups are those of another, to whole pictures."""
    shares = _count(wanted.pictures, lambda one: one.group)
    have = _count(side.pictures, lambda one: one.group)
    factor = min((have.get(group, 0) / count for group, count in shares.items()), default=0.0)
    groups = np.array([one.group for one in side.pictures], dtype=object)
    rows = [
        rng.permutation(np.flatnonzero(groups == group))[: round(factor * count)] for group, count in shares.items()
    ]
    chosen = np.sort(np.concatenate([np.zeros(0, np.int64), *rows]))
    return Encoded([side.pictures[row] for row in chosen], side.features[chosen])


def stratum_rows(
    real: Sequence[Picture],
    synthetic: Sequence[Picture],
    control: Sequence[Picture],
    encoded: Sequence[Encoded] | None,
    *,
    seed: int,
    num_resamples: int,
) -> list[ImageStratumRow]:
    """Intensity and Frechet distance by view, and within each view by sex and by band of age.

    Args:
        real: The reference.
        synthetic: The twins.
        control: Real images unseen in training.
        encoded: The same three with features, projected; None: there are none.
        seed: Decides the draws.
        num_resamples: Of the bootstrap; `MAX_RESAMPLES` at most.
    """
    rows = []
    resamples = min(num_resamples, MAX_RESAMPLES)
    totals = [_count(side, lambda one: one.modality) for side in (real, synthetic)]
    for division, name, keep in _strata(real, synthetic):
        sides = [[one for one in side if keep(one)] for side in (real, synthetic, control)]
        modality = name.partition(",")[0].partition(" ")[0]
        share = [len(side) / max(total.get(modality, 0), 1) for side, total in zip(sides[:2], totals, strict=True)]
        intensity: Estimate | None = None
        frechet: Estimate | None = None
        if is_comparable(sides):
            plan, draws = intensity_draws(sides, seed=seed, num_resamples=resamples, purpose=name)
            intensity = draws.estimate(plan)
            if encoded is not None:
                kept = [side.where(keep).sample() for side in encoded]
                third = kept[2] if kept[2].num_rows else None
                frechet = frechet_estimate(kept[0], kept[1], third, seed=seed, num_resamples=resamples, purpose=name)
        rows.append(
            ImageStratumRow(division, name, len(sides[0]), len(sides[1]), share[0], share[1], intensity, frechet)
        )
    return rows


def _count(side: Sequence[Picture], of: Callable[[Picture], str]) -> dict[str, int]:
    names, counts = np.unique([of(one) for one in side], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _strata(
    real: Sequence[Picture], synthetic: Sequence[Picture]
) -> Iterator[tuple[Division, str, Callable[[Picture], bool]]]:
    """Every view of either side, and its parts by sex and age where both are known."""
    everything = [*real, *synthetic]
    for group in sorted({one.group for one in everything}):
        yield "view", group, partial(_stands_in, group)
        inside = [one for one in everything if one.group == group]
        for sex in sorted({one.sex for one in inside if one.sex}):
            yield "sex", f"{group}, {sex}", partial(_stands_in, group, sex=sex)
        for band in sorted({band_of(one) for one in inside} - {""}):
            yield "age", f"{group}, {band}", partial(_stands_in, group, band=band)


def _stands_in(group: str, one: Picture, *, sex: str | None = None, band: str | None = None) -> bool:
    """Whether a picture is of a modality and view, and, where they are given, of a sex and a band of age."""
    return one.group == group and sex in (None, one.sex) and band in (None, band_of(one))
