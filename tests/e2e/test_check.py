"""`medtwin check` through the command line: twins against their source, verdict, report, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from medtwin.core.dataset import open_dataset
from medtwin.core.files import MANIFEST, read_json, verify_manifest, write_json, write_manifest
from medtwin.core.paths import schema_dir
from medtwin.core.provenance import read_provenance
from medtwin.core.pseudonyms import load_or_create_key
from medtwin.core.verdict import read_verdict

Medtwin = Callable[..., subprocess.CompletedProcess[str]]

MAY_BE_EMPTY = (
    "images", "separators", "units", "image_strata", "image_labels", "risks", "memberships", "identifiers",
    "generations", "rare_codes", "fairness", "small_cells", "utility_groups",
)  # fmt: skip
"""Tables of what these few patients do not have."""


@pytest.fixture(scope="module")
def twins(medtwin: Medtwin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another hospital of the same law: what perfect twins would be, said to be synthetic."""
    folder = tmp_path_factory.mktemp("twins")
    key = folder / "key"  # under that of the source they would bear its ids, which are looked for in them
    load_or_create_key(key, b"medtwin twins, never a real key0")
    medtwin("hospital", "n=60", "seed=8", f"out={folder / 'hospital'}")
    medtwin(
        "ingest", f"source={folder / 'hospital'}", f"pseudonyms.key_file={key}", f"out={folder / 'twins'}",
        "splits.tuning=0", "splits.held_out=0",
    )  # fmt: skip
    return with_origin(folder / "twins", "synthetic")


SECTIONS = (
    "Timelines",
    "Images",
    "Which codes, how often",
    "Numbers",
    "When",
    "Which codes belong together",
    "How numbers hang together",
    "By group",
    "Copies",
    "What must never happen",
    "Every measure",
)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def with_origin(folder: Path, origin: str) -> Path:
    """Says another origin of a finished dataset."""
    path = folder / "metadata" / "dataset.json"
    write_json(path, {**read_json(path), "origin": origin})
    provenance = read_json(folder / "provenance.json")
    write_json(folder / "provenance.json", {**provenance, "origin": origin})
    (folder / MANIFEST).unlink()
    write_manifest(folder)
    return folder


@pytest.fixture(scope="module")
def checked(medtwin: Medtwin, twins: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("check") / "check"
    done = medtwin("check", f"synthetic={twins}", f"real={dataset}", f"out={out}", "resamples=30")
    assert "the research profile lets the twins leave" in done.stdout
    assert f"look at {out / 'report.html'}" in done.stdout
    return out


def test_a_check_leaves_a_finished_directory_with_verdict_findings_and_tables(checked: Path, twins: Path) -> None:
    assert verify_manifest(checked) == []
    verdict = read_verdict(checked)
    assert verdict.manifest_sha256 == open_dataset(twins).manifest_hash()
    assert verdict.gates["values"] == "unchecked"  # 40 subjects of the source are too few to tell
    assert verdict.gates["plausibility"] == "unchecked"
    findings = json.loads((checked / "findings.json").read_text())
    assert {one["name"] for one in findings["gates"]} == set(verdict.gates)
    assert list(Draft202012Validator(read_json(schema_dir() / "findings.schema.json")).iter_errors(findings)) == []
    record = read_provenance(checked)
    assert (record["verb"], record["origin"], record["seed"]) == ("check", "synthetic", 0)
    assert {one["role"] for one in record["inputs"]} == {"synthetic", "real"}
    for path in (checked / "tables").glob("*.csv"):
        rows = table(path)
        assert rows or path.stem in MAY_BE_EMPTY, path
        assert all(None not in row for row in rows), path
    assert str(twins.parent) not in (checked / "provenance.json").read_text()


def test_the_report_needs_nothing_from_outside_and_shows_what_it_should(checked: Path) -> None:
    html = (checked / "report.html").read_text()
    titles = re.findall("<h2>(.*?)</h2>", html)
    assert titles[:2] == ["Verdict", "What is furthest off"]
    for title in SECTIONS:
        assert title in titles
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    assert "<script" not in html
    assert "reference images" in html  # the source is simulated: its patients may be shown


@pytest.mark.slow
def test_a_task_and_further_seeds_are_measured_as_far_as_the_patients_go(
    medtwin: Medtwin, twins: Path, dataset: Path, tmp_path: Path
) -> None:
    out, also = tmp_path / "check", Path(shutil.copytree(twins, tmp_path / "also"))
    task = ["task=icu_mortality_48h", "task.anchor=[]", "task.first_hours=8766", "task.labels=null"]
    task += ["task.outcome=[MEDS_DEATH]", "task.known_by=[]", "images=false", "resamples=20"]
    medtwin("check", f"synthetic={twins}", f"also=[{also}]", f"real={dataset}", *task, f"out={out}")
    findings = read_json(out / "findings.json")
    assert list(Draft202012Validator(read_json(schema_dir() / "findings.schema.json")).iter_errors(findings)) == []
    assert findings["utility"]["task"]["first_hours"] == 8766
    assert len([side for side in findings["utility"]["sides"] if side["side"].startswith("twins")]) == 2
    assert read_verdict(out).gates["usefulness"] in ("unchecked", "not_applicable")  # too few die
    assert (out / "tables" / "utility_sides.csv").is_file()
    assert "Death in hospital" in (out / "report.html").read_text()
    assert {one["role"] for one in read_provenance(out)["inputs"]} == {"synthetic", "real", "also"}


@pytest.mark.slow
def test_a_changed_profile_bears_another_name(medtwin: Medtwin, twins: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "check"
    changes = ["gates=public", "gates.judge.gaps.bound=0.5", "gates.unchecked=allowed", "images=false", "resamples=20"]
    medtwin("check", f"synthetic={twins}", f"real={dataset}", *changes, f"out={out}")
    verdict = read_verdict(out)
    assert (verdict.profile, verdict.unchecked) == ("public, changed", "allowed")


def test_the_verdict_opens_the_door_of_export(medtwin: Medtwin, checked: Path, twins: Path, tmp_path: Path) -> None:
    refused = medtwin("export", f"dataset={twins}", f"out={tmp_path / 'no'}", "formats=[csv]", code=2)
    assert "synthetic and unchecked" in refused.stderr
    medtwin("export", f"dataset={twins}", f"check={checked}", f"out={tmp_path / 'yes'}", "formats=[csv]")
    assert (tmp_path / "yes" / "csv" / "events.csv").is_file()


def test_a_finished_check_is_kept_and_other_settings_are_refused(
    medtwin: Medtwin, checked: Path, twins: Path, dataset: Path
) -> None:
    same = medtwin("check", f"synthetic={twins}", f"real={dataset}", f"out={checked}", "resamples=30")
    assert "finished already" in same.stdout
    other = medtwin("check", f"synthetic={twins}", f"real={dataset}", f"out={checked}", "resamples=31", code=2)
    assert "finished with other settings" in other.stderr


def test_copied_patients_are_refused_by_the_verdict_and_by_export(
    medtwin: Medtwin, dataset: Path, tmp_path: Path
) -> None:
    thief = with_origin(Path(shutil.copytree(dataset, tmp_path / "thief")), "synthetic")
    out = tmp_path / "check"
    done = medtwin("check", f"synthetic={thief}", f"real={dataset}", f"out={out}", "resamples=20")
    assert re.search(r"the research profile refuses the twins: .*copies failed.*image-copies failed", done.stdout)
    assert 'class="banner bad"' in (out / "report.html").read_text()
    refused = medtwin("export", f"dataset={thief}", f"check={out}", f"out={tmp_path / 'x'}", "formats=[csv]", code=2)
    assert "copies failed" in refused.stderr


def test_real_patients_are_not_shown(medtwin: Medtwin, twins: Path, dataset: Path, tmp_path: Path) -> None:
    patients = with_origin(Path(shutil.copytree(dataset, tmp_path / "patients")), "real")
    out = tmp_path / "check"
    medtwin("check", f"synthetic={twins}", f"real={patients}", f"out={out}", "resamples=20")
    html = (out / "report.html").read_text()
    assert "Timelines of real patients are not drawn" in html
    assert "Images of real patients are not shown" in html
    assert "Patient 1:" not in html
    assert "reference images" not in html
    counts = [int(row["num_real"]) for row in table(out / "tables" / "codes.csv")]
    assert all(count == 0 or count >= 11 for count in counts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "synthetic=... is required"),
        (["synthetic={real}", "real={real}"], "are the same directory"),
        (["synthetic={real}", "real={twins}"], "are synthetic= and real= swapped?"),
        (["synthetic={twins}", "real={real}", "gates=friends"], "the options are partner, public, questions, research"),
        (["synthetic={twins}", "real={real}", "gates=questions"], "gates must have profile: choose gates=research"),
        (["synthetic={twins}", "real={real}", "resamples=5"], "resamples must be 20 or more"),
        (["synthetic={twins}", "real={real}", "out={twins}/check"], "lies inside its own source"),
        (["synthetic={twins}", "real=nowhere"], "nowhere is not a directory"),
        (["synthetic={twins}", "real={real}", "gates.judge.gaps.bound=-1"], "bound must be 0 or more"),
    ],
)
def test_a_mistake_gives_one_clear_line(
    medtwin: Medtwin, twins: Path, dataset: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    filled = [one.format(real=dataset, twins=twins) for one in arguments]
    out = [] if any(one.startswith("out=") for one in filled) else [f"out={tmp_path / 'out'}"]
    done = medtwin("check", *filled, *out, code=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium to draw the page")
def test_chromium_draws_and_prints_the_page_without_an_error_or_a_request(checked: Path, tmp_path: Path) -> None:
    picture, paper = tmp_path / "page.png", tmp_path / "page.pdf"
    asked, console = browse(checked / "report.html", tmp_path, f"--screenshot={picture}")
    assert picture.stat().st_size > 50_000
    assert (asked, console) == (set(), "")
    browse(checked / "report.html", tmp_path, f"--print-to-pdf={paper}")
    assert paper.read_bytes().count(b"/Type /Page\n") > 3
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://other.invalid/x.png'><script>console.error('CONSOLE-TEST')</script>")
    asked, console = browse(bad, tmp_path, f"--screenshot={picture}")
    assert asked == {"http://other.invalid/x.png"}
    assert "CONSOLE-TEST" in console


def browse(page: Path, folder: Path, what: str) -> tuple[set[str], str]:
    """What a page asks of the network, and writes to the console; the browser's own requests to its maker left out."""
    log = folder / "net.json"
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1200,2400",
        "--enable-logging=stderr",
    ]
    command += ["--disable-background-networking", "--no-first-run", f"--user-data-dir={folder / 'profile'}"]
    command += [f"--log-net-log={log}", what, f"file://{page}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    urls = set(re.findall(r'"url":"(https?://[^"]+)"', log.read_text(encoding="utf-8", errors="replace")))
    # Its maker's hosts, and the names without a dot by which it finds out whether the network redirects.
    own = re.compile(r"https?://([\w.-]*(google|googleapis|gvt1)\.com|[a-z]{7,15})(:\d+)?(/|$)")
    lines = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return {url for url in urls if not own.match(url)}, "\n".join(lines)
