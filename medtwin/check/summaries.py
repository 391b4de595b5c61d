"""Records as numbers: summaries of each subject, dense, and counts of what follows what, sparse."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medtwin.check.estimates import Measure
from medtwin.check.findings import SeparatorRow
from medtwin.check.hashes import GOLDEN, Hashes, mix
from medtwin.check.neighbours import compared_rows, neighbour_measures
from medtwin.check.records import UNDATED, US_PER_HOUR, Records
from medtwin.check.resample import NUM_RESAMPLES
from medtwin.check.two_sample import (
    MAX_ROWS,
    Fold,
    Sample,
    boosted_trees,
    c2st_draws,
    c2st_measure,
    cross_fit,
    linear_c2st_measure,
    one_per_subject,
    one_thread,
    rows_of,
    weighted_auc,
)
from medtwin.core.codes import BIRTH, DEATH, SEPARATOR
from medtwin.core.seeds import generator

MAX_CODES = 200
"""Codes that are counted: those that most real subjects have."""
MAX_NUMBERS = 60
"""Codes and units whose numbers are summarised: those that most real subjects have."""
FIXED_SYSTEMS = ("GENDER", "RACE", "ETHNICITY")
"""Systems whose codes a subject has or has not: they count as 0 or 1."""
MAX_COMPONENTS = 32
"""Principal components in which neighbours are looked for."""
MAX_SPREADS = 5.0
"""Scaled numbers are cut at so many robust standard deviations, so that one wild number is not all of a distance."""
HASH_BITS = 14
NUM_BUCKETS = 2**HASH_BITS
"""Columns of the hashed counts. Source: Weinberger et al. 2009, ICML (feature hashing)."""
NGRAM_LENGTHS = (1, 2, 3)
MIN_SHOWN = 11
"""Subjects below which a mean is not shown."""
MAX_SEPARATORS = 20
TITLES = {"summaries": "Summaries of each record", "sequences": "Order of events"}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SummaryKeys:
    """What is summarised, decided on the real records.

    Attributes:
        codes: Numbers of the codes that are counted, (codes,).
        fixed: Numbers of the codes of `FIXED_SYSTEMS`, (fixed codes,).
        numbers: Code and unit of the numbers, (numbers, 2).
        names: Name of each column: the code, with its unit, or what else it is.
        aspects: What of it the column holds.
    """

    codes: Ints
    fixed: Ints
    numbers: Ints
    names: tuple[str, ...]
    aspects: tuple[str, ...]


COUNT = "how often"
TIMING = {
    "age at the first event, years": "value",
    "events": COUNT,
    "follow-up, years": "value",
    "times": COUNT,
    "died": "present",
    "gap between times, log hours": "mean",
    "gap between times, spread of log hours": "value",
}
ASPECTS = ("last", "mean", "spread")


def summary_keys(real: Records) -> SummaryKeys:
    """The codes and numbers that most real subjects have."""
    names, units = real.vocabulary.names, list(real.vocabulary.units)
    by_subject = _num_subjects(real.subject, real.code, len(names))
    is_fixed = np.array([name.partition(SEPARATOR)[0] in FIXED_SYSTEMS for name in names], bool)
    countable = ~is_fixed & ~np.isin(names, [BIRTH, DEATH])
    rank = np.argsort(np.argsort(names))
    codes = _most_frequent(np.where(countable, by_subject, 0), rank, MAX_CODES)
    fixed = _most_frequent(np.where(is_fixed, by_subject, 0), rank, MAX_CODES)
    numbers = commonest_numbers(real, MAX_NUMBERS)
    with_unit = [f"{names[code]} [{units[unit]}]" if unit else names[code] for code, unit in numbers.tolist()]
    return SummaryKeys(
        codes,
        fixed,
        numbers,
        (*(names[i] for i in codes), *(names[i] for i in fixed), *np.repeat(with_unit, len(ASPECTS)).tolist(), *TIMING),
        (
            *[COUNT] * len(codes),
            *["present"] * len(fixed),
            *[*ASPECTS] * len(numbers),
            *TIMING.values(),
        ),
    )


def commonest_numbers(real: Records, most: int) -> Ints:
    """Code and unit, (numbers, 2), of at most so many numbers: those that most subjects have, in order of both."""
    num_units = len(real.vocabulary.units)
    row = np.flatnonzero(~np.isnan(real.value))
    key = real.code[row] * num_units + real.unit[row]
    kinds, place = np.unique(key, return_inverse=True)
    chosen = _most_frequent(_num_subjects(real.subject[row], place, len(kinds)), kinds, most)
    return np.column_stack([kinds[chosen] // num_units, kinds[chosen] % num_units])


def _num_subjects(subject: Ints, kind: Ints, num_kinds: int) -> Ints:
    """In how many subjects each kind occurs, (kinds,)."""
    once = np.unique(subject * max(num_kinds, 1) + kind)
    return np.bincount(once % max(num_kinds, 1), minlength=num_kinds)


def _most_frequent(count: Ints, rank: Ints, most: int) -> Ints:
    """At most so many kinds that occur at all, ascending; of equal counts the lower rank."""
    order = np.lexsort((rank, -count))[:most]
    return np.sort(order[count[order] > 0])


def patient_summaries(records: Records, keys: SummaryKeys) -> Floats:
    """One row of numbers per subject, (subjects, columns); NaN where there is nothing to summarise.

    Per common code the logarithm of 1 + its events; sex, race and ethnicity as 0 or 1; per common number its last (the
    mean of those at the last time), its mean and its standard deviation within the subject; age at the first event, the
    logarithm of 1 + events and of 1 + times, years of follow-up, died, and the mean and standard deviation of the
    logarithm of the gaps between times.

    Args:
        records: Of any side.
        keys: Decided on the real side.
    """
    num_codes = max([records.counts.shape[1], *(keys.codes + 1), *(keys.fixed + 1)])
    counts = records.counts.copy()
    counts.resize((records.num_subjects, num_codes))
    counted = np.log1p(counts[:, keys.codes].toarray().astype(np.float64))
    fixed = np.minimum(counts[:, keys.fixed].toarray(), 1).astype(np.float64)
    return np.column_stack([counted, fixed, _number_summaries(records, keys.numbers), _timing(records)])


def _number_summaries(records: Records, numbers: Ints) -> Floats:
    """Last, mean and standard deviation of each number, (subjects, 3 * numbers)."""
    num_units = len(records.vocabulary.units)
    wanted = numbers[:, 0] * num_units + numbers[:, 1]
    order = np.argsort(wanted)
    key = records.code * num_units + records.unit
    place = np.searchsorted(wanted[order], key)
    row = np.flatnonzero(~np.isnan(records.value) & np.isin(key, wanted))
    column = order[place[row]] if len(row) else row
    cell = records.subject[row] * len(wanted) + column
    time, value = records.time_us[row], records.value[row].astype(np.float64)
    size = records.num_subjects * len(wanted)
    last_time = np.full(size, UNDATED)
    last_time[cell] = time  # ascending within a subject: the last one stays
    is_last = time == last_time[cell]
    mean, spread = _moments(cell, value, size)
    last, _ = _moments(cell[is_last], value[is_last], size)
    return np.stack([last, mean, spread], axis=1).reshape(records.num_subjects, len(ASPECTS) * len(wanted))


def _moments(cell: Ints, value: Floats, size: int) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the values in each cell, (size,) each; NaN of none, and of fewer than two."""
    number = np.bincount(cell, minlength=size)
    mean = np.bincount(cell, value, size) / np.where(number, number, np.nan)
    squares = np.bincount(cell, (value - mean[cell]) ** 2, size)
    return mean, np.sqrt(squares / np.where(number > 1, number - 1, np.nan))


def _timing(records: Records) -> Floats:
    """The columns of `TIMING`, (subjects, columns)."""
    steps = records.steps
    same = steps.subject[1:] == steps.subject[:-1]
    log_gap = np.log(np.diff(steps.time_us)[same] / US_PER_HOUR)
    mean, spread = _moments(steps.subject[1:][same], log_gap, records.num_subjects)
    num_steps = np.bincount(steps.subject, minlength=records.num_subjects)
    died = records.time_of(DEATH) != UNDATED
    return np.column_stack(
        [records.ages, np.log1p(records.num_events), records.years, np.log1p(num_steps), died, mean, spread]
    ).astype(np.float64)


def some_subjects(records: Records, most: int, *, seed: int, purpose: str) -> Records:
    """The records of at most so many subjects, drawn at random; all of them where there are no more."""
    if records.num_subjects <= most:
        return records
    rng = generator(seed, "check", "some subjects", purpose)
    chosen = np.sort(rng.permutation(records.num_subjects)[:most])
    return records.take(chosen)


def summary_measures(
    real: Records, synthetic: Records, control: Records | None, *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> tuple[list[Measure], list[SeparatorRow]]:
    """Whole records against whole records, and what tells them apart, the most telling first.

    `c2st.summaries`: boosted trees on `patient_summaries`. `c2st.sequences`: logistic regression on
    `sequence_features`. `summaries.precision .recall .density .coverage .vendi`: neighbours of `scaled_summaries`.
    At most `two_sample.MAX_ROWS` subjects are drawn of a side, twice as many real ones; beyond, only picking them costs
    more.

    Args:
        real: The reference.
        synthetic: The twins.
        control: Real subjects unseen in training; None: too few.
        seed: Decides who is drawn, and the resampling.
        num_resamples: Of the bootstrap.
    """
    real = some_subjects(real, 2 * MAX_ROWS, seed=seed, purpose="real")
    synthetic = some_subjects(synthetic, MAX_ROWS, seed=seed, purpose="synthetic")
    sides = [real, synthetic]
    if control is not None:
        sides.append(some_subjects(control, MAX_ROWS, seed=seed, purpose="control"))
    keys, bins = summary_keys(real), sequence_bins(real)
    plain = [patient_summaries(side, keys) for side in sides]
    words = [sequence_features(side, bins) for side in sides]
    of_summaries, of_words = ([one_per_subject(rows) for rows in part] for part in (plain, words))
    of_points = [one_per_subject(rows) for rows in _points(of_summaries, seed)]
    title = TITLES["summaries"]
    measures = [
        c2st_measure(*_three(of_summaries), family="summaries", title=title, seed=seed, num_resamples=num_resamples),
        linear_c2st_measure(
            *_three(of_words), family="sequences", title=TITLES["sequences"], seed=seed, num_resamples=num_resamples
        ),
        *neighbour_measures(
            *_three(of_points), family="summaries", title=title, seed=seed, num_resamples=num_resamples
        ),
    ]
    return measures, separators(of_summaries[0], of_summaries[1], keys, seed=seed)


def _points(sides: Sequence[Sample], seed: int) -> list[Floats]:
    """Where the neighbours of each side's summaries are looked for, learned from the rows that are compared."""
    features = [np.asarray(side.features, np.float64) for side in sides]
    draws = compared_rows(sides[0], sides[1], None, family="summaries", seed=seed)
    if draws is None:
        return [np.zeros((side.num_rows, 1)) for side in sides]
    with one_thread():
        fitted = np.concatenate([features[0][draws.real], features[1][draws.synthetic]])
        return scaled_summaries(features, fitted)


def _three(sides: Sequence[Sample]) -> tuple[Sample, Sample, Sample | None]:
    return sides[0], sides[1], sides[2] if len(sides) > 2 else None


def separators(real: Sample, synthetic: Sample, keys: SummaryKeys, *, seed: int) -> list[SeparatorRow]:
    """What the classifier of `c2st.summaries` goes by, the most important first, at most `MAX_SEPARATORS`.

    All columns of one name are permuted together among the rows that the classifier did not train on; then those of the
    first names one by one, to find the most telling of each. What two names tell alike counts for neither in full, and
    where one name is enough to tell everybody, others that are wrong as well do not show.

    Args:
        real: `patient_summaries` of the reference.
        synthetic: The same of the twins.
        keys: What the columns are.
        seed: The seed of the measure.

    Returns:
        Rows of positive importance; none where there are too few subjects.

    Source: Breiman 2001, Machine Learning 45:5, section 10 (permutation importance).
    """
    draws = c2st_draws(real, synthetic, None, name="c2st.summaries", seed=seed)
    if draws is None:
        return []
    pair = rows_of(real, draws.real), rows_of(synthetic, draws.synthetic)
    folds = cross_fit(*pair, boosted_trees)
    if folds is None:
        return []
    rng = generator(seed, "check", "separators")
    shuffles = [rng.permutation(len(fold.first) + len(fold.second)) for fold in folds]

    def importance(columns: Ints) -> float:
        return float(np.mean([_drop(fold, pair, columns, order) for fold, order in zip(folds, shuffles, strict=True)]))

    columns_of = {name: [i for i, one in enumerate(keys.names) if one == name] for name in dict.fromkeys(keys.names)}
    rows = []
    with one_thread():
        by_name = {name: importance(np.array(columns)) for name, columns in columns_of.items()}
        for name in sorted(by_name, key=lambda one: -by_name[one])[:MAX_SEPARATORS]:
            if by_name[name] > 0:
                best = max(columns_of[name], key=lambda column: importance(np.array([column])))
                shown = [_shown_mean(np.asarray(side.features[:, best]), keys.aspects[best]) for side in pair]
                rows.append(SeparatorRow(name, keys.aspects[best], by_name[name], *shown))
    return rows


def _drop(fold: Fold, pair: tuple[Sample, Sample], columns: Ints, order: Ints) -> float:
    """By how much the area of one fold falls when some columns are dealt in this order."""
    held = np.concatenate([pair[0].features[fold.first], pair[1].features[fold.second]])
    held[:, columns] = held[order][:, columns]
    scores = fold.model.decision_function(held)
    ones = np.ones((1, len(fold.first))), np.ones((1, len(fold.second)))
    low, high = np.split(scores, [len(fold.first)])
    before = weighted_auc(fold.scores_first, fold.scores_second, *ones)
    return float(before[0] - weighted_auc(low, high, *ones)[0])


def _shown_mean(column: Floats, aspect: str) -> float | None:
    known = column[~np.isnan(column)]
    if len(known) < MIN_SHOWN:
        return None
    return float(np.mean(np.expm1(known) if aspect == COUNT else known))


def scaled_summaries(sides: Sequence[Floats], fitted: Floats) -> list[Floats]:
    """Summaries as points whose distance means something, (subjects, at most `MAX_COMPONENTS` + 1), of each side.

    A missing number becomes the median, beside a 0 or 1 that says so; each column is divided by its robust standard
    deviation and cut at `MAX_SPREADS` of them; the points are the first principal components. The last column is the
    length of what they leave over, so that points beside the others are far from them.

    Args:
        sides: (subjects, columns) each, NaN where missing.
        fitted: Rows from which all of it is learned, at least 1: as many of both sides that are compared
            (`compared_rows` says why).
    """
    known = ~np.isnan(fitted).all(axis=0)
    fitted = fitted[:, known]
    median = np.nanmedian(fitted, axis=0) if known.any() else np.zeros(0)
    gaps = np.flatnonzero(np.isnan(fitted).any(axis=0))
    scale = _robust_scale(np.where(np.isnan(fitted), median, fitted))

    def fill(side: Floats) -> Floats:
        missing = np.isnan(side)
        scaled = np.clip(np.where(missing, 0, (side - median) / scale), -MAX_SPREADS, MAX_SPREADS)
        return np.column_stack([scaled, missing[:, gaps]])

    filled = fill(fitted)
    centre = filled.mean(axis=0)
    _, directions = np.linalg.eigh((filled - centre).T @ (filled - centre))
    directions = directions[:, ::-1][:, :MAX_COMPONENTS]
    points = []
    for side in sides:
        moved = fill(side[:, known]) - centre
        projected = moved @ directions
        rest = np.linalg.norm(moved - projected @ directions.T, axis=1)
        # Rounded, so that equal records are equal points: a product's last digits depend on where a row stands.
        points.append(np.round(np.column_stack([projected, rest]), 9))
    return points


def _robust_scale(features: Floats) -> Floats:
    """Interquartile range over 1.349, (columns,); where that is 0 the standard deviation; where that is 0, 1."""
    low, high = np.quantile(features, [0.25, 0.75], axis=0)
    scale = (high - low) / 1.349
    scale = np.where(scale > 0, scale, features.std(axis=0))
    return np.where(scale > 0, scale, 1.0)


@dataclass(frozen=True)
class SequenceBins:
    """Which numbers and gaps count as alike, decided on the real records.

    Attributes:
        keys: Code and unit as one number, (kinds,), ascending.
        edges: Quartiles of the numbers of each, (kinds, 3).
        gap_edges: Quartiles of the gaps between the times of a subject in microseconds, (3,).
    """

    keys: Ints
    edges: Floats
    gap_edges: Floats


def sequence_bins(real: Records) -> SequenceBins:
    """The quartiles of the real records."""
    row = np.flatnonzero(~np.isnan(real.value))
    keys, place = np.unique(_number_keys(real)[row], return_inverse=True)
    order = np.argsort(place, kind="stable")
    parts = np.split(real.value[row][order].astype(np.float64), np.searchsorted(place[order], np.arange(1, len(keys))))
    quartiles = (0.25, 0.5, 0.75)
    edges = [np.quantile(part, quartiles) for part in parts] if len(keys) else []
    steps = real.steps
    gaps = np.diff(steps.time_us)[steps.subject[1:] == steps.subject[:-1]]
    return SequenceBins(
        keys, np.array(edges).reshape(len(keys), 3), np.quantile(gaps, quartiles) if len(gaps) else np.zeros(3)
    )


def _number_keys(records: Records) -> Ints:
    return records.code * 2**20 + records.unit


def sequence_features(records: Records, bins: SequenceBins) -> sparse.csr_array:
    """Hashed counts of runs of 1 to 3 events in the order of time, (subjects, `NUM_BUCKETS`), as log(1 + n).

    An event counts by its code, the real quartile of its number, and, at the first of a time, the real quartile of the
    gap before it. Events of one time stand in the order of their codes, so that their order says nothing; static facts
    come first, birth is left out. Each row has length 1.

    Args:
        records: Of any side.
        bins: Decided on the real side.
    """
    names = records.vocabulary.names
    rows = np.flatnonzero(records.code != records.vocabulary.codes.get(BIRTH, -1))
    subject, time = records.subject[rows], records.time_us[rows]
    is_new = np.ones(len(rows), bool)
    is_new[1:] = (subject[1:] != subject[:-1]) | (time[1:] != time[:-1])
    number_bin = _number_bins(records, bins)[rows]
    order = np.argsort((np.cumsum(is_new) * len(names) + records.code[rows]) * 8 + number_bin, kind="stable")
    code_hash = np.array([_text_hash(name) for name in names], np.uint64)
    gap_bin = _gap_bins(subject, time, is_new, bins.gap_edges)
    token = code_hash[records.code[rows][order]]
    for part in (number_bin[order], gap_bin):  # the gap belongs to the first place of a time, whoever stands there
        token = mix(token + part.astype(np.uint64) + np.uint64(1))
    matrix = _count_ngrams(subject, token, records.num_subjects)
    matrix.data = np.log1p(matrix.data)
    length = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    matrix.data /= np.repeat(np.where(length > 0, length, 1), np.diff(matrix.indptr))
    return matrix


def _number_bins(records: Records, bins: SequenceBins) -> Ints:
    """0: no number; 1 to 4: quartile; 5: real subjects have no such number. (events,)."""
    found = np.zeros(len(records.value), np.int64)
    row = np.flatnonzero(~np.isnan(records.value))
    key = _number_keys(records)[row]
    found[row] = 5
    is_known = np.isin(key, bins.keys)
    row, key = row[is_known], key[is_known]
    edges = bins.edges[np.searchsorted(bins.keys, key)]
    found[row] = 1 + (records.value[row][:, None] > edges).sum(axis=1)
    return found


def _gap_bins(subject: Ints, time: Ints, is_new: NDArray[np.bool_], edges: Floats) -> Ints:
    """0: static; 1: the same time as the event before; 2: the first time of a subject; 3 to 6: quartile. (events,)."""
    found = np.ones(len(time), np.int64)
    found[time == UNDATED] = 0
    start = np.flatnonzero(is_new & (time != UNDATED))
    before = np.r_[start[:0], start[:-1]]
    has_before = np.zeros(len(start), bool)
    has_before[1:] = subject[start[1:]] == subject[before]
    found[start] = 2
    gap = time[start[has_before]] - time[start[np.flatnonzero(has_before) - 1]]
    found[start[has_before]] = 3 + (gap[:, None] > edges).sum(axis=1)
    return found


def _count_ngrams(subject: Ints, token: Hashes, num_subjects: int) -> sparse.csr_array:
    rows, columns, run = [], [], token
    for length in NGRAM_LENGTHS:
        if length > 1:
            run = mix(run[:-1] * GOLDEN + token[length - 1 :])
        whole = subject[length - 1 :] == subject[: max(len(subject) - length + 1, 0)]
        rows.append(subject[length - 1 :][whole])
        columns.append((run[whole] >> np.uint64(64 - HASH_BITS)).astype(np.int64))
    index = np.concatenate(rows), np.concatenate(columns)
    shape = num_subjects, NUM_BUCKETS
    return sparse.csr_array(sparse.coo_array((np.ones(len(index[0])), index), shape=shape))


def _text_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
