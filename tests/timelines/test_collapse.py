from __future__ import annotations

import numpy as np
import pytest
import torch

from medtwin.timelines.generation.generate import TimelineModel
from medtwin.timelines.reading.batches import GroupedTimelines
from medtwin.timelines.reading.data import TimelineDataModule
from medtwin.timelines.reading.sequences import Sequences
from medtwin.timelines.training.collapse import Collapse, LatentUse
from medtwin.timelines.training.sample_metrics import SampleMetrics, sample_metrics
from medtwin.training.callbacks import TrainingError

TELLING = (torch.tensor([[0.5, 0.0], [0.7, 0.0]]), torch.tensor([[-1.0, 0.01], [1.0, 0.01]]), torch.tensor([2.0, 4.0]))
SILENT = (torch.zeros(2, 2), torch.tensor([[0.05, 0.0], [-0.05, 0.0]]), torch.zeros(2))


def test_use_is_measured_by_dimension() -> None:
    use = LatentUse.of([TELLING])
    assert use.kl.tolist() == pytest.approx([0.6, 0.0])
    assert use.is_active.tolist() == [True, False]
    assert (use.num_active, use.swap_gap) == (1, 3.0)


def test_a_silent_latent_stops_the_run_with_a_reason_and_a_telling_one_does_not() -> None:
    Collapse(after_steps=10).judge(LatentUse.of([TELLING]), 10)
    with pytest.raises(TrainingError, match=r"collapsed: 0 of 2 dimensions are active at step 10"):
        Collapse(after_steps=10).judge(LatentUse.of([SILENT]), 10)


def test_it_is_not_judged_too_early_nor_where_nothing_is_demanded() -> None:
    Collapse(after_steps=10).judge(LatentUse.of([SILENT]), 9)
    Collapse(after_steps=0, min_active_units=0).judge(LatentUse.of([SILENT]), 10)


@pytest.mark.parametrize("name", ["after_steps", "min_active_units"])
def test_refuses_negative_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be 0 or more"):
        Collapse(**{name: -1})
    with pytest.raises(ValueError, match="every must be 1 or more"):
        SampleMetrics(every=0)


def test_records_of_an_untrained_net_are_told_from_real_ones_and_the_net_is_left_alone(
    short_model: TimelineModel, short: Sequences
) -> None:
    data = TimelineDataModule()
    data.spec, data.train = short_model.spec, GroupedTimelines(short, short_model.spec.gaps, 1024, 0)
    net = short_model.net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = sample_metrics(net, data, 8)
    assert net.training
    net.eval()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert set(found) == {"sample/prevalence_error", "sample/length_log_ratio", "sample/masked"}
    assert np.isfinite(list(found.values())).all()
    assert found["sample/prevalence_error"] > 0.05
