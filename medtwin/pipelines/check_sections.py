"""The sections of a check's page about records: codes, numbers, times, pairs, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medtwin.check import Findings
from medtwin.check.estimates import Distribution
from medtwin.check.findings import PairRow, StratumRow, ValueRow
from medtwin.check.matrix import MARGIN
from medtwin.pipelines.report_text import Cells, bare, interval, percent, rounded, short
from medtwin.report import Figure, Section, SideBySide, Table
from medtwin.report.comparisons import Curves, Panel, curve_multiples, histogram_multiples, scatter_plot
from medtwin.report.page import Part

_PAIRS = {
    "together": "at one time",
    "next": "next",
    "within-subject": "in one patient",
    "encounter": "in one encounter",
}
NUM_VALUES = 12
NUM_WORST = 12


def codes_section(findings: Findings) -> Section:
    """Prevalence of every code, the frequent ones that are furthest off, and the error by how common a code is."""
    rows = [row for row in findings.codes if row.num_real or row.num_synthetic]
    frequent = [i for i, row in enumerate(rows) if row.num_real >= 11]
    worst = sorted(frequent, key=lambda i: -abs(rows[i].log_ratio))[:6]
    scatter = scatter_plot(
        [row.prevalence_real for row in rows],
        [row.prevalence_synthetic for row in rows],
        x_label="share of reference patients with the code",
        y_label="share of twins with the code",
        names={i: short(rows[i].description, 30) for i in worst},
        limits=(min(0.5 / max(findings.num_real, 1), 0.01), 1.0),
    )
    decile: list[Cells] = [
        [
            row.decile,
            row.num_codes,
            f"{row.smallest_prevalence:.1%} \N{EN DASH} {row.largest_prevalence:.1%}",
            row.error.value,
            interval(row.error.low, row.error.high),
            row.error.baseline,
        ]
        for row in findings.deciles
    ]
    table: list[Cells] = [
        [
            short(rows[i].description, 60),
            rows[i].code if rows[i].description != rows[i].code else None,
            f"{rows[i].prevalence_real:.1%}",
            f"{rows[i].prevalence_synthetic:.1%}",
            rows[i].rate_real,
            rows[i].rate_synthetic,
        ]
        for i in sorted(frequent, key=lambda i: -abs(rows[i].log_ratio))[:NUM_WORST]
    ]
    parts: list[Part] = [
        Figure(
            scatter, "Prevalence of every code", "Orange: the frequent codes that are furthest off.", "scatter plot"
        ),
        Table(
            ["code", "", "reference patients", "twins", "events per year, reference", "twins"],
            table,
            "Frequent codes that are furthest off",
            "Of the codes that at least 11 reference patients have; all of them are in tables/codes.csv.",
        ),
        Table(
            ["tenth", "codes", "prevalence", "mean |log ratio|", "interval", "real against real"],
            decile,
            "Error by how common a code is",
            "1: the most common tenth. An error of 0.69 is a factor of 2.",
        ),
    ]
    return Section("Which codes, how often", [_sentence(findings, "codes.missing", "codes.novel")], parts)


def _sentence(findings: Findings, missing: str, novel: str) -> str:
    values = [findings.measure(name).estimate for name in (missing, novel)]
    if None in values:
        return ""
    first, second = (one.value for one in values if one is not None)
    base = [one.baseline for one in values if one is not None]
    return (
        f"{first:.1%} of the reference's codes are borne by no twin (between halves of the reference: {base[0]:.1%}), "
        f"and {second:.1%} of the twins' codes by no reference patient ({base[1]:.1%})."
    )


def values_section(findings: Findings) -> Section | None:
    """The most frequent measurements as histograms, and those that are furthest off."""
    if not findings.values:
        return None
    shown = sorted(findings.values, key=lambda row: -row.num_real)[:NUM_VALUES]
    shown = sorted(shown, key=lambda row: -row.ks.value)
    panels = [
        Panel(
            bare(row.description, 34), row.unit, row.support, row.cdf_real, row.cdf_synthetic, f"KS {row.ks.value:.2f}"
        )
        for row in shown
    ]
    table: list[Cells] = [
        [
            short(row.description, 60),
            row.unit,
            row.num_real,
            row.num_synthetic,
            row.ks.value,
            interval(row.ks.low, row.ks.high),
            row.ks.baseline,
            row.wasserstein.value,
            f"{row.outside:.1%}",
        ]
        for row in findings.values[:NUM_WORST]
    ]
    columns = ["code", "unit", "real values", "synthetic", "KS", "interval", "real against real", "W / IQR", "outside"]
    return Section(
        "Numbers",
        parts=[
            Figure(
                histogram_multiples(panels),
                "The most frequent measurements",
                "Filled: reference. Line: twins. KS: the largest gap of the cumulative curves, 0 to 1; worst first.",
                "small histograms of measurements",
            ),
            Table(columns, table, "Measurements that are furthest off", _value_note(findings.values)),
        ],
    )


def _value_note(rows: Sequence[ValueRow]) -> str:
    return (
        f"{len(rows)} codes with units were compared. W / IQR: Wasserstein distance in real interquartile ranges. "
        "Outside: share of synthetic values beyond the real 0.1\N{EN DASH}99.9 % range."
    )


def times_section(findings: Findings) -> Section:
    """Gaps, lengths, follow-up, deaths."""
    shown = {one.name: one for one in findings.distributions}
    panels = [
        _panel(shown[name], title, is_log=is_log)
        for name, title, is_log in (
            ("gaps", "From one time to the next", True),
            ("length", "Length of the record", False),
            ("follow_up", "Follow-up", False),
        )
        if name in shown
    ]
    parts: list[Part] = [Figure(histogram_multiples(panels, columns=3, height=2.2), "Gaps and lengths")]
    if (curve := shown.get("survival")) is not None:
        plot = Curves(
            "Survival (Kaplan-Meier)",
            curve.label,
            "share alive",
            [0.0, *curve.support],
            [1.0, *curve.cdf_real],
            [1.0, *curve.cdf_synthetic],
            is_step=True,
            limits=(max(min([*curve.cdf_real, *curve.cdf_synthetic]) - 0.1, 0.0), 1.005),
        )
        parts.append(Figure(curve_multiples([plot], columns=1, height=2.8), "Deaths", _deaths(findings)))
    rows: list[Cells] = [
        [
            row.band,
            row.num_real if row.num_real is not None else "not told",
            row.num_synthetic,
            row.events_real,
            row.events_synthetic,
            rounded(row.years_real),
            rounded(row.years_synthetic),
        ]
        for row in findings.ages
    ]
    columns = ["age at first event", "reference", "twins", "median events", "twins", "median years", "twins"]
    if rows:
        parts.append(Table(columns, rows, "Length of the record by age"))
    if findings.kinds:
        parts.append(_kind_table(findings))
    return Section("When", parts=parts)


def _deaths(findings: Findings) -> str:
    """The deaths of both sides in a sentence."""
    if not findings.survival:
        return ""
    row = findings.survival[0]
    real = "few" if row.deaths_real is None or row.share_real is None else f"{row.deaths_real:,} ({row.share_real:.1%})"
    unit, size = ("years", 1.0) if row.tau_years >= 2 else ("days", 365.25)
    means = f"{row.mean_real * size:.3g} and {row.mean_synthetic * size:.3g}"
    return (
        f"Deaths: {real} of the reference, {row.deaths_synthetic:,} ({row.share_synthetic:.1%}) of the twins. "
        f"Restricted mean survival up to {row.tau_years * size:.3g} {unit}: {means}."
    )


def _kind_table(findings: Findings) -> Table:
    """Gaps and lengths by kind of event, the worst first."""
    ordered = sorted(findings.kinds, key=lambda row: -max(row.length.value, row.gaps.value if row.gaps else 0.0))
    rows: list[Cells] = [
        [
            row.kind,
            row.num_codes,
            rounded(row.events_real),
            rounded(row.events_synthetic),
            row.length.value,
            row.length.baseline_worst,
            _hours(row.gap_real),
            _hours(row.gap_synthetic),
            None if row.gaps is None else row.gaps.value,
            None if row.gaps is None else row.gaps.baseline_worst,
        ]
        for row in ordered
    ]
    columns = [
        "kind",
        "codes",
        "events per patient",
        "twins",
        "KS",
        "real within",
        "median gap",
        "twins",
        "KS",
        "real within",
    ]
    note = (
        "KS: of events per patient, then of the gaps between times with such an event; beside it what 95 % of real "
        "halves stay within."
    )
    return Table(columns, rows, "By kind of event", note)


def _hours(value: float | None) -> str | None:
    """A gap in the unit that reads best."""
    if value is None:
        return None
    for size, unit in ((8766.0, "years"), (24.0, "days"), (1.0, "hours")):
        if value >= 2 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 60:.3g} minutes"


def _unlike(rows: Sequence[PairRow]) -> list[PairRow]:
    """The rows without those of which both codes stood in an earlier row of the same kind."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for row in rows:
        codes = {(row.kind, row.first), (row.kind, row.second)}
        if not codes <= seen:
            kept.append(row)
        seen |= codes
    return kept


def _lag_table(findings: Findings) -> Table:
    rows: list[Cells] = [
        [row.lag, row.num_pairs, row.error.value, interval(row.error.low, row.error.high), row.error.baseline_worst]
        for row in findings.lags
    ]
    columns = ["times apart", "pairs", "mean |log ratio|", "interval", "95 % of real within"]
    return Table(columns, rows, "Pairs of codes so many times apart")


def _panel(one: Distribution, title: str, *, is_log: bool) -> Panel:
    return Panel(title, one.label, one.support, one.cdf_real, one.cdf_synthetic, is_log=is_log)


def pairs_section(findings: Findings) -> Section | None:
    """Codes at one time and codes that follow each other."""
    if not findings.pairs:
        return None
    names = {row.code: short(row.description, 40) for row in findings.codes}
    parts: list[Part] = []
    kinds = ("together", "At one time"), ("next", "From one time to the next"), ("encounter", "In one encounter")
    for kind, title in kinds:
        rows = [row for row in findings.pairs if row.kind == kind]
        if not rows:
            continue
        what = "encounters" if kind == "encounter" else "steps"
        figure = scatter_plot(
            [row.real for row in rows],
            [row.synthetic for row in rows],
            x_label=f"share of the reference's {what}",
            y_label=f"share of the twins' {what}",
            limits=(1e-4, 1.0),
        )
        parts.append(Figure(figure, title, f"{len(rows):,} pairs of codes", "scatter plot of pairs"))
    ordered = sorted(findings.pairs, key=lambda row: -abs(row.real - row.synthetic))
    table = [
        [
            _PAIRS[row.kind],
            names.get(row.first, row.first),
            names.get(row.second, row.second),
            f"{row.real:.2%}",
            f"{row.synthetic:.2%}",
        ]
        for row in _unlike([one for one in ordered if one.kind != "within-subject"])[:NUM_WORST]
    ]
    if len(parts) >= 2 and isinstance(parts[0], Figure) and isinstance(parts[1], Figure):
        parts = [SideBySide(parts[0].title, parts[0], parts[1].title, parts[1]), *parts[2:]]
    if findings.lags:
        parts.append(_lag_table(findings))
    parts.append(Table(["", "code", "code", "reference", "twins"], table, "Pairs that are furthest off"))
    text = "A step is a time at which something happened to a patient. Good twins lie on the diagonal."
    return Section("Which codes belong together", [text], parts)


def strata_section(findings: Findings) -> Section | None:
    """The main measures within groups of patients; what is beyond chance is marked."""
    if not findings.strata:
        return None
    groups: dict[tuple[str, str], list[StratumRow]] = {}
    for row in findings.strata:
        groups.setdefault((row.division, row.level), []).append(row)
    names = list(dict.fromkeys(row.measure for row in findings.strata if row.measure))
    titles = {one.name: _brief(one.title) for one in findings.measures}
    table = []
    for (division, level), rows in groups.items():
        found = {row.measure: row for row in rows}
        real, twins = rows[0].num_real, rows[0].num_synthetic
        sizes = (
            None if real is None else percent(real / max(findings.num_real, 1)),
            percent(twins / max(findings.num_synthetic, 1)),
        )
        table.append([division, level, *sizes, *(_marked(found.get(name)) for name in names)])
    columns = ["", "group", "reference", "twins", *(titles.get(name, name) for name in names)]
    note = (
        f"Marked \N{BLACK DOWN-POINTING TRIANGLE}: beyond {MARGIN:g} times what 95 % of comparisons among real "
        "patients of the group stay within. A dash: too few patients to tell."
    )
    text = "An average may hide that one group is badly drawn, or hardly drawn at all."
    return Section("By group", [text], [Table(columns, table, note=note)])


def separators_section(findings: Findings) -> Section | None:
    """What a classifier tells the twins by."""
    measures = {one.name: one.estimate for one in findings.measures}
    told = [
        f"{what} {measures[name].value:.2f} (real against real: {measures[name].baseline:.2f})"  # type: ignore[union-attr]
        for name, what in (
            ("c2st.summaries", "from summaries of their records"),
            ("c2st.sequences", "from the order of events"),
        )
        if measures.get(name) is not None
    ]
    if not told:
        return None
    text = (
        "A classifier is trained to tell twins from real patients, and tested on those that it has not seen. Area "
        f"under the ROC curve, where 0.5 is chance and 1 is certain: {', '.join(told)}."
    )
    names = {row.code: row.description for row in findings.codes}
    rows: list[Cells] = [
        [_named(row.name, names), row.aspect, row.real, row.synthetic, row.importance] for row in findings.separators
    ]
    columns = ["", "what of it", "mean, reference", "mean, twins", "AUC lost without it"]
    parts: list[Part] = []
    if rows:
        note = "A fault that alone tells everybody hides the ones behind it."
        parts.append(Table(columns, rows, "What tells most", note))
    curve = next((one for one in findings.distributions if one.name == "likelihood"), None)
    if curve is not None:
        panel = _panel(curve, "", is_log=False)
        note = "Filled: real patients that the model did not see. Line: twins. To the right: more likely, more typical."
        figure = histogram_multiples([panel], columns=2, height=2.2)
        parts.append(Figure(figure, "How likely the model that made them finds them", note))
    return Section("Can they be told apart?", [text], parts)


def _named(text: str, names: Mapping[str, str]) -> str:
    """A summary's name with the description in the place of its code: `Body weight [kg]`."""
    code, bracket, unit = text.partition(" [")
    return f"{bare(names[code], 50)}{bracket}{unit}" if code in names else text


def _marked(row: StratumRow | None) -> str | None:
    if row is None or row.estimate is None:
        return None
    mark = " \N{BLACK DOWN-POINTING TRIANGLE}" if row.estimate.value > MARGIN * row.estimate.baseline_worst else ""
    return f"{row.estimate.value:.2g}{mark}"


def _brief(title: str) -> str:
    """The first words of a title, up to the colon: the head of a column."""
    return title.partition(":")[0]
