"""Linkability: whether the twins join two parts of what is known of a person, held by two parties."""

from __future__ import annotations

import numpy as np

from medtwin.check.attack_rows import Attempts, Risk
from medtwin.check.attacks.risk import excess_risk
from medtwin.check.attacks.table import Bools, Ints, People, Scales, nearest
from medtwin.core.seeds import generator

TITLE = "Two parties that know different things of a patient find that it is the same one, by the twin nearest to both"
NUM_NEIGHBOURS = 1


def linkability(train: Bools, control: Bools, naive: Bools) -> Risk:
    """The risk that both halves of a person's attributes lead to the same twin.

    Args:
        train: Whether each person whom the twins were learned from was linked (`links`), (people,).
        control: The same of others of the same law.
        naive: Whether they were by chance (`blind_links`).
    """
    attempts = [Attempts(int(one.sum()), len(one)) for one in (train, control, naive)]
    return excess_risk("linkability", TITLE, attempts[0], attempts[1], naive=attempts[2])


def links(targets: People, synthetic: People, *, seed: int, num_neighbours: int = NUM_NEIGHBOURS) -> Bools:
    """Whether the halves of each target lead to a common twin, (targets,).

    The attributes are dealt into two halves; of each half the nearest twins are looked for, and where one of them is
    among both, the halves are linked.

    Args:
        targets: Whom to attack.
        synthetic: The twins.
        seed: Decides the halves: the same for all targets.
        num_neighbours: Twins that are looked at for each half.

    Source: Giomi et al. 2023, Proc Priv Enhanc Technol 2023(2):312, section 5.2.
    """
    order = generator(seed, "check", "attacks", "halves").permutation(len(synthetic.names)).tolist()
    found = []
    for part in (order[: len(order) // 2], order[len(order) // 2 :]):
        twins = synthetic.columns(part)
        found.append(nearest(targets.columns(part), twins, Scales.of(twins), num=num_neighbours))
    return _in_common(found[0], found[1])


def blind_links(num_targets: int, num_twins: int, *, seed: int, num_neighbours: int = NUM_NEIGHBOURS) -> Bools:
    """The same of twins that are picked blindly, (targets,)."""
    rng = generator(seed, "check", "attacks", "blind links")
    picked = rng.integers(num_twins, size=(2, num_targets, num_neighbours))
    return _in_common(picked[0], picked[1])


def _in_common(first: Ints, second: Ints) -> Bools:
    return np.asarray(np.any(first[:, :, None] == second[:, None, :], axis=(1, 2)))
