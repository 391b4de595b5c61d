from __future__ import annotations

import numpy as np

from medtwin.check.copies import Tokens, is_among, longest_runs, run_hashes


def tokens(*records: list[int]) -> Tokens:
    token = np.array([one for record in records for one in record], np.uint64)
    subject = np.repeat(np.arange(len(records)), [len(record) for record in records])
    return Tokens(token * np.uint64(0x9E3779B97F4A7C15), subject, len(records))


def test_runs_hash_equal_where_and_only_where_the_tokens_are_equal() -> None:
    rng = np.random.default_rng(0)
    records = [rng.integers(0, 3, size).tolist() for size in (40, 7, 33)]
    for length in (1, 2, 5, 8):
        found, whose = run_hashes(tokens(*records), length)
        spelled = [
            (tuple(record[i : i + length]), number)
            for number, record in enumerate(records)
            for i in range(len(record) - length + 1)
        ]
        assert whose.tolist() == [number for _, number in spelled]
        names: dict[tuple[int, ...], int] = {}
        for value, (run, _) in zip(found.tolist(), spelled, strict=True):
            assert names.setdefault(run, value) == value
        assert len(set(names.values())) == len(names)


def test_membership_agrees_with_numpy() -> None:
    rng = np.random.default_rng(1)
    theirs = rng.integers(0, 2**64, 5_000, dtype=np.uint64)
    mine = np.r_[rng.integers(0, 2**64, 4_000, dtype=np.uint64), rng.choice(theirs, 500), theirs[:1] + np.uint64(1)]
    np.testing.assert_array_equal(is_among(mine, theirs), np.isin(mine, theirs))
    none = np.zeros(0, np.uint64)
    assert is_among(none, theirs).tolist() == []
    assert not is_among(mine, none).any()


def test_the_longest_shared_run_is_found_at_any_place() -> None:
    shared = list(range(100, 140))
    mine = tokens([1, 2, *shared[:9], 3], [*shared[:30], 4], [7, 8, 9, 10, 11, 12])
    theirs = tokens([5, 6, 7, *shared], [8, 9])
    assert longest_runs(mine, theirs).tolist() == [8, 23, 0]  # lengths that are looked for, rounded down
