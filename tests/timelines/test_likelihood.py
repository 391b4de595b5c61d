from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from medtwin.timelines.batches import collate
from medtwin.timelines.likelihood import evidence_bounds
from medtwin.timelines.sequences import Sequences
from medtwin.timelines.spec import TimelineSpec
from tests.timelines.conftest import small_net


def test_the_bound_of_a_patient_is_the_one_of_the_definition(
    spec: TimelineSpec, sequences: Sequences, hospital_table: pa.Table
) -> None:
    net = small_net(spec)
    found = evidence_bounds(net, spec, hospital_table, seed=0)
    assert found.subject_id.tolist() == sequences.subject_id.tolist()
    assert found.num_positions.tolist() == sequences.lengths.tolist()
    with torch.inference_mode():
        batch = collate(sequences, [3], spec.gaps)
        posterior = net.encode(batch)
        draws = [posterior.sample() for _ in range(200)]
        bounds = [float(net.log_prob(batch, net.decode(batch, z), z).total() - posterior.kl().sum()) for z in draws]
    assert min(bounds) <= found.nats[3] <= max(bounds)


def test_a_bound_depends_on_the_seed_and_the_patient_only(spec: TimelineSpec, hospital_table: pa.Table) -> None:
    net = small_net(spec)
    everybody = evidence_bounds(net, spec, hospital_table, seed=0)
    few = pa.array(everybody.subject_id[5:8])
    some = evidence_bounds(
        net, spec, hospital_table.filter(pc.is_in(hospital_table["subject_id"], value_set=few)), seed=0
    )
    assert some.subject_id.tolist() == few.to_pylist()
    np.testing.assert_allclose(some.nats, everybody.nats[5:8], rtol=1e-5)
    assert not np.allclose(evidence_bounds(net, spec, hospital_table, seed=1).nats, everybody.nats, rtol=1e-7)


@pytest.mark.parametrize("rows", [0, 1])
def test_records_that_are_no_timeline_have_none(spec: TimelineSpec, hospital_table: pa.Table, rows: int) -> None:
    undated = hospital_table.filter(pc.is_null(hospital_table["time"])).slice(0, rows)
    assert len(evidence_bounds(small_net(spec), spec, undated, seed=0).nats) == 0
