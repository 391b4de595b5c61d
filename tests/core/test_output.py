from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from medtwin.core.errors import DatasetError, OutputError
from medtwin.core.files import atomic_file, manifest_hash, verify_manifest, write_manifest
from medtwin.core.output import writing

CONFIG = {"n": 3}


def make(out: Path, text: str = "one", **options: bool) -> bool:
    with writing(out, {**CONFIG, "text": text}, **options) as output:
        if output is None:
            return False
        (output.path / "file.txt").write_text(text)
    return True


def test_a_finished_directory_is_complete_and_is_not_made_again(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert make(out)
    assert sorted(path.name for path in out.iterdir()) == ["file.txt", "manifest.json"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
    digest = manifest_hash(out)
    assert not make(out)
    assert manifest_hash(out) == digest


def test_overwrite_replaces_the_directory(tmp_path: Path) -> None:
    make(tmp_path / "out", "one")
    assert make(tmp_path / "out", "two", overwrite=True)
    assert (tmp_path / "out" / "file.txt").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_overwrite_keeps_the_old_directory(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with pytest.raises(RuntimeError), writing(tmp_path / "out", {"n": 9}, overwrite=True):
        raise RuntimeError
    assert (tmp_path / "out" / "file.txt").read_text() == "one"


def test_a_partial_run_is_continued_by_the_same_configuration_only(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fail_after_the_first_stage() -> None:
        with writing(out, CONFIG) as output:
            assert output is not None
            assert not output.resumed
            output.mark_done("first", {"count": 2})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_the_first_stage()
    with pytest.raises(OutputError, match=r"other settings.*overwrite=true"), writing(out, {"n": 4}):
        pass
    with writing(out, CONFIG) as output:
        assert output is not None
        assert output.resumed
        assert output.is_done("first")
        assert output.result("first") == {"count": 2}
        assert not output.is_done("second")
    assert (out / "manifest.json").is_file()
    assert not (out / ".state").exists()


def test_a_directory_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="did not finish it"):
        make(tmp_path / "out")
    with pytest.raises(OutputError, match="did not finish it"):
        make(tmp_path / "out", overwrite=True)


def test_nothing_is_written_into_a_finished_directory(tmp_path: Path) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "provenance.json").write_text("{}")
    with pytest.raises(OutputError, match="finished and immutable"):
        make(tmp_path / "out" / "deep" / "more")


def test_a_finished_directory_is_not_passed_off_as_another(tmp_path: Path) -> None:
    make(tmp_path / "out")
    record = {"config": {**CONFIG, "text": "one"}}
    (tmp_path / "out" / "provenance.json").write_text(json.dumps(record))
    assert not make(tmp_path / "out", "one")
    with pytest.raises(OutputError, match="finished with other settings"):
        make(tmp_path / "out", "two")


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        make(tmp_path / "file" / "out")


def hold(out: Path, ready: multiprocessing.synchronize.Event) -> None:
    with writing(out, CONFIG):
        ready.set()
        time.sleep(60)


def test_two_at_once_and_a_killed_owner(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    owner = context.Process(target=hold, args=(tmp_path / "out", ready))
    owner.start()
    assert ready.wait(30)
    with pytest.raises(OutputError, match=rf"being written by another medtwin process \(pid {owner.pid}\)"):
        make(tmp_path / "out")
    assert owner.pid is not None
    os.kill(owner.pid, signal.SIGKILL)
    owner.join(30)
    with writing(tmp_path / "out", CONFIG) as output:
        assert output is not None
        assert output.resumed


def test_a_kill_between_the_last_file_and_the_rename_loses_nothing(tmp_path: Path) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    make(out)
    digest = manifest_hash(out)
    with pytest.raises(RuntimeError), writing(partial.with_name("other"), {**CONFIG, "text": "one"}):
        raise RuntimeError
    out.rename(partial)
    (tmp_path / "other.partial" / ".state").rename(partial / ".state")
    assert not make(out)
    assert manifest_hash(out) == digest
    assert not partial.exists()


def test_a_kill_in_the_middle_of_the_swap_leaves_one_good_directory(tmp_path: Path) -> None:
    make(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    assert not make(tmp_path / "out", "old")
    assert (tmp_path / "out" / "file.txt").read_text() == "old"
    make(tmp_path / "new", "new")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    (tmp_path / "new").rename(tmp_path / "out.partial")
    assert not make(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir() if "old" in path.name or "partial" in path.name) == []


def test_the_manifest_finds_every_change(tmp_path: Path) -> None:
    for name in ("same", "changed", "gone", "sub/deep"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path)
    assert verify_manifest(tmp_path) == []
    (tmp_path / "changed").write_text("CHANGED")
    (tmp_path / "gone").unlink()
    (tmp_path / "added").write_text("")
    found = {(finding.rule, finding.where) for finding in verify_manifest(tmp_path)}
    assert found == {("file-changed", "changed"), ("file-missing", "gone"), ("file-added", "added")}
    with pytest.raises(DatasetError, match="not a finished medtwin directory"):
        manifest_hash(tmp_path / "sub")


def test_an_atomic_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"

    def fail_half_way() -> None:
        with atomic_file(path, "w") as file:
            file.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(path.parent.iterdir()) == []
