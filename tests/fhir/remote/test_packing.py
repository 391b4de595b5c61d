from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtwin.core.errors import ConfigError
from medtwin.fhir.remote.packing import Packing, Parcel, halve, pack, rings
from medtwin.fhir.remote.store import Line


def line(key: str, *targets: str, size: int = 0) -> Line:
    refs = ",".join(f'{{"reference":"{target}"}}' for target in targets)
    kind, _, name = key.partition("/")
    return Line(key, f'{{"resourceType":"{kind}","id":"{name}","pad":"{"x" * size}","r":[{refs}]}}'.encode())


def keys(parcel: Parcel) -> list[str]:
    return [each.key for each in parcel.lines]


PATIENT, STAY = "Patient/p", "Encounter/e"


def test_order_puts_what_is_referred_to_first() -> None:
    lines = [line("Observation/o", PATIENT, STAY), line(STAY, PATIENT), line(PATIENT)]
    assert [[each.key for each in ring] for ring in rings(lines)] == [[PATIENT], [STAY], ["Observation/o"]]


def test_a_ring_stays_together() -> None:
    lines = [line(STAY, "Condition/c", PATIENT), line("Condition/c", STAY), line(PATIENT), line("Condition/d", STAY)]
    found = [[each.key for each in ring] for ring in rings(lines)]
    assert found == [[PATIENT], [STAY, "Condition/c"], ["Condition/d"]]


def test_a_long_chain_needs_no_recursion() -> None:
    lines = [line(f"Encounter/{n}", f"Encounter/{n + 1}") for n in range(5000)] + [line("Encounter/5000")]
    assert [ring[0].key for ring in rings(lines)] == [f"Encounter/{n}" for n in range(5000, -1, -1)]


def test_small_subjects_share_a_parcel_whole() -> None:
    groups = [[line(f"Patient/{n}"), line(f"Condition/{n}", f"Patient/{n}")] for n in range(5)]
    chains = list(pack(groups, Packing(max_entries=5, max_bytes=10_000)))
    assert [len(chain) for chain in chains] == [1, 1, 1]
    assert keys(chains[0][0]) == ["Patient/0", "Condition/0", "Patient/1", "Condition/1"]


def test_bytes_count_too() -> None:
    groups = [[line(f"Patient/{n}", size=1000)] for n in range(4)]
    packing = Packing(max_entries=100, max_bytes=2700)
    assert [len(chain[0]) for chain in pack(groups, packing)] == [2, 2]


def test_a_large_subject_is_a_chain_in_order() -> None:
    group = [line(f"Observation/{n}", PATIENT, STAY) for n in range(7)] + [line(STAY, PATIENT), line(PATIENT)]
    (chain,) = pack([group], Packing(max_entries=4, max_bytes=10_000))
    assert [len(parcel) for parcel in chain] == [4, 4, 1]
    assert keys(chain[0])[:2] == [PATIENT, STAY]


def test_a_ring_larger_than_a_request_is_refused_unless_nobody_checks() -> None:
    causes = [line(f"Condition/{n}", STAY) for n in range(9)]
    group = [line(STAY, *(each.key for each in causes)), *causes]
    with pytest.raises(ConfigError, match=r"10 resources refer to each other in a ring \(Condition, Encounter\)"):
        list(pack([group], Packing(max_entries=8, max_bytes=10_000)))
    (chain,) = pack([group], Packing(max_entries=8, max_bytes=10_000, is_ordered=False))
    assert [len(parcel) for parcel in chain] == [8, 2]


def test_a_batch_has_no_references_inside() -> None:
    groups = [
        [line(f"Patient/{n}"), line(f"Encounter/{n}", f"Patient/{n}"), line(f"Observation/{n}", f"Encounter/{n}")]
        for n in range(10)
    ]
    chains = list(pack(groups, Packing(max_entries=4, max_bytes=10_000, is_batch=True)))
    for parcel in itertools.chain(*chains):
        inside = set(keys(parcel))
        assert not any(target in inside for each in parcel.lines for target in each.targets)
    assert sum(len(parcel) for chain in chains for parcel in chain) == 30


def test_a_batch_cannot_bring_in_a_ring() -> None:
    group = [line(STAY, "Condition/c"), line("Condition/c", STAY)]
    with pytest.raises(ConfigError, match=r"use server\.bundle=transaction"):
        list(pack([group], Packing(max_entries=4, max_bytes=10_000, is_batch=True)))


def test_halves_keep_order_and_rings() -> None:
    lines = [line(STAY, "Condition/c"), line("Condition/c", STAY), line(PATIENT), line("Observation/o", STAY)]
    halves = halve(Parcel(tuple(lines)), Packing(max_entries=100, max_bytes=10_000))
    assert halves is not None
    first, second = halves
    together = [set(keys(first)), set(keys(second))]
    assert any({STAY, "Condition/c"} <= part for part in together)
    assert sum(map(len, halves)) == 4
    assert halve(Parcel(tuple(lines[:2])), Packing(max_entries=100, max_bytes=10_000)) is None


def test_a_parcel_is_named_by_its_content() -> None:
    one, two = line("Patient/1"), line("Patient/2")
    assert Parcel((one, two)).digest == Parcel((one, two)).digest != Parcel((two, one)).digest


@st.composite
def groups_of_lines(draw: st.DrawFn) -> list[list[Line]]:
    """Subjects whose resources refer to earlier ones of their own, so that no ring arises."""
    groups = []
    for subject in range(draw(st.integers(1, 6))):
        number = draw(st.integers(1, 15))
        lines = []
        for place in range(number):
            targets = draw(st.sets(st.integers(0, place - 1), max_size=3)) if place else set()
            named = [f"Observation/{subject}-{target}" for target in sorted(targets)]
            lines.append(line(f"Observation/{subject}-{place}", *named, size=draw(st.integers(0, 300))))
        groups.append(draw(st.permutations(lines)))
    return groups


@given(groups_of_lines(), st.integers(1, 10), st.booleans())
def test_every_resource_goes_once_after_its_targets_within_the_limits(
    groups: list[list[Line]], max_entries: int, is_batch: bool
) -> None:
    packing = Packing(max_entries=max_entries, max_bytes=2_000, is_batch=is_batch)
    chains = list(pack(groups, packing))
    sent = [each.key for chain in chains for parcel in chain for each in parcel.lines]
    assert sorted(sent) == sorted(each.key for group in groups for each in group)
    for chain in chains:
        there: set[str] = set()
        for parcel in chain:
            assert packing.fits(parcel.lines) or len(parcel) == 1
            there |= set() if is_batch else set(keys(parcel))
            assert all(target in there for each in parcel.lines for target in each.targets)
            there |= set(keys(parcel))
