"""The evaluator of R expressions and the model frames of formulas, on a few rows."""

from typing import Any

import numpy as np
import pytest

from tests.trials.reference.cases import NotCoveredError
from tests.trials.reference.evaluate import Environment, Frame, Named, as_factor, plain
from tests.trials.reference.model_frame import Estimable, model_frame
from tests.trials.reference.rcalls import parse

ROWS = Frame(
    y=np.array([1.0, 2.0, 3.0, 4.0]),
    arm=as_factor(np.array(["b", "a", "c", "a"]), ["b", "a", "c"]),
    age=np.array([50.0, 60.0, np.nan, 70.0]),
    sex=np.array(["m", "f", "f", "m"]),
)


def run(text: str, **variables: Any) -> Any:
    return plain(Environment({"d": ROWS, **variables}).run(parse(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("subset(d, age > 50)$y", [2.0, 4.0]),
        ("{e <- d; e$z <- ifelse(e$sex == 'm', e$y, 0); e$z}", [1.0, 0.0, 0.0, 4.0]),
        ("with(d, y[!is.na(age)])", [1.0, 2.0, 4.0]),
        ("d[d$sex == 'f', 'y']", [2.0, 3.0]),
        ("as.integer(d$arm == 'a')", [0.0, 1.0, 0.0, 1.0]),
        ("as.numeric(relevel(d$arm, ref='c'))", [2.0, 3.0, 1.0, 3.0]),
        ("diff(c(1, 4, 9))", [3.0, 5.0]),
        ("c(a=1, b=2)['b']", [2.0]),
        ("if (is.null(NULL)) 1:2 else 3", [1.0, 2.0]),
        ("rowSums(cbind(d$y, 1))", [2.0, 3.0, 4.0, 5.0]),
        ("list(`1 2`=5)$`1 2` + 0", 5.0),
        ("mean(d$age, na.rm=TRUE)", 60.0),
        ("transform(d, w=y*2)$w", [2.0, 4.0, 6.0, 8.0]),
        ("d$sex %in% c('m', 'x')", [True, False, False, True]),
    ],
)
def test_expressions(text: str, expected: Any) -> None:
    assert np.asarray(run(text)).tolist() == expected


def test_rows_and_elements_of_matrices() -> None:
    table = Named(np.array([[1.0, 2.0], [3.0, 4.0]]), (["p", "q"], ["a", "b"]))
    assert run("x[2, ]", x=table).tolist() == [3.0, 4.0]
    assert run("x[, 'b']", x=table).tolist() == [2.0, 4.0]
    assert run("x['q', 'a']", x=table).tolist() == [3.0]
    assert run("x[2]", x=table).tolist() == [3.0]
    assert run("t(as.matrix(x[1, ]))[, 'b']", x=table).tolist() == [2.0]


@pytest.mark.parametrize(
    ("right", "names"),
    [
        ("arm", ["arma", "armc"]),
        ("sex + age", ["sexm", "age"]),
        ("sex * age", ["sexm", "age", "sexm:age"]),
        ("age + sex:age", ["age", "sexm:age"]),
        ("age:sex", ["age:sexf", "age:sexm"]),
        ("I(age > 55) + log(y)", ["I(age > 55)TRUE", "log(y)"]),
        ("(age + y + sex)^2 - age:y", ["age", "y", "sexm", "age:sexm", "y:sexm"]),
        ("factor(y)", ["factor(y)2", "factor(y)3", "factor(y)4"]),
    ],
)
def test_columns_of_formulas(right: str, names: list[str]) -> None:
    """A level keeps its column although its only row is left out, as in R."""
    env = Environment({})
    frame = model_frame(env, env.run(parse(f"~ {right}")), ROWS, parse("!is.na(age)"))
    assert frame.matrix()[1] == names


def test_strata_clusters_and_missing_rows() -> None:
    env = Environment({})
    frame = model_frame(env, env.run(parse("~ age + strata(sex) + cluster(y)")), ROWS)
    assert frame.rows.tolist() == [True, True, False, True]
    assert frame.strata is not None
    assert frame.strata.tolist() == [1, 0, 1]
    assert frame.cluster is not None
    assert frame.cluster.tolist() == [1.0, 2.0, 4.0]


def test_columns_that_depend_on_others_have_no_coefficient() -> None:
    x = np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 1.0], [4.0, 8.0, 0.0], [3.0, 6.0, 0.0]])
    kept = Estimable.of(x)
    assert kept.columns.tolist() == [True, False, True]
    np.testing.assert_array_equal(kept.vector(np.array([5.0, 6.0])), [5.0, np.nan, 6.0])
    assert kept.matrix(np.eye(2)).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("text", ["nothing", "sapply(d, mean)", "d$nothing", "c(1, 2)['a']"])
def test_what_is_not_known_is_said(text: str) -> None:
    with pytest.raises(NotCoveredError):
        run(text)
