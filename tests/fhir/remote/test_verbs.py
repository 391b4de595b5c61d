"""`medtwin export to=fhir_server` and `to=bulk_import`, from a dataset to what the server holds."""

from __future__ import annotations

import csv
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest

from medtwin.cli import main
from medtwin.fhir.server import Sender, ServerSettings, ServerSource, fetch_search, fetch_server
from tests.fhir.remote import samples
from tests.fhir.remote.fake import dangling
from tests.peers import ROOT
from tests.servers.fhir import FhirServer

NUM_SUBJECTS = 24


def run(*arguments: object) -> int:
    """Runs the command line in this process; returns its exit code."""
    with pytest.raises(SystemExit) as done:
        main([str(each) for each in arguments])
    return int(done.value.code or 0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated subjects, ingested."""
    folder = tmp_path_factory.mktemp("dataset")
    samples.write_folder(folder / "in", NUM_SUBJECTS)
    assert run("ingest", f"source.fhir={folder / 'in'}", "source.origin=simulated", f"out={folder / 'dataset'}") == 0
    return folder / "dataset"


def counts(out: Path) -> dict[str, int]:
    return dict(json.loads((out / "counts.json").read_text())["fhir_server"])


def test_a_dataset_is_sent(
    tmp_path: Path, dataset: Path, fhir_server: FhirServer, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sent"
    order = ("export", f"dataset={dataset}", "to=fhir_server", f"server.url={fhir_server.base}", f"out={out}")
    assert run(*order) == 0
    held = fhir_server.counts()
    assert held["Patient"] == NUM_SUBJECTS
    assert held["Observation"] == 3 * NUM_SUBJECTS
    told = counts(out)
    assert {name.partition(" ")[0]: told[name] for name in told if name.endswith(" created")} == held
    assert sorted(path.name for path in out.iterdir()) == [
        "counts.json",
        "journal.jsonl",
        "manifest.json",
        "provenance.json",
    ]
    assert "Patient created" in capsys.readouterr().out
    # Finished is finished; redone, the same resources are put under the same ids.
    assert run(*order) == 0
    assert "finished already" in capsys.readouterr().out
    assert run(*order, "overwrite=true") == 0
    again = fhir_server.counts()
    assert {kind: again[kind] for kind in again if kind != "Provenance"} == {
        kind: held[kind] for kind in held if kind != "Provenance"
    }


def test_a_preset_and_conditional_creates(
    tmp_path: Path, dataset: Path, fhir_server: FhirServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fhir_server.reset(medplumLimits=True)
    monkeypatch.setenv("FHIR_TOKEN", "given")
    order = ["export", f"dataset={dataset}", "to=fhir_server", "server=medplum", "server.write=if_none_exist"]
    assert run(*order, f"server.url={fhir_server.base}", f"out={tmp_path / 'sent'}") == 0
    assert fhir_server.counts()["Patient"] == NUM_SUBJECTS
    assert 4 < max(each.get("entries") or 0 for each in fhir_server.log()) <= 8
    text = "".join(path.read_text() for path in (tmp_path / "sent").rglob("*") if path.is_file())
    assert "given" not in text.replace("none-given", "")


def test_a_refused_resource_leaves_the_export_open_until_it_is_mended(
    tmp_path: Path, dataset: Path, fhir_server: FhirServer, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sent"
    chosen = ["server.bundle=batch", "server.integrity=false"]
    order = ["export", f"dataset={dataset}", "to=fhir_server", f"server.url={fhir_server.base}", f"out={out}", *chosen]
    fhir_server.reset(referential=False)
    fhir_server.control(faults=[{"kind": "entry", "status": 422, "count": 3}])
    assert run(*order) == 2
    told = capsys.readouterr().err
    assert "the server refused 3 resources" in told
    assert "server.allow_failures=true" in told
    with (tmp_path / "sent.partial" / "rejected" / "rejected.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["422"] * 3
    asked = len(fhir_server.log())
    assert run(*order) == 0
    sent = [each["entries"] for each in fhir_server.log()[asked:] if each["method"] == "POST"]
    assert sum(sent) == 3
    assert not (out / "rejected").exists()
    assert sum(fhir_server.counts().values()) == sum(n for name, n in counts(out).items() if name.endswith("created"))


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ([], "server.url=... is required"),
        (["server.url=http://example.org/fhir"], "server: url is plain http to example.org"),
        (["server.url=https://x.example/fhir", "server=azure"], "the environment variable FHIR_TOKEN holds no token"),
        (["server.url=https://x.example/fhir", "server.max_entries=0"], "server: max_entries must be more than 0"),
    ],
)
def test_what_cannot_be_used_is_told_at_once(
    tmp_path: Path,
    dataset: Path,
    settings: list[str],
    rule: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FHIR_TOKEN", raising=False)
    assert run("export", f"dataset={dataset}", "to=fhir_server", f"out={tmp_path / 'x'}", *settings) == 2
    assert rule in capsys.readouterr().err


def test_ctrl_c_leaves_what_the_same_command_continues(
    tmp_path: Path, dataset: Path, fhir_server: FhirServer, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sent"
    slow = {"kind": "slow", "seconds": 1.5, "match": "POST", "after": 3, "count": 100}
    fhir_server.control(faults=[slow])
    order = [
        f"dataset={dataset}",
        "to=fhir_server",
        f"server.url={fhir_server.base}",
        f"out={out}",
        "server.max_entries=12",
    ]
    command = [sys.executable, "-m", "medtwin", "export", *order]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "sent.partial" / "journal.jsonl"
    while not (journal.exists() and journal.read_text().count("concluded") >= 3):
        assert process.poll() is None
        time.sleep(0.01)
    # A second process is told that this one is at work.
    assert run("export", *order) == 2
    assert "is being written by another medtwin process" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues" in told
    done = journal.read_text().count("concluded")
    fhir_server.control(faults=[])
    asked = len(fhir_server.log())
    assert run("export", *order) == 0
    total = (out / "journal.jsonl").read_text().count("concluded")
    posts = [each for each in fhir_server.log()[asked:] if each["method"] == "POST"]
    assert len(posts) == total - done
    told_counts = counts(out)
    assert sum(n for name, n in told_counts.items() if name.endswith(("created", "updated", "unchanged"))) == sum(
        fhir_server.counts().values()
    )


@pytest.mark.parametrize("dialect", ["hapi", "azure"])
def test_a_bulk_import_is_written(tmp_path: Path, dataset: Path, dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "bulk"
    order = ["export", f"dataset={dataset}", "to=bulk_import", f"bulk={dialect}", "bulk.base_url=https://x.example/in"]
    assert run(*order, "bulk.max_resources=10", f"out={out}") == 0
    request = json.loads((out / "request.json").read_text())
    listed = json.loads((out / "files.json").read_text())
    urls = [
        part["valueUri"]
        for each in request["parameter"]
        if each["name"] == "input"
        for part in each["part"]
        if part["name"] == "url"
    ]
    assert sorted(urls) == sorted(f"https://x.example/in/{name}" for name in listed)
    assert sorted(path.name for path in (out / "files").iterdir()) == sorted(listed)
    assert max(each["count"] for each in listed.values()) == 10
    told = json.loads((out / "counts.json").read_text())["bulk_import"]
    assert told["Observation"] == 3 * NUM_SUBJECTS
    assert told["Observation files"] == -(-3 * NUM_SUBJECTS // 10)
    assert "$import" in (out / "command.sh").read_text()


def test_a_bulk_import_that_lacks_something_is_told_before_anything_is_written(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ["export", f"dataset={dataset}", "to=bulk_import", f"out={tmp_path / 'bulk'}"]
    assert run(*order, "bulk=healthlake", "bulk.base_url=s3://b/in") == 2
    assert "datastore_id=... is required" in capsys.readouterr().err
    assert run(*order) == 2
    assert "base_url must say where" in capsys.readouterr().err


@pytest.mark.slow
def test_200_hospital_subjects_arrive_in_three_minutes_without_torch(tmp_path: Path, fhir_server: FhirServer) -> None:
    """The whole way, each verb in a process of its own, as a user goes it."""
    fhir_server.reset()
    script = (
        "import sys\n"
        "from medtwin.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    heavy = {'torch', 'lightning', 'monai'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )

    def medtwin(*arguments: str) -> None:
        subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, check=True)

    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    medtwin("hospital", "n=200", "seed=5", f"out={tmp_path / 'hospital'}")
    medtwin("ingest", f"source={tmp_path / 'hospital'}", f"out={tmp_path / 'dataset'}")
    order = [f"dataset={tmp_path / 'dataset'}", "to=fhir_server", "server=hapi", f"server.url={fhir_server.base}"]
    medtwin("export", *order, f"out={tmp_path / 'sent'}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall = time.monotonic() - begun
    # Where other work takes the processors, what the verbs used tells more: half of the time is left to the server.
    assert wall < 180 or cpu < 90, f"{wall:.0f} s, {cpu:.0f} s of CPU"
    held = fhir_server.counts()
    told = counts(tmp_path / "sent")
    assert held["Patient"] == 200
    assert sum(held.values()) == sum(number for name, number in told.items() if name.endswith(" created"))
    back = tmp_path / "back"
    fetch_search(ServerSource(url=fhir_server.base, types=tuple(held), page_size=1000), back)
    stored = {}
    for path in back.glob("*.ndjson"):
        for line in path.read_text().splitlines():
            each = json.loads(line)
            stored[samples.key(each)] = each
    assert len(stored) == sum(held.values())
    assert dangling(stored) == []


def test_a_mistake_leaves_no_output_that_a_mended_command_could_not_continue(
    tmp_path: Path, dataset: Path, fhir_server: FhirServer, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ["export", f"dataset={dataset}", "to=fhir_server", f"out={tmp_path / 'sent'}", "server.retries=0"]
    assert run(*order, "server.url=http://127.0.0.1:9/fhir") == 2
    assert "127.0.0.1 cannot be reached" in capsys.readouterr().err
    assert run(*order, f"server.url={fhir_server.root}/elsewhere") == 2
    assert "to a request for its /metadata: is the url its FHIR base?" in capsys.readouterr().err
    assert not (tmp_path / "sent.partial").exists()
    assert run(*order, f"server.url={fhir_server.base}") == 0


@pytest.mark.parametrize("how", ["search", "export"])
def test_what_a_server_gives_is_what_its_files_give(
    tmp_path: Path, dataset: Path, fhir_server: FhirServer, how: Literal["search", "export"]
) -> None:
    """Sent, fetched again and ingested: the same events as from the files that were sent."""
    fhir_server.reset(bulk={"polls": 1, "retryAfter": 0, "filesOf": 30})
    samples.write_folder(tmp_path / "in", NUM_SUBJECTS)
    with Sender(tmp_path / "in", ServerSettings(url=fhir_server.base), tmp_path / "journal.jsonl") as sender:
        sum(sender.steps())
    source = ServerSource(url=fhir_server.base, how=how, level="system", page_size=13)
    report = fetch_server(source, tmp_path / "raw")
    assert report.counts["Observation"] == 3 * NUM_SUBJECTS
    assert run("ingest", f"source.fhir={tmp_path / 'raw'}", "source.origin=simulated", f"out={tmp_path / 'out'}") == 0
    books = [json.loads((folder / "counts.json").read_text()) for folder in (dataset, tmp_path / "out")]
    assert books[0]["carried"] == books[1]["carried"]
    assert books[0]["rejected"] == books[1]["rejected"]
