"""Analyses of times to events in one trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.trials.reference.cases import Case

ANSWERS: dict[str, Callable[[Case], Mapping[str, Any]]] = {}
