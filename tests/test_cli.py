from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from medtwin.cli import VERBS, main, verb_help
from medtwin.config import quote_override
from medtwin.core.paths import config_dir


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    printed = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, printed.out, printed.err


def test_help_is_fast_and_loads_no_heavy_library() -> None:
    code = (
        "import sys\nfrom medtwin.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'monai', 'hydra', 'omegaconf', 'pandas', 'pydicom', 'fhir', 'pyarrow'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    best = min(_timed([sys.executable, "-c", code]) for _ in range(3))
    assert best < 1.0


def _timed(command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: medtwin VERB" in done.stdout
    return time.perf_counter() - start


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_config_that_explains_itself(verb: str) -> None:
    text = verb_help(verb)
    assert text.startswith(f"usage: medtwin {verb}")
    assert f"medtwin {verb}" in text.split("settings:")[0].split("\n", 1)[1]
    settings = [line for line in text.split("settings:")[1].split("options of")[0].splitlines() if line.strip()]
    assert sum(line.strip().startswith("#") for line in settings) >= 2
    assert "defaults" not in text
    assert "Redo it" not in text.split("settings:")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hospitl"], "there is no verb 'hospitl': did you mean hospital?"),
        (["zzz"], "see medtwin --help"),
        (["hospital", "nn=5"], "there is no setting 'nn' in `medtwin hospital`: did you mean n"),
        (["hospital", "whatever_else=5"], "`medtwin hospital --help` lists them"),
        (["hospital", "n"], "'n' is no key=value pair"),
        (["hospital", "n=["], "medtwin hospital --help"),
        (["hospital", "n=many"], "n must be int, got 'many'"),
        (["hospital", "n=0"], "n must be 1 or more"),
        (["hospital", "out="], "out must be Path, got ''"),
        (["export"], "dataset=... is required"),
        (["validate", "dataset=nowhere"], "nowhere is not a directory"),
        (["hospital", "--config-dir", "nowhere"], "--config-dir needs a folder"),
        (["ingest", "source=nowhere"], "source: nowhere does not exist"),
        (["ingest"], "source=DIR is required"),
        (["ingest", "source.fhir=nowhere"], "source.fhir: nowhere does not exist"),
        (["ingest", "source.fihr=nowhere"], "there is no setting 'source.fihr'"),
        (["ingest", "labels=nope", "source=."], "labels"),
    ],
)
def test_a_mistake_gives_one_clear_line_and_no_traceback(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments, capsys=capsys)
    assert code == 2
    assert message in err
    assert out == ""
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_version_help_and_resolved_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version", capsys=capsys)[1].startswith("medtwin ")
    code, out, _ = run("hospital", "n=7", "--cfg", capsys=capsys)
    assert code == 0
    assert "'n': 7" in out  # quoted: a bare n is a truth value in YAML 1.1
    assert "seed: 0" in out


def test_values_that_hydra_would_misread_are_quoted() -> None:
    assert quote_override("keep=condition(1)&sex(F)") == "keep='condition(1)&sex(F)'"
    assert quote_override("override.reason=because (of this)") == "override.reason='because (of this)'"
    assert quote_override("formats=[fhir,csv]") == "formats=[fhir,csv]"
    assert quote_override("seed=range(0,3)") == "seed=range(0,3)"


def test_every_config_is_documented_and_composes() -> None:
    from medtwin.config import compose

    assert {path.stem for path in config_dir().glob("*.yaml")} == set(VERBS)
    for verb in VERBS:
        assert compose(verb, ["dataset=x"] if verb in ("export", "validate") else [])
