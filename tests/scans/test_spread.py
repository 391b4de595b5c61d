from __future__ import annotations

import pytest
import torch
from scipy import stats

from medtwin.scans.spread import Spread, _maximised, measure_spread

RANK, COUNT = 6, 240


def scores_under(present: torch.Tensor, spreads: dict[int, torch.Tensor], seed: int = 0) -> torch.Tensor:
    """Standard normal scores, wider along a direction where a finding is present."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(len(present), RANK, generator=g)
    for finding, direction in spreads.items():
        amount = torch.randn(len(present), 1, generator=g) * present[:, finding : finding + 1]
        scores = scores + amount * direction
    return scores


@pytest.fixture
def present() -> torch.Tensor:
    g = torch.Generator().manual_seed(7)
    return (torch.rand(COUNT, 2, generator=g) < 0.3).float()


def test_finds_what_a_finding_adds_and_nothing_of_one_that_adds_nothing(present: torch.Tensor) -> None:
    direction = torch.zeros(RANK)
    direction[1], direction[2] = 3.0, -4.0
    found = measure_spread(scores_under(present, {0: direction}), present)
    values, vectors = torch.linalg.eigh(found.findings[0])
    along = vectors[:, -1] @ direction.double() / 5
    assert abs(float(along)) > 0.98
    assert 12 < float(values[-1]) <= 30  # 25, shrunk
    assert float(found.findings[1].diagonal().sum()) < 0.1 * float(values[-1])
    assert torch.linalg.eigvalsh(found.base).min() > 0


def test_two_findings_at_once_add_up(present: torch.Tensor) -> None:
    one, other = 5 * torch.eye(RANK)[0], 5 * torch.eye(RANK)[3]
    found = measure_spread(scores_under(present, {0: one, 1: other}), present)
    both = found.at(torch.ones(1, 2))[0]
    assert torch.allclose(both, found.base + found.findings.sum(dim=0))
    for axis in (0, 3):
        assert float(both[axis, axis]) > 4 * float(found.base[axis, axis])


def test_findings_without_effect_change_little() -> None:
    """The negative control: labels in random order."""
    g = torch.Generator().manual_seed(11)
    present = (torch.rand(COUNT, 2, generator=g) < 0.3).float()
    direction = 5 * torch.eye(RANK)[1]
    scores = scores_under(present, {0: direction})
    true = measure_spread(scores, present)
    shuffled = measure_spread(scores, present[torch.randperm(COUNT, generator=g)])
    added = [float(found.findings.diagonal(dim1=1, dim2=2).sum()) for found in (true, shuffled)]
    assert added[1] < 0.2 * added[0]


def test_a_finding_adds_a_direction_for_every_four_of_its_images() -> None:
    present = torch.zeros(COUNT, 1)
    present[:9] = 1
    scores = scores_under(present, {0: 9 * torch.ones(RANK)})
    found = measure_spread(scores, present)
    assert int((torch.linalg.eigvalsh(found.findings[0]) > 1e-6).sum()) <= 2


def test_likelihood_does_not_fall_short_of_the_truth(present: torch.Tensor) -> None:
    """An independent reference: the Gaussian log likelihood of scipy, of the fit against the covariances drawn from."""
    direction = 4 * torch.eye(RANK)[2]
    scores = scores_under(present, {1: direction}).double()
    pooled = scores.T @ scores / len(scores)
    fit = _maximised(scores, present.double(), pooled)
    truth = Spread(
        torch.eye(RANK).double(), torch.stack([torch.zeros(RANK, RANK), torch.outer(direction, direction)]).double()
    )

    def likelihood(spread: Spread) -> float:
        at = spread.at(present).numpy()
        return sum(
            stats.multivariate_normal.logpdf(row, cov=covariance)
            for row, covariance in zip(scores.numpy(), at, strict=True)
        )

    assert likelihood(fit) > likelihood(truth) - 1.0
    assert likelihood(fit) > likelihood(Spread(pooled, torch.zeros_like(truth.findings))) + 20


@pytest.mark.parametrize("num_findings", [0, 2])
def test_no_findings_or_none_that_differ_leave_the_covariance_of_all(num_findings: int) -> None:
    scores = torch.randn(40, RANK, generator=torch.Generator().manual_seed(2))
    found = measure_spread(scores, torch.ones(40, num_findings))
    assert torch.allclose(found.base, (scores.T @ scores / 40).double(), atol=1e-4)
    assert float(found.findings.abs().sum()) == 0
