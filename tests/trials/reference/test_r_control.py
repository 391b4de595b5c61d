"""R's loops and functions of functions: by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trials.reference import r_control, r_laws
from tests.trials.reference.evaluate import Environment, plain
from tests.trials.reference.model_calls import assign
from tests.trials.reference.rcalls import parse


def run(text: str) -> Any:
    natives = {**r_control.NATIVES, "<-": assign, "function": r_laws.function}
    found = plain(Environment({}, {**r_laws.FUNCTIONS, **r_control.FUNCTIONS}, natives).run(parse(text)))
    return found.tolist() if hasattr(found, "tolist") else found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{s <- 0; for (i in 1:4) s <- s + i; s}", 10),
        ("{s <- 0; for (i in 1:9) { if (i %% 2 == 0) next; if (i > 6) break; s <- s + i }; s}", 9),
        ("{k <- 1; while (k^2 < 50) { k <- k + 1 }; k}", 8),
        ("{k <- 0; repeat { k <- k + 3; if (k > 10) break }; k}", 12),
        ("{a <- 1; local({a <- 2; a}); a}", 1),
        ("switch('b', a=1, b=2)", 2),
        ("(function(x) x + 1)(2)", 3),
        (r"sapply(1:3, \(x) x^2)", [1, 4, 9]),
        ("Reduce(function(a, b) a * b, 1:4, accumulate=TRUE)", [1, 2, 6, 24]),
        ("do.call(sum, list(1, 2, 3))", 6),
        ("apply(outer(1:2, 1:3), 1, sum)", [6, 12]),
        ("as.vector(apply(outer(1:2, 1:3), 2, function(x) x * 10))", [10, 20, 20, 40, 30, 60]),
        ("expand.grid(a=1:2, b=1:2)$a", [1, 2, 1, 2]),
        ("{m <- outer(1:2, 1:3); m[row(m) < col(m)]}", [2, 3, 6]),
        ("c(7 %/% 2, 7 %% 2)", [3, 1]),
        ("quantile(c(1, 2, 3, 4, 10), 0.9)", [7.6]),
        ("weighted.mean(c(1, 3), c(3, 1))", 1.5),
        ("round(optimize(function(x) (x - 2)^2, c(0, 5))$minimum, 6)", 2),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert run(text) == pytest.approx(value)
