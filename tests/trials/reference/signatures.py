"""Arguments of R functions: matched to a signature by name, by the start of a name, or by place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import plain

Arguments = dict[str, Any]
RFunction = Callable[[Arguments], Any]


def signature(**defaults: Any) -> Mapping[str, Any]:
    """A signature in order; an underscore in a name stands for a dot, two for an underscore."""
    return {name.replace("__", "\0").replace("_", ".").replace("\0", "_"): value for name, value in defaults.items()}


def bound(name: str, formal: Mapping[str, Any], function: RFunction) -> Callable[..., Any]:
    """A function of R's arguments.

    Args:
        name: For messages.
        formal: Its arguments in order, with defaults.
        function: Of the matched arguments.
    """

    def call(*args: Any, **named: Any) -> Any:
        return function(matched(name, formal, args, named))

    return call


def matched(name: str, formal: Mapping[str, Any], args: Sequence[Any], named: Mapping[str, Any]) -> Arguments:
    """The arguments by name, defaults filled in.

    Raises:
        NotCoveredError: If one is not in the signature.
    """
    found: Arguments = {}
    for key, value in named.items():
        full = _full_name(key, formal)
        if full is None:
            raise NotCoveredError(f"the argument {key} of {name}()")
        found[full] = simple(value)
    free = [key for key in formal if key not in found]
    if len(args) > len(free):
        raise NotCoveredError(f"{len(args)} unnamed arguments of {name}()")
    found.update(zip(free, map(simple, args), strict=False))
    return {**formal, **found}


def _full_name(key: str, formal: Mapping[str, Any]) -> str | None:
    if key in formal:
        return key
    starting = [each for each in formal if each.startswith(key)]
    return starting[0] if len(starting) == 1 else None


def simple(value: Any) -> Any:
    """A vector of one as a scalar, without names."""
    found = plain(value)
    if isinstance(found, np.ndarray) and found.ndim == 1 and len(found) == 1:
        return found[0].item()
    return found


def refuse(name: str, given: Arguments, formal: Mapping[str, Any], *unknown: str) -> None:
    """Raises for arguments that are not at their default and that medtwin has no counterpart of.

    Raises:
        NotCoveredError: Naming it.
    """
    for key in unknown:
        if not _same(given[key], formal[key]):
            raise NotCoveredError(f"{key}={given[key]!r} of {name}()")


def _same(one: Any, other: Any) -> bool:
    if is_missing(one) or is_missing(other):
        return is_missing(one) and is_missing(other)
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))


def is_missing(value: Any) -> bool:
    """Whether an argument is NULL or NA."""
    if value is None:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and bool(np.isnan(value).all())


def numbers(value: Any) -> list[float]:
    """A vector of numbers."""
    return [float(each) for each in np.atleast_1d(np.asarray(value, dtype=np.float64))]


def flags(value: Any, size: int) -> list[bool]:
    """Logical values, one of them repeated."""
    found = [bool(each) for each in np.atleast_1d(value)]
    return found * size if len(found) == 1 else found
