"""Small-sample tests of the arms at each visit in many trials at once: Satterthwaite's, Kenward and Roger's.

In the entries of an unstructured covariance, second derivatives of it are 0: kenward_roger_linear. With them, Kenward
and Roger's depends on parameters and forgets that those are biased (Kenward & Roger 2009, Comput Stat Data Anal
53:2583); kenward_roger has the Cholesky factor's logarithms of standard deviations and regressions, as in `MMRM`.
"""

from __future__ import annotations

import numpy as np

from medtwin.trials.analysis.batched.mmrm_likelihood import Entries, ResidualLikelihood
from medtwin.trials.analysis.follow_up import Floats


def contrasts_at_visits(likelihood: ResidualLikelihood, inference: str) -> tuple[Floats, Floats, Floats]:
    """Estimates, standard errors and degrees of freedom of the arm at each visit, (trials, visits) each.

    Args:
        likelihood: At its maximum.
        inference: satterthwaite, kenward_roger or kenward_roger_linear.

    Source: Satterthwaite 1946, Biometrics Bull 2:110; Kenward & Roger 1997, Biometrics 53:983.
    """
    columns, v = likelihood.design.arm_columns, likelihood.covariance
    parameters = _inverse(likelihood.curvature(np.ones(len(v), dtype=bool)))
    of_arm = v[:, columns]
    # The derivative of a variance by an entry: a row of V, x' W dS W x, the same row.
    slopes = np.einsum("tqvj,tvj->tvq", np.matmul(of_arm[:, None], likelihood.first), of_arm)
    spread = np.einsum("tvq,tqr,tvr->tv", slopes, parameters, slopes)
    plain = np.einsum("tvv->tv", of_arm[:, :, columns])
    df = 2 * plain**2 / spread
    variance = plain
    if inference != "satterthwaite":
        inner = _kenward_roger(likelihood, parameters)
        if inference == "kenward_roger":
            w, bend = likelihood.inverses, _bend(likelihood, parameters)
            inner = inner - likelihood.by_columns(np.matmul(np.matmul(w, bend[:, None]), w)) / 4
        variance = plain + 2 * np.einsum("tvi,tij,tvj->tv", of_arm, inner, of_arm)
    with np.errstate(invalid="ignore"):
        error = np.sqrt(np.where(variance > 0, variance, np.nan))
    return likelihood.coefficients[:, columns], error, np.where(spread > 0, df, np.nan)


def _inverse(information: Floats) -> Floats:
    """Inverses of observed informations, nan where one is singular."""
    found = np.full_like(information, np.nan)
    usable = np.linalg.cond(information) < 1e15
    found[usable] = np.linalg.inv(information[usable])
    return found


def _kenward_roger(likelihood: ResidualLikelihood, parameters: Floats) -> Floats:
    """The sum over two entries of their covariance times Q - P V P, (trials, columns, columns)."""
    entries, size = likelihood.entries, likelihood.sigma.shape[1]
    pairs = np.matmul(np.matmul(entries.basis, parameters), entries.basis.T).reshape(-1, size, size, size, size)
    w = likelihood.inverses
    turned = w.reshape(*w.shape[:2], -1).transpose(0, 2, 1)
    inner = np.matmul(pairs.transpose(0, 1, 4, 2, 3).reshape(len(w), size * size, -1), turned)
    inner = inner.transpose(0, 2, 1).reshape(w.shape)
    total = likelihood.by_columns(np.matmul(np.matmul(w, inner), w))
    first = likelihood.first
    weighted = np.einsum("tqr,trij->tqij", parameters, first)
    return np.asarray(total - np.matmul(np.matmul(weighted, likelihood.covariance[:, None]), first).sum(axis=1))


def _bend(likelihood: ResidualLikelihood, parameters: Floats) -> Floats:
    """The sum over two parameters of their covariance times the second derivative of S, (trials, visits, visits).

    S = L L', L = diag(d) T with T unit lower triangular; parameters are log(d) and the entries of T below the diagonal.
    """
    sigma, size = likelihood.sigma, likelihood.sigma.shape[1]
    root = np.linalg.cholesky(sigma)
    d = np.einsum("tii->ti", root)
    below = list(zip(*(each.tolist() for each in np.tril_indices(size, -1)), strict=True))
    slopes = np.zeros((len(sigma), size + len(below), size, size))
    for i in range(size):
        slopes[:, i, i] = root[:, i]
    for number, (i, j) in enumerate(below):
        slopes[:, size + number, i, j] = d[:, i]
    product = np.matmul(slopes, root[:, None].transpose(0, 1, 3, 2))
    turn = _entries_of(product + product.transpose(0, 1, 3, 2), likelihood.entries)
    back = np.linalg.inv(turn.transpose(0, 2, 1))
    cov = np.matmul(np.matmul(back, parameters), back.transpose(0, 2, 1))
    bent = np.einsum("tii,tij->tij", cov[:, :size, :size], root)
    for number, (i, j) in enumerate(below):
        bent[:, i, j] += 2 * cov[:, i, size + number] * d[:, i]
    half = np.matmul(bent, root.transpose(0, 2, 1))
    weighted = np.einsum("tqr,trab->tqab", cov, slopes)
    crossed = np.matmul(weighted, slopes.transpose(0, 1, 3, 2)).sum(axis=1)
    return np.asarray(half + half.transpose(0, 2, 1) + crossed + crossed.transpose(0, 2, 1))


def _entries_of(matrices: Floats, entries: Entries) -> Floats:
    """(trials, parameters, visits, visits) to (trials, parameters, entries)."""
    return np.asarray(matrices[:, :, entries.rows, entries.columns])
