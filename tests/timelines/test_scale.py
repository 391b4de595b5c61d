"""Large vocabularies and long records, by configuration: what a step of training then takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

LIMIT_GIB = 1.5
STEP = """
import resource
import numpy as np
import torch
from medtwin.timelines.reading.batches import collate
from medtwin.timelines.reading.gaps import GapLaw
from medtwin.timelines.network.net import TemporalVAE
from medtwin.timelines.reading.sequences import Sequences

torch.set_num_threads(1)
torch.manual_seed(0)
num_codes, num_events, num_steps = 20_000, 2048, 256
rng = np.random.default_rng(0)
sizes = np.full(num_steps, num_events // num_steps)
sizes[0] = num_events - sizes[1:].sum()
token = np.concatenate([np.sort(rng.choice(num_codes, size, replace=False)) for size in sizes])
minute = np.concatenate([[0], np.sort(rng.integers(0, 10**6, num_steps - 1))])
minute[:2] = 0
zeros, one = np.zeros(num_events, np.float32), np.zeros(1, np.int64)
record = Sequences(
    token=token.astype(np.int32), value=rng.normal(size=num_events).astype(np.float32), half_width=zeros,
    has_value=rng.random(num_events) < 0.5, memory=np.zeros((num_events, 3), np.float32),
    is_first=np.ones(num_events, bool), event_offsets=np.concatenate([[0], np.cumsum(sizes)]), minute=minute,
    open_minutes=np.zeros(num_steps, np.float32), step_offsets=np.array([0, num_steps]), sex=one,
    age_start_years=np.array([50.0]), start_minute=one, window_minutes=np.array([10**6]),
    facts=np.zeros((1, 4), np.uint8), is_cut=np.zeros(1, bool), subject_id=one,
)
gaps = GapLaw((), (), 1)
names = {"num_codes": num_codes, "num_ancestors": num_codes, "num_types": 10, "num_gap_classes": gaps.num_classes}
net = TemporalVAE(sizes={**names, "num_sexes": 3, "num_facts": 4}, width=64)
codes = net.codes
codes.type_of.copy_(torch.arange(num_codes) // (num_codes // 10))
codes.root_of.copy_(torch.arange(num_codes))
codes.is_root.fill_(True)
codes.type_bounds.copy_(torch.searchsorted(codes.type_of, torch.arange(11)))
optimizer = torch.optim.AdamW(net.parameters())
batch = collate(record, gaps)
read = net.read(batch)
posterior = net.encode(batch, read)
z = posterior.sample()
loss = posterior.kl().sum() - net.log_prob(batch, read, net.decode(batch, read, z), z).total().sum()
(loss + net.bag_of_codes_loss(batch, z).sum()).backward()
optimizer.step()
assert torch.isfinite(loss)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_twenty_thousand_codes_and_two_thousand_events_train_within_the_memory_stated() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < LIMIT_GIB
