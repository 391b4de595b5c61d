from __future__ import annotations

import numpy as np
import pytest

from medtwin.check.collapse.ngrams import Ngrams
from medtwin.check.collapse.perplexity import entropy
from medtwin.check.collapse.tokens import END, FIRST_EVENT, NUM_BANDS, START, Coder, Sequences, with_starts
from medtwin.check.records import UNDATED, US_PER_HOUR, Records, Vocabulary

A, B = FIRST_EVENT, FIRST_EVENT + 1


def of(*subjects: list[int]) -> Sequences:
    token = [token for one in subjects for token in [*one, END]]
    subject = [number for number, one in enumerate(subjects) for _ in range(len(one) + 1)]
    return Sequences(np.array(token), np.array(subject), len(subjects))


def test_costs_are_those_of_witten_and_bell_by_hand() -> None:
    grams = Ngrams.of([of([A, A], [A, B])])
    assert grams.num_tokens == 4  # the start, which the uniform law below counts, the end, A, B
    costs = grams.costs(grams.counts(0))
    # Six tokens: A A end, A B end. Of single tokens, three kinds were seen: (3 + 3 / 4) / (6 + 3) of A.
    a, b = (3 + 3 / 4) / 9, (1 + 3 / 4) / 9
    # After A: A, B, end, once each, of three kinds. After start, A: A and B, once each, of two kinds.
    b_after_a = (1 + 3 * b) / 6
    expected = (1 + 2 * b_after_a) / 4
    assert np.isclose(np.exp(-costs), expected).sum() == 1
    first = (2 + 1 * (2 + 1 * a) / 3) / 3  # A after two starts, which nothing else follows
    assert np.isclose(np.exp(-costs), first).sum() == 1


def test_what_a_model_says_of_all_followers_of_a_context_sums_to_one() -> None:
    everything = [of([x, y, z]) for x in (A, B) for y in (A, B) for z in (START, END, A, B)]
    grams = Ngrams.of([of([A, A, B], [A, B, B], [B]), *everything])
    costs = grams.costs(grams.counts(0))
    followers = np.bincount(grams.context)
    sums = np.bincount(grams.context, np.exp(-costs))
    assert (followers == grams.num_tokens).sum() == 4  # (A, A), (A, B), (B, A), (B, B)
    assert sums[followers == grams.num_tokens] == pytest.approx(1)
    assert (sums[followers < grams.num_tokens] < 1).all()
    nothing = grams.costs(np.zeros_like(costs))
    assert nothing == pytest.approx(np.full(len(costs), np.log(grams.num_tokens)))


def test_a_record_is_said_in_order_of_time_and_alphabet_with_bands_of_numbers() -> None:
    names = Vocabulary({"X//b": 0, "X//a": 1, "SEX//F": 2})
    number = 100
    subject = np.repeat(np.arange(number), 4)
    time = np.tile([UNDATED, 0, 0, 24 * US_PER_HOUR], number)
    code = np.tile([2, 0, 1, 1], number)
    value = np.full(4 * number, np.nan, np.float32)
    value[1::4] = np.arange(number)
    zero = np.zeros(4 * number, np.int64)
    records = Records(names, np.arange(number), subject, time, code, zero, value, zero - 1)
    told = Coder.of(records).sequences(records)
    first = told.token[told.subject == 0]
    a, b, sex = (FIRST_EVENT + one * (NUM_BANDS + 1) for one in (1, 0, 2))
    assert first.tolist() == [sex, a, b + 1, first[3], a, END]
    assert 2 <= first[3] < FIRST_EVENT  # a gap of a day
    bands = told.token[(told.token > b) & (told.token <= b + NUM_BANDS)] - b
    assert np.bincount(bands)[1:].tolist() == [20] * NUM_BANDS
    rows = with_starts([told])[0]
    assert rows[0].tolist() == [0, 0, sex]
    assert rows[6].tolist() == [0, 0, sex]  # nothing of the subject before


def test_entropy_of_nothing_is_nothing() -> None:
    assert entropy(np.zeros(3)) == 0
    assert entropy(np.array([5.0, 0.0])) == 0
