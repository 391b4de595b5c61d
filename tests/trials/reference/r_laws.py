"""R's distributions, integrals and small functions, for expressions; laws of rates, means and events are medtwin's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import integrate, special, stats

from medtwin.trials.analysis.bayes import Beta, Gamma, Normal
from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Environment, Frame, Named, plain, vector
from tests.trials.reference.rcalls import Call

Law = Callable[..., Any]


def _scalar_laws(make: Callable[..., Any], method: str) -> Callable[..., Any]:
    """A method of one of medtwin's laws, over vectors of its parameters."""

    def apply(at: Any, *parameters: Any) -> Any:
        given = [np.asarray(plain(each), dtype=np.float64) for each in (at, *parameters)]
        if all(each.size == 1 for each in given[1:]):  # one law at many values
            values = getattr(make(*(float(each.reshape(-1)[0]) for each in given[1:])), method)(given[0])
            return np.asarray(values, dtype=np.float64) if given[0].ndim else float(values)
        whole = np.broadcast_arrays(*given)
        found = [getattr(make(*rest), method)(x) for x, *rest in zip(*(each.ravel() for each in whole), strict=True)]
        return np.array(found).reshape(whole[0].shape) if whole[0].ndim else float(found[0])

    return apply


def _conjugate(name: str, make: Callable[..., Any], arguments: tuple[str, ...], defaults: tuple[float, ...]) -> Any:
    density, below, above = (_scalar_laws(make, each) for each in ("density", "below", "above"))

    def call(kind: str) -> Callable[..., Any]:
        def apply(at: Any, *args: Any, **named: Any) -> Any:
            options = {key: named.pop(key, default) for key, default in (("lower.tail", True), ("log.p", False))}
            is_log = named.pop("log", False) or options["log.p"]
            values = _matched(f"{kind}{name}", arguments, defaults, args, named)
            found = (density if kind == "d" else below if options["lower.tail"] else above)(at, *values)
            return np.log(found) if is_log else found

        return apply

    return {f"{kind}{name}": call(kind) for kind in "dp"}


def _matched(
    name: str, arguments: tuple[str, ...], defaults: tuple[float, ...], args: tuple[Any, ...], named: dict[str, Any]
) -> list[Any]:
    free = [each for each in arguments if each not in named]
    found = {**dict(zip(arguments, defaults, strict=False)), **named, **dict(zip(free, args, strict=False))}
    if set(found) != set(arguments) or len(args) > len(free):
        raise NotCoveredError(f"the arguments {sorted(found)} of {name}()")
    return [found[each] for each in arguments]


def _gamma(shape: float, rate: float, scale: float) -> Gamma:
    return Gamma(shape, 1 / scale if scale == scale else rate)


def _family(name: str, law: Any, arguments: tuple[str, ...], defaults: tuple[float, ...], discrete: bool) -> Any:
    """d, p and q of a law of scipy whose parameters are given by a function of R's."""

    def density(at: Any, *args: Any, **named: Any) -> Any:
        is_log = named.pop("log", False)
        frozen = law(*map(plain, _matched(f"d{name}", arguments, defaults, args, named)))
        found = (frozen.pmf if discrete else frozen.pdf)(plain(at))
        return np.log(found) if is_log else found

    def tail(at: Any, *args: Any, **named: Any) -> Any:
        lower = named.pop("lower.tail", True)
        frozen = law(*map(plain, _matched(f"p{name}", arguments, defaults, args, named)))
        return (frozen.cdf if lower else frozen.sf)(plain(at))

    def quantile(p: Any, *args: Any, **named: Any) -> Any:
        lower = named.pop("lower.tail", True)
        frozen = law(*map(plain, _matched(f"q{name}", arguments, defaults, args, named)))
        return (frozen.ppf if lower else frozen.isf)(plain(p))

    return {f"d{name}": density, f"p{name}": tail, f"q{name}": quantile}


def _gamma_law(shape: Any, rate: Any, scale: Any) -> Any:
    return stats.gamma(shape, scale=np.where(np.isnan(scale), 1 / np.asarray(rate), scale))


def _nbinom(size: Any, prob: Any, mu: Any) -> Any:
    return stats.nbinom(size, np.where(np.isnan(mu), prob, size / (size + np.nan_to_num(mu))))


def _t(df: Any, ncp: Any) -> Any:
    return stats.t(df) if np.all(np.isnan(ncp)) else stats.nct(df, ncp)


_NONE = math.nan
LAWS: dict[str, Law] = {
    **_family("beta", lambda a, b: stats.beta(a, b), ("shape1", "shape2"), (), False),
    **_family("norm", lambda m, s: stats.norm(m, s), ("mean", "sd"), (0.0, 1.0), False),
    **_family("gamma", _gamma_law, ("shape", "rate", "scale"), (1.0, 1.0, _NONE), False),
    **_family("binom", lambda n, p: stats.binom(n, p), ("size", "prob"), (), True),
    **_family("pois", lambda m: stats.poisson(m), ("lambda",), (), True),
    **_family("nbinom", _nbinom, ("size", "prob", "mu"), (1.0, _NONE, _NONE), True),
    **_family("t", _t, ("df", "ncp"), (1.0, _NONE), False),
    **_family("chisq", lambda df: stats.chi2(df), ("df",), (), False),
    **_family("f", lambda a, b: stats.f(a, b), ("df1", "df2"), (), False),
    **_family("unif", lambda a, b: stats.uniform(a, np.subtract(b, a)), ("min", "max"), (0.0, 1.0), False),
    **_family("exp", lambda r: stats.expon(scale=1 / np.asarray(r)), ("rate",), (1.0,), False),
    **_conjugate("beta", Beta, ("shape1", "shape2"), ()),
    **_conjugate("norm", Normal, ("mean", "sd"), (0.0, 1.0)),
    **_conjugate("gamma", _gamma, ("shape", "rate", "scale"), (1.0, 1.0, _NONE)),
}


def function(env: Environment, call: Call) -> Callable[..., Any]:
    """`function(...)`: a closure over the variables of now and later."""
    free, named, body = call.args
    parameters = [(each.name, None) for each in free] + list(named.items())
    order = [name for name, _ in parameters]

    def apply(*args: Any, **given: Any) -> Any:
        left = [name for name in order if name not in given]
        if len(args) > len(left) or set(given) - set(order):
            raise NotCoveredError(f"the arguments {sorted(given)} of a function of {order}")
        inner = Environment(
            {**env.variables, **dict(zip(left, args, strict=False)), **given}, env.functions, env.natives
        )
        for name, default in parameters:
            if name not in given and name not in left[: len(args)] and default is not None:
                inner.variables[name] = inner.run(default)
        return inner.run(body)

    return apply


def for_each(values: Any, apply: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """`sapply()`, `vapply()`: a vector, or a matrix with a column for each value."""
    named.pop("USE.NAMES", None)
    items = (
        values if isinstance(values, list) else list(values.values()) if isinstance(values, Mapping) else vector(values)
    )
    found = [vector(apply(each, *args, **named)) for each in items]
    return np.column_stack(found).squeeze() if len(found[0]) > 1 else np.concatenate(found)


def in_parallel(apply: Callable[..., Any], *args: Any) -> Any:
    """`mapply()`."""
    columns = np.broadcast_arrays(*(vector(each) for each in args))
    found = [vector(apply(*row)) for row in zip(*columns, strict=True)]
    return np.column_stack(found).squeeze() if len(found[0]) > 1 else np.concatenate(found)


def definite_integral(
    apply: Callable[..., Any], lower: float, upper: float, *args: Any, **named: Any
) -> dict[str, float]:
    """`integrate()`, to about 1e-11 whatever is asked, in pieces so that narrow peaks are not missed."""
    for key in ("rel.tol", "abs.tol", "subdivisions", "stop.on.error"):
        named.pop(key, None)

    def at(x: Any) -> Any:
        return np.asarray(plain(apply(x[:, 0], *args, **named)), dtype=np.float64)

    low, high = float(lower), float(upper)
    inner = (
        np.linspace(low, high, 17) if math.isfinite(low) and math.isfinite(high) else np.array([-10.0, -1, 0, 1, 10])
    )
    points = [[float(each)] for each in inner if low < each < high]
    found = integrate.cubature(
        at, [low], [high], rule="gk21", points=points, atol=1e-13, rtol=1e-11, max_subdivisions=60
    )
    return {"value": float(found.estimate), "abs.error": float(found.error)}


def zero(function: Callable[[float], float], low: float, high: float, tolerance: float | None = None) -> float:
    """What R's `uniroot()` returns: Brent's root to a tolerance, by default the fourth root of the unit roundoff.

    Answers of R that rest on it are off by as much, and an exact root would not agree with them.

    Source: Brent 1973, Algorithms for Minimization without Derivatives, chapter 4.
    """
    unit = float(np.finfo(np.float64).eps)
    tolerance = unit**0.25 if tolerance is None else tolerance
    a, b, fa, fb = low, high, function(low), function(high)
    c, fc = a, fa
    for _ in range(1000):
        last = b - a
        if abs(fc) < abs(fb):
            a, b, c, fa, fb, fc = b, c, b, fb, fc, fb
        least, half = 2 * unit * abs(b) + tolerance / 2, (c - b) / 2
        if abs(half) <= least or fb == 0:
            return b
        step = _interpolated(a, b, c, fa, fb, fc, last, least) or half
        step = step if abs(step) >= least else math.copysign(least, half)
        a, fa, b = b, fb, b + step
        fb = function(b)
        if (fb > 0) == (fc > 0):
            c, fc = a, fa
    raise NotCoveredError("uniroot() without an end")


def _interpolated(*points: float) -> float:
    """A step of Brent's by a secant or a parabola, 0 where halving is safer."""
    a, b, c, fa, fb, fc, last, least = points
    if abs(last) < least or abs(fa) <= abs(fb):
        return 0.0
    half, s = (c - b) / 2, fb / fa
    if a == c:
        p, q = 2 * half * s, 1 - s
    else:
        q, r = fa / fc, fb / fc
        p, q = s * (2 * half * q * (q - r) - (b - a) * (r - 1)), (q - 1) * (r - 1) * (s - 1)
    p, q = (p, -q) if p > 0 else (-p, q)
    return p / q if 2 * p < 3 * half * q - abs(least * q) and p < abs(last * q / 2) else 0.0


def root(apply: Callable[..., Any], interval: Any = None, **named: Any) -> dict[str, float]:
    """`uniroot()`."""
    low, high = vector(interval) if interval is not None else (named.pop("lower"), named.pop("upper"))
    tolerance = named.pop("tol", None)
    if "extendInt" in named:
        raise NotCoveredError("the argument extendInt of uniroot()")
    named.pop("maxiter", None)
    return {"root": zero(lambda x: float(vector(apply(x, **named))[0]), float(low), float(high), tolerance)}


def outer(one: Any, other: Any, apply: Any = "*") -> Any:
    """`outer()`."""
    a, b = np.meshgrid(vector(one), vector(other), indexing="ij")
    if apply == "*":
        return a * b
    if not callable(apply):
        raise NotCoveredError(f"the function {apply} of outer()")
    return np.asarray(plain(apply(a.ravel(), b.ravel()))).reshape(a.shape)


def product(one: Any, other: Any) -> Any:
    """`%*%`: a vector is a row or a column as it fits."""
    a, b = (np.asarray(plain(each), dtype=np.float64) for each in (one, other))
    if a.ndim == 1 and b.ndim == 1:
        return np.array([[a @ b]])
    if a.ndim == 1:
        return np.atleast_2d(a @ b) if b.shape[0] == len(a) else np.outer(a, b)
    return (a @ b)[:, None] if b.ndim == 1 and a.shape[1] == len(b) else np.outer(a, b) if b.ndim == 1 else a @ b


def _by_column(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operator where a vector as long as a matrix has rows meets each column of it."""

    def apply(one: Any, other: Any = None) -> Any:
        names = next((each.names for each in (one, other) if isinstance(each, Named)), None)
        a, b = (None if each is None else np.asarray(plain(each), dtype=np.float64) for each in (one, other))
        if b is None:
            found = function(0.0, a)
        else:
            if a is not None and a.ndim == 2 and b.shape == a.shape[:1]:
                b = b[:, None]
            elif a is not None and b.ndim == 2 and a.shape == b.shape[:1]:
                a = a[:, None]
            elif a is not None and a.ndim == b.ndim == 1 and 1 < min(len(a), len(b)) < max(len(a), len(b)):
                size = max(len(a), len(b))
                a, b = np.resize(a, size), np.resize(b, size)
            with np.errstate(invalid="ignore", divide="ignore"):
                found = function(a, b)
        if names is not None and found.ndim == len(names):
            return Named(found, names)
        return float(found) if np.ndim(found) == 0 else found

    return apply


def order(*keys: Any, **options: Any) -> Any:
    """`order()`: places from 1."""
    if options:
        raise NotCoveredError(f"the arguments {sorted(options)} of order()")
    columns = [each.codes if hasattr(each, "codes") else vector(each) for each in keys]
    return np.lexsort(columns[::-1]) + 1.0


def bind_rows(*args: Any, **named: Any) -> Named:
    """`rbind()` of vectors."""
    rows = [np.asarray(plain(each), dtype=np.float64) for each in (*args, *named.values())]
    return Named(np.vstack(rows), (list(named) or None, None))


def transposed(value: Any) -> Named:
    """`t()`: a vector becomes a row."""
    values = np.asarray(plain(value), dtype=np.float64)
    names = value.names if isinstance(value, Named) else (None,) * values.ndim
    return Named(values[None, :], (None, names[0])) if values.ndim == 1 else Named(values.T, names[::-1])


def column_means(value: Any) -> Any:
    """`colMeans()`."""
    found = np.column_stack([vector(each) for each in value.values()]) if isinstance(value, Frame) else plain(value)
    return np.asarray(found).mean(axis=0)


def repeat(value: Any, times: Any = 1, each: Any = 1) -> Any:
    """`rep()`."""
    counts = vector(times).astype(int)
    values = np.repeat(vector(value), int(each))
    return np.repeat(values, counts) if len(counts) > 1 else np.tile(values, int(counts[0]))


def evenly(start: Any, end: Any = None, by: Any = None, **named: Any) -> Any:
    """`seq()`."""
    size = named.pop("length.out", named.pop("length", None))
    if named:
        raise NotCoveredError(f"the arguments {sorted(named)} of seq()")
    if size is not None:
        return np.linspace(start, end, int(size))
    if end is None:
        return np.arange(1.0, start + 0.5)
    step = (1.0 if end >= start else -1.0) if by is None else by
    return start + step * np.arange(np.floor((end - start) / step + 1e-9) + 1)


def polynomials(values: Any, degree: float = 1, raw: bool = False) -> Any:
    """`poly()`: orthonormal polynomials of what is given, with positive leading coefficients, or powers."""
    x = vector(values).astype(np.float64)
    powers = np.vander(x if raw else x - x.mean(), int(degree) + 1, increasing=True)
    if raw:
        return powers[:, 1:]
    q, r = np.linalg.qr(powers)
    return (q * np.sign(np.diag(r)))[:, 1:]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **LAWS,
    "+": _by_column(np.add),
    "-": _by_column(np.subtract),
    "*": _by_column(np.multiply),
    "/": _by_column(np.true_divide),
    "^": _by_column(np.float_power),
    "sapply": for_each,
    "vapply": lambda values, apply, kind, *args, **named: for_each(values, apply, *args, **named),
    "Vectorize": lambda apply: lambda *args: in_parallel(apply, *args),
    "mapply": in_parallel,
    "integrate": definite_integral,
    "uniroot": root,
    "outer": outer,
    "%*%": product,
    "poly": polynomials,
    "crossprod": lambda a, b=None: product(np.transpose(plain(a)), a if b is None else b),
    "solve": lambda a, b=None: np.linalg.inv(plain(a)) if b is None else np.linalg.solve(plain(a), plain(b)),
    "order": order,
    "t": transposed,
    "rbind": bind_rows,
    "colMeans": column_means,
    "rep": repeat,
    "seq": evenly,
    "seq_len": lambda n: np.arange(1.0, n + 0.5),
    "ceiling": lambda a: np.ceil(plain(a)),
    "floor": lambda a: np.floor(plain(a)),
    "lchoose": lambda n, k: special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1),
    "choose": lambda n, k: special.comb(n, k),
    "lbeta": lambda a, b: special.betaln(plain(a), plain(b)),
    "beta": lambda a, b: special.beta(plain(a), plain(b)),
    "lgamma": lambda a: special.gammaln(plain(a)),
    "gamma": lambda a: special.gamma(plain(a)),
    "lfactorial": lambda a: special.gammaln(np.add(plain(a), 1)),
    "plogis": lambda a: special.expit(plain(a)),
    "qlogis": lambda a: special.logit(plain(a)),
    "log1p": lambda a: np.log1p(plain(a)),
    "expm1": lambda a: np.expm1(plain(a)),
    "log10": lambda a: np.log10(plain(a)),
    "log2": lambda a: np.log2(plain(a)),
    "prod": lambda a: float(np.prod(vector(a))),
    "cumprod": lambda a: np.cumprod(vector(a)),
    "var": lambda a: float(np.var(vector(a), ddof=1)),
    "sd": lambda a: float(np.std(vector(a), ddof=1)),
    "cor": lambda a, b: float(np.corrcoef(vector(a), vector(b))[0, 1]),
    "which": lambda a: np.flatnonzero(vector(a)) + 1.0,
    "which.max": lambda a: float(np.argmax(vector(a))) + 1,
    "which.min": lambda a: float(np.argmin(vector(a))) + 1,
    "any": lambda a: bool(np.any(vector(a))),
    "all": lambda a: bool(np.all(vector(a))),
    "max": lambda *a: float(max(np.max(vector(each)) for each in a)),
    "levels": lambda a: np.array(a.levels),
    "scale": lambda a, center=True, scale=True: (vector(a) - (vector(a).mean() if center else 0)) / (
        np.std(vector(a), ddof=1) if scale else 1),
    "numeric": lambda n=0: np.zeros(int(n)),
    "round": lambda a, digits=0: np.round(np.asarray(plain(a), dtype=np.float64), int(digits)),
}  # fmt: skip
