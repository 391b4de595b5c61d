from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from medtwin.timelines.generation.generate import TimelineModel
from medtwin.timelines.reading.batches import collate
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.training.likelihood import evidence_bounds
from tests.timelines.conftest import read_decoded


def test_the_bound_of_a_patient_is_the_one_of_the_definition(
    short_model: TimelineModel, short: Sequences, short_table: pa.Table
) -> None:
    net, spec = short_model.net, short_model.spec
    found = evidence_bounds(net, spec, short_table, seed=0)
    assert found.subject_id.tolist() == short.subject_id.tolist()
    assert found.num_positions.tolist() == short.lengths.tolist()
    with torch.inference_mode():
        batch = collate(short.take(np.array([3])), spec.gaps)
        posterior, generator = net.encode(batch), torch.Generator().manual_seed(0)
        bounds = []
        for _ in range(60):
            noise = torch.randn(posterior.mean.shape, generator=generator)
            z = posterior.mean + torch.exp(0.5 * posterior.log_var) * noise
            bounds.append(float(read_decoded(net, batch, z).total() - posterior.kl().sum()))
    assert np.std(bounds) < 0.1 * abs(np.mean(bounds))
    assert found.nats[3] == pytest.approx(np.mean(bounds), abs=4 * np.std(bounds))


def test_a_bound_depends_on_the_seed_and_the_patient_only(short_model: TimelineModel, short_table: pa.Table) -> None:
    net, spec = short_model.net, short_model.spec
    everybody = evidence_bounds(net, spec, short_table, seed=0)
    few = pa.array(everybody.subject_id[5:8])
    some = evidence_bounds(net, spec, short_table.filter(pc.is_in(short_table["subject_id"], value_set=few)), seed=0)
    assert some.subject_id.tolist() == few.to_pylist()
    np.testing.assert_allclose(some.nats, everybody.nats[5:8], rtol=1e-4)
    assert not np.allclose(evidence_bounds(net, spec, short_table, seed=1).nats, everybody.nats, rtol=1e-6)


@pytest.mark.parametrize("rows", [0, 1])
def test_records_that_are_no_timeline_have_none(short_model: TimelineModel, short_table: pa.Table, rows: int) -> None:
    undated = short_table.filter(pc.is_null(short_table["time"])).slice(0, rows)
    assert len(evidence_bounds(short_model.net, short_model.spec, undated, seed=0).nats) == 0
