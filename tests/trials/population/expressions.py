"""Random eligibility expressions over the codes of `tests.trials.samples`, as text."""

from __future__ import annotations

from hypothesis import strategies as st

_DAYS = st.integers(0, 60)
_RELATION = st.sampled_from(["<", "<=", ">", ">=", "=", "!="])


@st.composite
def windows(draw: st.DrawFn) -> str:
    late, early = sorted((draw(_DAYS), draw(_DAYS)))
    return draw(st.sampled_from(["", "[:]", f"[-{early}d:]", f"[:-{late}d]", f"[-{early}d:-{late}d]"]))


@st.composite
def occurrences(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["condition", "event", "procedure"]))
    codes = draw(st.sampled_from(["SNOMED//44054006", "E11", "SNOMED//84114007 | E11", "84114007"]))
    return f"{kind}({codes}){draw(windows())}"


@st.composite
def leaves(draw: st.DrawFn) -> str:
    relation, number = draw(_RELATION), draw(st.integers(0, 12))
    series = f"{draw(st.sampled_from(['hba1c', 'value(LOINC//4548-4, %)']))}{draw(windows())}"
    aggregate = draw(st.sampled_from(["last", "first", "min", "max", "mean", "count", "days"]))
    return draw(
        st.sampled_from(
            [
                f"age {relation} {draw(st.integers(15, 80))}",
                f"{draw(st.integers(15, 40))} <= age < {draw(st.integers(41, 80))}",
                f"followed {relation} {draw(_DAYS)}d",
                f"observed {relation} {draw(_DAYS)}d",
                f"sex {draw(st.sampled_from(['=', '!=']))} {draw(st.sampled_from(['F', 'M']))}",
                f"race in {{white, {draw(st.sampled_from(['black', 'asian', '2106-3']))}}}",
                f"{series} {relation} {number}",
                f"{aggregate}({series}) {relation} {number}",
                f"{aggregate}({series}) in {{{number}, 7, 0.5}}",
                f"{draw(st.sampled_from(['count', 'days']))}({draw(occurrences())}) {relation} {number % 4}",
                draw(occurrences()),
                f"no {draw(occurrences())}",
            ]
        )
    )


def propositions() -> st.SearchStrategy[str]:
    """Expressions up to some depth."""
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from([" & ", " | ", " and ", " or "]), inner).map("".join),
            inner.map(lambda text: f"not ({text})"),
            inner.map(lambda text: f"({text})"),
        ),
        max_leaves=5,
    )
