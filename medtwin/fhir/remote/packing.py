"""Which resources go in one request, and in what order, so that no reference ever points at what is not there yet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from medtwin.core.errors import ConfigError
from medtwin.fhir.remote.settings import ServerSettings
from medtwin.fhir.remote.store import Line

# What stands around the resources of a request, and around each of them, generously.
_FRAME_BYTES = 100
_ENTRY_BYTES = 120
# What a changed reference and an added identifier may take.
_REFERENCE_BYTES = 80
_IDENTIFIER_BYTES = 200
# A batch is filled from this many times its size, so that its levels fill theirs.
_WINDOW = 4


@dataclass(frozen=True)
class Parcel:
    """The resources of one request.

    Attributes:
        lines: In the order in which they are sent.
    """

    lines: tuple[Line, ...]

    def __len__(self) -> int:
        return len(self.lines)

    @cached_property
    def digest(self) -> str:
        """Names the content: sha256 over the resources in their order."""
        digest = hashlib.sha256()
        for line in self.lines:
            digest.update(line.data)
            digest.update(b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class Packing:
    """The limits of a request.

    Attributes:
        max_entries, max_bytes: Of one request.
        is_batch: Whether the server may do the entries of a request in any order.
        is_ordered: Whether what is referred to must be there, or in the same transaction.
        base_length: Characters of the server's base, which stands in every entry.
        is_rewritten: Whether references and identifiers are changed before sending.
    """

    max_entries: int
    max_bytes: int
    is_batch: bool = False
    is_ordered: bool = True
    base_length: int = 0
    is_rewritten: bool = False

    @classmethod
    def of(cls, chosen: ServerSettings) -> Packing:
        """The limits of a server by its settings."""
        is_rewritten = chosen.write == "if_none_exist"
        return cls(
            chosen.entries,
            chosen.max_bytes,
            is_batch=chosen.bundle == "batch",
            # Without ids of our own, a reference can only be written once the server has given its target an id.
            is_ordered=chosen.integrity or is_rewritten,
            base_length=len(chosen.base()),
            is_rewritten=is_rewritten,
        )

    def size(self, line: Line) -> int:
        """Bytes that a resource takes in a request, at most."""
        size = len(line.data) + _ENTRY_BYTES + self.base_length + 2 * len(line.key)
        if self.is_rewritten:
            size += _IDENTIFIER_BYTES + _REFERENCE_BYTES * line.data.count(b'"reference"')
        return size

    def fits(self, lines: Sequence[Line]) -> bool:
        """Whether the resources fit in one request."""
        return len(lines) <= self.max_entries and _FRAME_BYTES + sum(map(self.size, lines)) <= self.max_bytes


def pack(groups: Iterable[list[Line]], packing: Packing) -> Iterator[list[Parcel]]:
    """Chains of parcels: those of a chain are sent one after the other, different chains in any order.

    Small subjects share a parcel, whole; one that is larger than a request is a chain of its own, what is referred to
    first. What a group refers to outside itself must be on the server already.

    Args:
        groups: The resources of each subject.
        packing: The limits.

    Raises:
        ConfigError: If resources that refer to each other in a ring do not fit in one request.
    """
    if packing.is_batch and packing.is_ordered:
        yield from _pack_levels(groups, packing)
        return
    waiting: list[Line] = []
    num_bytes = _FRAME_BYTES
    for group in groups:
        size = sum(map(packing.size, group))
        if waiting and (len(waiting) + len(group) > packing.max_entries or num_bytes + size > packing.max_bytes):
            yield [Parcel(tuple(waiting))]
            waiting, num_bytes = [], _FRAME_BYTES
        if packing.fits(group):
            waiting += group
            num_bytes += size
        else:
            yield _fill(rings(group) if packing.is_ordered else [[line] for line in group], packing)
    if waiting:
        yield [Parcel(tuple(waiting))]


def _fill(rings_in_order: Iterable[list[Line]], packing: Packing) -> list[Parcel]:
    """Parcels filled in order, no ring of references divided."""
    parcels: list[Parcel] = []
    waiting: list[Line] = []
    num_bytes = _FRAME_BYTES
    for ring in rings_in_order:
        if len(ring) > 1 and not packing.fits(ring):
            kinds = ", ".join(sorted({line.type for line in ring}))
            raise ConfigError(
                f"{len(ring)} resources refer to each other in a ring ({kinds}), and one request holds at most "
                f"{packing.max_entries} entries and {packing.max_bytes:,} bytes: raise server.max_entries or max_bytes "
                "if the server takes more, or set server.integrity=false if it does not check references"
            )
        size = sum(map(packing.size, ring))
        if waiting and (len(waiting) + len(ring) > packing.max_entries or num_bytes + size > packing.max_bytes):
            parcels.append(Parcel(tuple(waiting)))
            waiting, num_bytes = [], _FRAME_BYTES
        waiting += ring
        num_bytes += size
    if waiting:
        parcels.append(Parcel(tuple(waiting)))
    return parcels


def _pack_levels(groups: Iterable[list[Line]], packing: Packing) -> Iterator[list[Parcel]]:
    """Batches without references inside: of some subjects what refers to nothing, then what refers to that, ..."""
    window: list[list[Line]] = []
    for group in groups:
        window.append(group)
        if sum(map(len, window)) >= _WINDOW * packing.max_entries:
            yield _levels(window, packing)
            window = []
    if window:
        yield _levels(window, packing)


def _levels(window: list[list[Line]], packing: Packing) -> list[Parcel]:
    by_level: dict[int, list[Line]] = {}
    for group in window:
        level: dict[str, int] = {}
        for ring in rings(group):
            if len(ring) > 1:
                kinds = ", ".join(sorted({line.type for line in ring}))
                raise ConfigError(
                    f"resources refer to each other in a ring ({kinds}), which a batch cannot bring in: use "
                    "server.bundle=transaction, or server.integrity=false if the server does not check references"
                )
            (line,) = ring
            level[line.key] = 1 + max((level.get(target, -1) for target in line.targets), default=-1)
            by_level.setdefault(level[line.key], []).append(line)
    return [parcel for number in sorted(by_level) for parcel in _fill(([line] for line in by_level[number]), packing)]


def halve(parcel: Parcel, packing: Packing) -> tuple[Parcel, Parcel] | None:
    """Two parcels of about the same size, what is referred to in the first; None where it cannot be divided."""
    parts = rings(list(parcel.lines)) if packing.is_ordered else [[line] for line in parcel.lines]
    if len(parts) < 2:
        return None
    sizes = [sum(map(packing.size, part)) for part in parts]
    half, done, cut = sum(sizes) / 2, 0, 0
    while cut < len(parts) - 1 and (cut == 0 or done + sizes[cut] / 2 <= half):
        done += sizes[cut]
        cut += 1
    first, second = ([line for part in some for line in part] for some in (parts[:cut], parts[cut:]))
    return Parcel(tuple(first)), Parcel(tuple(second))


def rings(lines: Sequence[Line]) -> list[list[Line]]:
    """The resources in an order in which each comes after what it refers to; those that refer to each other together.

    The strongly connected components of the references among them, as Tarjan's algorithm gives them, without recursion.

    Source: Tarjan 1972, "Depth-first search and linear graph algorithms".
    """
    numbers = {line.key: number for number, line in enumerate(lines)}
    targets = [[numbers[key] for key in line.targets if key in numbers] for line in lines]
    index = [-1] * len(lines)
    low = [0] * len(lines)
    is_open = [False] * len(lines)
    stack: list[int] = []
    found: list[list[Line]] = []
    counter = 0
    for root in range(len(lines)):
        if index[root] >= 0:
            continue
        path: list[tuple[int, Iterator[int]]] = []
        enter = root
        while True:
            if enter >= 0:
                index[enter] = low[enter] = counter
                counter += 1
                stack.append(enter)
                is_open[enter] = True
                path.append((enter, iter(targets[enter])))
            node, rest = path[-1]
            enter = _next_target(node, rest, index, low, is_open)
            if enter >= 0:
                continue
            path.pop()
            if path:
                low[path[-1][0]] = min(low[path[-1][0]], low[node])
            if low[node] == index[node]:
                found.append([lines[number] for number in _close(node, stack, is_open)])
            if not path:
                break
    return found


def _next_target(node: int, rest: Iterator[int], index: list[int], low: list[int], is_open: list[bool]) -> int:
    """The next resource that has not been visited; -1 when there is none."""
    for target in rest:
        if index[target] < 0:
            return target
        if is_open[target]:
            low[node] = min(low[node], index[target])
    return -1


def _close(node: int, stack: list[int], is_open: list[bool]) -> list[int]:
    start = stack.index(node) if len(stack) < 8 else len(stack) - 1 - stack[::-1].index(node)
    ring = sorted(stack[start:])
    for number in ring:
        is_open[number] = False
    del stack[start:]
    return ring
