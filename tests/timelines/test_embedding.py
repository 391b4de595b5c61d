from __future__ import annotations

import numpy as np
import torch

from medtwin.timelines.generation.generate import TimelineModel
from medtwin.timelines.network.embedding import LEDGER, EventEmbedding, Ledger, running
from medtwin.timelines.reading.batches import collate
from medtwin.timelines.reading.sequences import Sequences


def test_running_sums_leave_out_the_event_itself() -> None:
    x = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    first, before = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([0, 1, 3, 2, 4])
    assert running(x, first, before)[:, 0].tolist() == [0, 1, 7, 0, 12]
    assert running(x[:0], torch.tensor([0]), torch.tensor([0])).tolist() == [[0.0]]


def test_running_sums_of_long_records_keep_their_digits() -> None:
    x = torch.full((200_000, 1), 0.1)
    assert abs(float(running(x, torch.tensor([199_990]), torch.tensor([200_000]))) - 1.0) < 1e-5


def test_tokens_of_one_ancestor_share_what_they_learn_and_a_missing_number_says_nothing() -> None:
    torch.manual_seed(0)
    embedding = EventEmbedding(4, 3, 2, 8)
    embedding.ancestor_of.copy_(torch.tensor([0, 0, 1, 2]))
    embedding.type_of.copy_(torch.tensor([0, 0, 0, 1]))
    tokens, no = torch.arange(4), torch.zeros(4, dtype=torch.bool)
    before = embedding.name(tokens).detach()
    with torch.no_grad():
        embedding.ancestor.weight[0] += 1.0
    moved = (embedding.name(tokens) - before).abs().amax(dim=1) > 0.5
    assert moved.tolist() == [True, True, False, False]
    assert torch.equal(embedding(tokens, torch.full((4,), 3.0), no), embedding(tokens, torch.zeros(4), no))
    assert torch.allclose(embedding(tokens, torch.zeros(4), no), embedding.name(tokens))
    yes = ~no
    assert not torch.allclose(embedding(tokens, torch.zeros(4), yes), embedding(tokens, torch.ones(4), yes))
    assert not torch.allclose(embedding(tokens, torch.zeros(4), yes), embedding(tokens, torch.zeros(4), no))


def test_the_ledger_holds_the_latest_number_of_every_token(short_model: TimelineModel, short: Sequences) -> None:
    """The second half of the ledger after a record is the sum over tokens of axis times latest number."""
    ledger, num = short_model.net.ledger, len(short_model.spec.vocabulary)
    one = short.take(np.array([6]))
    batch = collate(one, short_model.spec.gaps)
    names = ("event_token", "event_value", "event_has_value", "event_memory", "event_is_first")
    with torch.no_grad():
        total = ledger(*(batch[name] for name in names)).sum(dim=0)
        latest = np.zeros(num)
        for token, value, flag in zip(one.token, one.value, one.has_value, strict=True):
            latest[token] = value if flag else latest[token]
        wanted = torch.from_numpy(latest).float() @ ledger.latest.weight
        said = ledger.said(torch.from_numpy(np.unique(one.token).astype(np.int64))).sum(dim=0)
    assert torch.allclose(total[LEDGER:], wanted, atol=1e-4)
    assert torch.allclose(total[:LEDGER], said, atol=1e-4)


def test_a_change_of_a_ledger_is_bounded() -> None:
    ledger = Ledger(1)
    yes = torch.ones(1, dtype=torch.bool)
    wild, tame = (ledger(torch.tensor([0]), torch.tensor([value]), yes, torch.zeros(1, 3), yes) for value in (1e6, 8.0))
    assert torch.equal(wild, tame)
