"""Model frames of R formulas: responses, covariates by treatment contrasts, strata and clusters, complete cases."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Environment, Factor, Formula, Frame, as_factor, is_missing, plain, vector
from tests.trials.reference.rcalls import Call, Name

_LONE = ("strata", "cluster", "frailty", "offset", "tt", "pspline", "ridge", "nsk", "ns")


@dataclass(frozen=True)
class ModelFrame:
    """What a formula takes from a frame, rows without anything missing.

    Attributes:
        response: Evaluated left side, as the function for it gives it.
        variables: Evaluated variables of the right side, by their text. terms: Products of variables.
        strata: (rows,) codes, or None. cluster: (rows,) labels, or None. rows: Which rows of the frame are kept.
    """

    response: Any
    variables: dict[str, Any]
    terms: tuple[tuple[str, ...], ...]
    strata: NDArray[Any] | None
    cluster: NDArray[Any] | None
    rows: NDArray[np.bool_]

    def groups(self) -> tuple[NDArray[np.int64], list[str]]:
        """A group for each row, and the labels of the groups, for formulas that only name groups."""
        if any(len(term) > 1 for term in self.terms):
            raise NotCoveredError("an interaction among groups")
        factors = [as_factor(self.variables[term[0]]) for term in self.terms]
        codes = np.zeros(int(self.rows.sum()), dtype=np.int64)
        for each in factors:
            codes = codes * len(each.levels) + each.codes
        there, code = np.unique(codes, return_inverse=True)
        labels = []
        for value in there.tolist():
            parts = []
            for i in reversed(range(len(factors))):
                levels = factors[i].levels
                value, level = divmod(value, len(levels))
                width = max(map(len, levels)) if i else 0  # R pads the levels of all variables but the first
                parts.append(f"{self.terms[i][0]}={levels[level]:{width}}")
            labels.append(", ".join(reversed(parts)))
        return code, labels

    def matrix(self, *, intercept: bool = False, is_full: bool = False) -> tuple[NDArray[np.float64], list[str]]:
        """Covariates, (rows, columns), and their names; treatment contrasts against the first level.

        Args:
            intercept: Whether the first column is a constant.
            is_full: Whether the first factor has a column for each level, as in formulas without intercept.
        """
        count = int(self.rows.sum())
        columns = [np.ones(count)] if intercept else []
        names = ["(Intercept)"] if intercept else []
        whole = next((each for each in self.terms if is_full and self._is_factor(each)), None)
        for term in self.terms:
            for name, column in self._columns(term, is_full=term == whole):
                columns.append(column)
                names.append(name)
        return (np.column_stack(columns) if columns else np.zeros((count, 0))), names

    def columns_of_terms(self) -> list[list[int]]:
        """Which columns of the matrix without an intercept are of each term."""
        sizes = [len(self._columns(term)) for term in self.terms]
        ends = np.cumsum(sizes).tolist()
        return [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]

    def _is_factor(self, term: tuple[str, ...]) -> bool:
        variable = self.variables[term[0]]
        return len(term) == 1 and (isinstance(variable, Factor) or plain(variable).dtype.kind in "Ub")

    def _columns(self, term: tuple[str, ...], *, is_full: bool = False) -> list[tuple[str, NDArray[np.float64]]]:
        found: list[tuple[str, NDArray[np.float64]]] = [("", np.ones(int(self.rows.sum())))]
        for name in term:
            margin = tuple(each for each in term if each != name)
            is_contrast = (not margin or margin in self.terms) and not is_full
            coded = _coded(name, self.variables[name], is_contrast)
            found = [
                (f"{left}:{right}" if left else right, one * other) for right, other in coded for left, one in found
            ]
        return found


def _coded(name: str, variable: Any, is_contrast: bool) -> list[tuple[str, NDArray[np.float64]]]:
    """The columns of one variable: itself, or indicators of levels, without the first one for contrasts."""
    values = plain(variable)
    if isinstance(variable, Factor) or values.dtype.kind == "U":
        factor = variable if isinstance(variable, Factor) else as_factor(variable)
        levels = range(1 if is_contrast else 0, len(factor.levels))
        return [(f"{name}{factor.levels[i]}", (factor.codes == i).astype(np.float64)) for i in levels]
    if values.dtype.kind == "b":
        both = [(f"{name}{str(flag).upper()}", (values == flag).astype(np.float64)) for flag in (False, True)]
        return both[1:] if is_contrast else both
    numbers = values.astype(np.float64)
    if numbers.ndim == 2:
        return [(f"{name}{j + 1}", numbers[:, j]) for j in range(numbers.shape[1])]
    return [(name, numbers)]


@dataclass(frozen=True)
class Estimable:
    """Which columns do not depend on those before them; R gives the others no coefficient, and a variance of 0."""

    columns: NDArray[np.bool_]

    @classmethod
    def of(cls, x: NDArray[np.float64], first: NDArray[np.float64] | None = None) -> Estimable:
        """Of a matrix without its first column, which is a constant unless given, (rows,)."""
        kept = np.ones((len(x), 1)) if first is None else first[:, None]
        flags = []
        for column in x.T:
            rest = column - kept @ np.linalg.lstsq(kept, column, rcond=None)[0]
            flags.append(float(np.linalg.norm(rest)) > 1e-9 * max(float(np.linalg.norm(column)), 1e-300))
            kept = np.column_stack([kept, column]) if flags[-1] else kept
        return cls(np.array(flags, dtype=bool))

    def vector(self, values: NDArray[np.float64], *, first: int = 0) -> NDArray[np.float64]:
        """Coefficients of all columns, of which the first is at place `first`."""
        return np.insert(values.astype(np.float64), self._gaps(first), np.nan)

    def matrix(self, values: NDArray[np.float64], *, first: int = 0) -> NDArray[np.float64]:
        """A covariance of all columns, of which the first is at place `first`."""
        gaps = self._gaps(first)
        return np.insert(np.insert(values, gaps, 0.0, axis=0), gaps, 0.0, axis=1)

    def _gaps(self, first: int) -> list[int]:
        return [first + int(self.columns[:j].sum()) for j in np.flatnonzero(~self.columns)]


def model_frame(env: Environment, formula: Formula, data: Frame | None, subset: Any = None) -> ModelFrame:
    """Evaluates the sides of a formula in a frame and drops rows with anything missing.

    Raises:
        NotCoveredError: For terms that are not known here.
    """
    inner = env if data is None else env.within(data)
    response = inner.run(formula.left) if formula.left is not None else None
    terms = _expand(formula.right)
    lone = {kind: [each for term in terms for each in term if _kind(each) == kind] for kind in _LONE}
    if any(lone[kind] for kind in _LONE[2:]):
        raise NotCoveredError(f"a term {next(kind for kind in _LONE[2:] if lone[kind])}()")
    if any(len(term) > 1 and any(_kind(each) in _LONE for each in term) for term in terms):
        raise NotCoveredError("an interaction with strata or clusters")
    covariates = [term for term in terms if _kind(term[0]) not in _LONE]
    variables = {text(each): _column(inner.run(each)) for term in covariates for each in term}
    strata = [inner.run(part) for each in lone["strata"] for part in each.args]
    if any(set(each.named) - {"na.group", "shortlabel", "sep"} for each in lone["strata"]):
        raise NotCoveredError("arguments of strata()")
    cluster = inner.run(lone["cluster"][0].args[0]) if lone["cluster"] else None
    used = [*variables.values(), *strata, *([] if cluster is None else [cluster])]
    rows = ~is_missing(response.columns) if response is not None else np.ones(len(vector(used[0])), dtype=bool)
    for each in used:
        rows &= ~is_missing(each)
    if subset is not None:
        rows &= vector(inner.run(subset)).astype(bool)
    return ModelFrame(
        response=response.rows(rows) if response is not None else None,
        variables={name: _rows(each, rows) for name, each in variables.items()},
        terms=tuple(tuple(text(each) for each in term) for term in covariates),
        strata=_codes([_rows(each, rows) for each in strata]) if strata else None,
        cluster=vector(cluster)[rows] if cluster is not None else None,
        rows=rows,
    )


def _column(value: Any) -> Any:
    return value if isinstance(value, Factor) else np.asarray(plain(value))


def _rows(value: Any, rows: NDArray[np.bool_]) -> Any:
    return value.take(rows) if isinstance(value, Factor) else plain(value)[rows]


def _codes(parts: list[Any]) -> NDArray[np.int64]:
    codes = np.zeros(len(parts[0]), dtype=np.int64)
    for part in parts:
        own = np.unique(vector(part), return_inverse=True)[1]
        codes = codes * (own.max() + 1) + own
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def _kind(node: Any) -> str:
    return node.name if isinstance(node, Call) else ""


def _expand(node: Any) -> list[tuple[Any, ...]]:
    """The terms of a right side, by order of interaction: a*b gives a, b and a:b."""
    found: list[tuple[Any, ...]] = []
    for term in _terms(node):
        if {text(each) for each in term} not in [{text(each) for each in other} for other in found]:
            found.append(term)
    return sorted(found, key=len)


def _terms(node: Any) -> list[tuple[Any, ...]]:
    if node == 1.0 or node == 0.0:
        return []
    if not isinstance(node, Call):
        return [(node,)] if isinstance(node, Name) else _refuse(node)
    if node.name == "+" and len(node.args) == 2:
        return _terms(node.args[0]) + _terms(node.args[1])
    if node.name in (":", "*"):
        left, right = _terms(node.args[0]), _terms(node.args[1])
        both = [(*a, *b) for a in left for b in right]
        return both if node.name == ":" else left + right + both
    if node.name == "-":
        removed = [{text(each) for each in term} for term in _terms(node.args[1])]
        return [term for term in _terms(node.args[0]) if {text(each) for each in term} not in removed]
    if node.name == "^":
        base, order = _terms(node.args[0]), int(node.args[1])
        return [sum(each, ()) for k in range(1, order + 1) for each in combinations(base, k)]
    return [(node,)]


def _refuse(node: Any) -> list[tuple[Any, ...]]:
    raise NotCoveredError(f"the term {node!r} of a formula")


def text(node: Any) -> str:
    """A tree as R would write it, near enough to name a variable."""
    if isinstance(node, Name):
        return node.name
    if not isinstance(node, Call):
        return (
            f"{node:.15g}" if isinstance(node, float) else f'"{node}"' if isinstance(node, str) else str(node).upper()
        )
    if node.name in ("+", "-", "*", "/", "^", "==", "!=", "<", ">", "<=", ">=", ":", "&", "|", "$", "%in%"):
        gap = "" if node.name in ("^", ":", "$") else " "
        return f"{gap}{node.name}{gap}".join(text(each) for each in node.args) if len(node.args) > 1 else (
            node.name + text(node.args[0]))  # fmt: skip
    parts = [*(text(each) for each in node.args), *(f"{key} = {text(each)}" for key, each in node.named.items())]
    return f"{node.name}({', '.join(parts)})"
