"""The mixed model for repeated measures: residual or full maximum likelihood, with its small-sample inference.

Measurements of a subject have the mean x b and a covariance of one structure at the visits that were seen; nothing
is imputed, and what is missing may depend on what was seen. Source: Mallinckrodt et al. 2008, Drug Inf J 42:303.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from medtwin.trials.analysis.covariance_structures import CovarianceStructure, StructureName
from medtwin.trials.analysis.follow_up import Floats, Ints, as_codes
from medtwin.trials.analysis.linear import as_regression, linear_model
from medtwin.trials.analysis.small_sample import Inference, Pieces, SmallSample

_HESSIAN_STEP, _MOST_NEWTON_STEPS = 1e-5, 30


@dataclass(frozen=True)
class Pattern:
    """Sums of products over the subjects of one group who were seen at the same visits.

    Attributes:
        visits: (k,) places of the visits. group: Of the covariance. count: Subjects.
        xx: (k, k, columns, columns). xy: (k, k, columns), x of the first visit by y of the second. yy: (k, k).
    """

    visits: Ints
    group: int
    count: int
    xx: Floats
    xy: Floats
    yy: Floats


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of the parameters of the covariance, with the coefficients at their best.

    Attributes:
        patterns: Of the visits. structure: Of the covariance of each group. num_rows: Of all patterns.
        is_restricted: Whether it is the residual one.
    """

    patterns: tuple[Pattern, ...]
    structure: CovarianceStructure
    num_rows: int
    is_restricted: bool

    def slice(self, group: int) -> slice:
        """Where the parameters of a group stand."""
        size = self.structure.num_parameters
        return slice(group * size, (group + 1) * size)

    def covariances(self, theta: Floats) -> Floats:
        """Of the measurements of a subject, (groups, visits, visits), groups in their order."""
        parts = theta.reshape(-1, self.structure.num_parameters)
        return np.array([self.structure.matrix(part) for part in parts])

    def weights(self, theta: Floats) -> list[Floats]:
        """Inverse covariance of each pattern, (k, k).

        Raises:
            LinAlgError: If one is not positive definite.
        """
        found = []
        for each in self.patterns:
            sigma = self.structure.matrix(theta[self.slice(each.group)])[np.ix_(each.visits, each.visits)]
            found.append(cho_solve(cho_factor(sigma), np.eye(len(sigma))))
        return found

    def coefficients(self, weights: list[Floats]) -> tuple[Floats, Floats, Floats]:
        """Coefficients, (columns,), their covariance and its inverse, (columns, columns)."""
        pairs = list(zip(self.patterns, weights, strict=True))
        information = np.sum([np.einsum("ab,abij->ij", w, each.xx) for each, w in pairs], axis=0)
        right = np.sum([np.einsum("ab,abi->i", w, each.xy) for each, w in pairs], axis=0)
        covariance = cho_solve(cho_factor(information), np.eye(len(right)))
        return covariance @ right, covariance, information

    def negative(self, theta: Floats) -> tuple[float, Floats]:
        """Minus the log-likelihood and its gradient, (parameters,); infinite where it is not defined."""
        try:
            weights = self.weights(theta)
            b, covariance, information = self.coefficients(weights)
        except (np.linalg.LinAlgError, ValueError):
            return np.inf, np.zeros(len(theta))
        size, restricted = len(b), float(self.is_restricted)
        total = (self.num_rows - restricted * size) * np.log(2 * np.pi)
        total += restricted * np.linalg.slogdet(information)[1]
        m = self.structure.num_visits
        slopes: dict[int, Floats] = {}
        for each, w in zip(self.patterns, weights, strict=True):
            cross = each.xy @ b
            rr = each.yy - cross - cross.T + np.einsum("abij,i,j->ab", each.xx, b, b)
            total += float((w * rr).sum()) - each.count * np.linalg.slogdet(w)[1]
            spread = rr + restricted * np.einsum("abij,ij->ab", each.xx, covariance)
            slope = slopes.setdefault(each.group, np.zeros((m, m)))
            slope[np.ix_(each.visits, each.visits)] += each.count * w - w @ spread @ w
        gradient = np.zeros(len(theta))
        for group, slope in slopes.items():
            at = self.slice(group)
            gradient[at] = np.einsum("ab,qab->q", slope, self.structure.first_derivatives(theta[at])) / 2
        return float(total / 2), gradient

    def hessian(self, theta: Floats) -> Floats:
        """Of minus the log-likelihood, (parameters, parameters), by differences of the exact gradient."""
        steps = _HESSIAN_STEP * np.eye(len(theta))
        rows = [self.negative(theta + step)[1] - self.negative(theta - step)[1] for step in steps]
        found = np.array(rows) / (2 * _HESSIAN_STEP)
        return (found + found.T) / 2

    def pieces(self, theta: Floats) -> Pieces:
        """What small-sample inference needs of the derivatives of the information on the coefficients."""
        weights = self.weights(theta)
        size, q = self.patterns[0].xx.shape[-1], len(theta)
        first = np.zeros((q, size, size))
        products, second = np.zeros((q, q, size, size)), np.zeros((q, q, size, size))
        for each, w in zip(self.patterns, weights, strict=True):
            at, block = self.slice(each.group), np.ix_(each.visits, each.visits)
            slopes = self.structure.first_derivatives(theta[at])[:, block[0], block[1]]
            bends = self.structure.second_derivatives(theta[at])[:, :, block[0], block[1]]
            first[at] -= np.einsum("qab,abij->qij", w @ slopes @ w, each.xx)
            both = w @ slopes[:, None] @ w @ slopes[None] @ w
            products[at, at] += np.einsum("qrab,abij->qrij", both, each.xx)
            second[at, at] += np.einsum("qrab,abij->qrij", w @ bends @ w, each.xx)
        return Pieces(first, products, second)


def newton_search(likelihood: Likelihood, start: Floats) -> Floats:
    """The parameters of the maximum, (parameters,): by BFGS, then by Newton's steps to a gradient of zero.

    Raises:
        ValueError: If there is no maximum inside, as with visits that hardly anybody has.
    """
    theta = np.asarray(minimize(likelihood.negative, start, jac=True, method="BFGS", options={"gtol": 1e-4}).x)
    value, gradient = likelihood.negative(theta)
    for _ in range(_MOST_NEWTON_STEPS):
        if np.abs(gradient).max() < 1e-8:
            break
        eigenvalues, vectors = np.linalg.eigh(likelihood.hessian(theta))
        step = vectors @ (vectors.T @ gradient / np.maximum(np.abs(eigenvalues), 1e-8))
        while likelihood.negative(theta - step)[0] > value + 1e-10 * abs(value) and np.abs(step).max() > 1e-12:
            step = step / 2
        theta = theta - step
        value, gradient = likelihood.negative(theta)
    if not np.isfinite(value) or np.abs(gradient).max() > 1e-4:
        raise ValueError(f"the likelihood must have a maximum inside, got a gradient of {np.abs(gradient).max()!r}")
    return theta


def quick_search(likelihood: Likelihood, start: Floats) -> Floats:
    """The parameters, (parameters,), where L-BFGS-B from zero gains no more than 2e-9 of the log-likelihood.

    That is the default of R's mmrm. It ends short of the maximum by some 1e-6 of log-likelihood, which moves weakly
    determined covariances in their third digit; `newton_search` does not.

    Where it does not come to an end, as from far away, `newton_search` goes on.

    Raises:
        ValueError: If there is no maximum inside.
    """
    options = {"ftol": 1e7 * np.finfo(np.float64).eps, "gtol": 0.0, "maxcor": 5, "maxiter": 300}
    found = minimize(likelihood.negative, np.zeros_like(start), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x) if found.success else newton_search(likelihood, start)


@dataclass(frozen=True)
class RepeatedMeasures(SmallSample):
    """A fitted mixed model for repeated measures.

    Attributes:
        covariances: (groups, visits, visits) of the measurements of a subject, groups in their order.
        theta: (parameters,) of them. log_likelihood: Restricted, or full.
        num_subjects, num_rows: What was fitted. visits: Their labels in order.
    """

    covariances: Floats
    theta: Floats
    log_likelihood: float
    num_subjects: int
    num_rows: int
    visits: tuple[object, ...]

    @property
    def aic(self) -> float:
        """Akaike's criterion, of the parameters of the covariance."""
        return 2 * len(self.theta) - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's criterion, of the parameters of the covariance and the number of subjects."""
        return float(np.log(self.num_subjects)) * len(self.theta) - 2 * self.log_likelihood


@dataclass(frozen=True)
class MMRM:
    """How repeated measurements are modelled.

    Attributes:
        structure: Of the covariance, see `CovarianceStructure`.
        inference: How degrees of freedom and variances allow for an estimated covariance: satterthwaite, kenward_roger,
            kenward_roger_linear (the same without second derivatives, which for an unstructured covariance does not
            depend on parameters and is less liberal in small trials), residual (rows less columns), between_within.
        is_restricted: Whether by residual maximum likelihood; Kenward and Roger's needs that.
        search: For the maximum.

    Raises:
        ValueError: If a name is not known or the inference does not fit.
    """

    structure: StructureName = "us"
    inference: Inference = "satterthwaite"
    is_restricted: bool = True
    search: Callable[[Likelihood, Floats], Floats] = newton_search

    def __post_init__(self) -> None:
        if self.structure not in get_args(StructureName):
            raise ValueError(f"structure must be one of {get_args(StructureName)}, got {self.structure!r}")
        if self.inference not in get_args(Inference):
            raise ValueError(f"inference must be one of {get_args(Inference)}, got {self.inference!r}")
        if self.inference.startswith("kenward") and not self.is_restricted:
            raise ValueError("is_restricted must be true for kenward_roger, got false")

    def likelihood(
        self,
        response: ArrayLike,
        x: ArrayLike,
        subject: ArrayLike,
        visit: ArrayLike,
        *,
        group: ArrayLike | None = None,
    ) -> tuple[Likelihood, Floats]:
        """The likelihood of the measurements that were taken, and parameters, (parameters,), to search from; see `fit`.

        Raises:
            ValueError: If a subject has a visit twice or two groups, or columns depend on one another.
        """
        y, design = as_regression(response, x)
        _, subjects = as_codes("subject", subject, len(y))
        visits, places = as_codes("visit", visit, len(y))
        groups, group_of = as_codes("group", np.zeros(len(y)) if group is None else group, len(y))
        if len(np.unique(np.column_stack([subjects, places]), axis=0)) < len(y):
            raise ValueError("visit must be given once for each subject, got one twice")
        if len(np.unique(np.column_stack([subjects, group_of]), axis=0)) > subjects.max() + 1:
            raise ValueError("group must be the same for all rows of a subject, got two")
        positions = visits if self.structure == "sp_exp" else range(len(visits))
        structure = CovarianceStructure(self.structure, tuple(float(each) for each in positions))
        patterns = _patterns(y, design, subjects, places, group_of)
        residuals = linear_model(y, design).residuals
        deviations = np.array([np.sqrt((residuals[places == v] ** 2).mean()) for v in range(len(visits))])
        start = np.tile(structure.start(np.maximum(deviations, 1e-8)), len(groups))
        return Likelihood(patterns, structure, len(y), self.is_restricted), start

    def fit(
        self,
        response: ArrayLike,
        x: ArrayLike,
        subject: ArrayLike,
        visit: ArrayLike,
        *,
        group: ArrayLike | None = None,
    ) -> RepeatedMeasures:
        """Fits the model to the measurements that were taken.

        Args:
            response: (rows,), without missing ones.
            x: (rows, columns), with its constant.
            subject: (rows,) labels.
            visit: (rows,) labels, whose order is that of time; for sp_exp times.
            group: (rows,) labels of groups with a covariance of their own, one for each subject.

        Raises:
            ValueError: If a subject has a visit twice or two groups, columns depend on one another, or the likelihood
                has no maximum inside.
        """
        likelihood, start = self.likelihood(response, x, subject, visit, group=group)
        y, design = as_regression(response, x)
        _, subjects = as_codes("subject", subject, len(y))
        visits, _ = as_codes("visit", visit, len(y))
        theta = self.search(likelihood, start)
        b, covariance, _ = likelihood.coefficients(likelihood.weights(theta))
        within = np.array([any(np.ptp(column[subjects == s]) > 0 for s in np.unique(subjects)) for column in design.T])
        return RepeatedMeasures(
            coefficients=b,
            model_covariance=covariance,
            parameter_covariance=np.asarray(np.linalg.inv(likelihood.hessian(theta)), dtype=np.float64),
            pieces=likelihood.pieces(theta),
            inference=self.inference,
            residual_df=len(y) - design.shape[1],
            between_df=int(subjects.max()) + 1 - int((~within).sum()),
            is_within=within | (np.ptp(design, axis=0) == 0),
            covariances=likelihood.covariances(theta),
            theta=theta,
            log_likelihood=-likelihood.negative(theta)[0],
            num_subjects=int(subjects.max()) + 1,
            num_rows=len(y),
            visits=visits,
        )


def _patterns(y: Floats, x: Floats, subjects: Ints, places: Ints, group: Ints) -> tuple[Pattern, ...]:
    order = np.lexsort((places, subjects))
    y, x, places, group = y[order], x[order], places[order], group[order]
    starts = np.flatnonzero(np.diff(subjects[order], prepend=-1))
    rows_of: dict[tuple[int, bytes], list[Ints]] = {}
    for rows in np.split(np.arange(len(y)), starts[1:]):
        rows_of.setdefault((int(group[rows[0]]), places[rows].tobytes()), []).append(rows)
    found = []
    for (g, _), members in rows_of.items():
        rows = np.stack(members)
        xs, ys = x[rows], y[rows]
        sums = (
            np.einsum("sai,sbj->abij", xs, xs),
            np.einsum("sai,sb->abi", xs, ys),
            np.einsum("sa,sb->ab", ys, ys),
        )
        found.append(Pattern(places[rows[0]], g, len(rows), *sums))
    return tuple(found)
