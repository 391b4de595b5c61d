"""How a verb writes its directory: in `<out>.partial/`, under a lock, renamed when complete, continued after a kill."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtwin.core.errors import OutputError
from medtwin.core.files import MANIFEST, read_json, write_json, write_manifest

_STATE = ".state"


def config_hash(config: Mapping[str, Any]) -> str:
    """The sha256 of a configuration, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Output:
    """A directory in the making.

    Attributes:
        path: Where to write: `<out>.partial`. Files and stages from a killed run with the same configuration stand
            there.
        resumed: Whether such a run is being continued.
    """

    path: Path
    resumed: bool

    def is_done(self, stage: str) -> bool:
        """Whether a stage was completed, in this run or in the killed one that it continues."""
        return (self.path / _STATE / f"{stage}.done").is_file()

    def mark_done(self, stage: str, result: Mapping[str, Any] | None = None) -> None:
        """Records that a stage is complete, with what later stages need of it."""
        write_json(self.path / _STATE / f"{stage}.done", result or {})

    def result(self, stage: str) -> dict[str, Any]:
        """What a completed stage recorded."""
        return read_json(self.path / _STATE / f"{stage}.done")

    def scratch(self, name: str) -> Path:
        """A folder for intermediate files; it does not become part of the finished directory."""
        folder = self.path / _STATE / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@contextmanager
def writing(out: Path, config: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[Output | None]:
    """Yields the output to fill, or None if `out` is finished already; on a clean exit it is finished.

    On an exception or a kill `<out>.partial` stays, and the next call with the same configuration continues it.

    Args:
        out: The directory to make.
        config: What determines its content; another configuration does not continue a partial one.
        overwrite: Redo a finished output and discard a partial one. The finished one stays until the new one is
            complete.

    Raises:
        OutputError: If `out` is not ours to write, a process is writing it, or it was made (whole or in part) with
            another configuration.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 (resolve() would follow a link that the user put there on purpose)
    partial = out.with_name(out.name + ".partial")
    _require_free_place(out)
    _make_folder(out.parent)
    with _locked(partial, out):
        _recover_swap(partial, out)
        if is_finished(out) and not overwrite:
            _require_same(out, config)
            yield None
            return
        if out.exists() and not is_finished(out):
            raise OutputError(f"{out} exists and medtwin did not finish it: choose another out=, or remove it")
        resumed = _prepare(partial, config_hash(config), overwrite=overwrite)
        if is_finished(partial):  # killed between its last file and the rename
            _swap(partial, out)
            yield None
            return
        yield Output(partial, resumed)
        write_manifest(partial)
        _swap(partial, out)


def is_finished(out: Path) -> bool:
    """Whether a directory was completed: it has a manifest."""
    return (out / MANIFEST).is_file()


def _require_same(out: Path, config: Mapping[str, Any]) -> None:
    """Refuses to pass a finished directory off as what other settings would give."""
    path = out / "provenance.json"
    if path.is_file() and config_hash(read_json(path).get("config", {})) != config_hash(config):
        raise OutputError(
            f"{out} was finished with other settings, or its source has changed since: "
            "choose another out=, or use overwrite=true to redo it"
        )


def _require_free_place(out: Path) -> None:
    for parent in out.parents:
        if is_finished(parent) and (parent / "provenance.json").is_file():
            raise OutputError(f"{out} lies inside {parent}, which is finished and immutable: choose another out=")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}; choose another out=") from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder} cannot be written: choose another out=, or change its permissions")


@contextmanager
def _locked(partial: Path, out: Path) -> Iterator[None]:
    """Holds an advisory lock that the system releases when the process dies, however it dies."""
    path = out.with_name(f".{out.name}.lock")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            message = (
                f"{out} is being written by another medtwin process (pid {owner}): wait for it, or choose another out="
            )
            raise OutputError(message) from error
        if _is_same_file(descriptor, path):
            break
        os.close(descriptor)  # its owner finished and removed the file between our open and our lock
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _prepare(partial: Path, digest: str, *, overwrite: bool) -> bool:
    """Makes the partial folder, or checks that a killed run's can be continued; returns whether it is continued."""
    stamp = partial / _STATE / "config.json"
    if partial.exists() and overwrite:
        shutil.rmtree(partial)
    if partial.exists() and stamp.is_file():
        if read_json(stamp).get("sha256") == digest:
            return True
        raise OutputError(
            f"{partial} was left by a run with other settings: repeat those settings to continue it, "
            "or use overwrite=true to discard it"
        )
    if partial.exists():
        shutil.rmtree(partial)  # killed before its first stage, or between the last stage and the rename
    write_json(stamp, {"sha256": digest})
    return False


def _swap(partial: Path, out: Path) -> None:
    """Puts the complete directory in place; an old one is kept until the new one stands."""
    old = _old(out)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    _clean(out)


def _recover_swap(partial: Path, out: Path) -> None:
    """Mends what a kill in the middle of `_swap` left: the new directory takes its place."""
    if _old(out).exists() and not out.exists():
        (partial if is_finished(partial) else _old(out)).rename(out)
    if is_finished(out):
        _clean(out)


def _clean(out: Path) -> None:
    for leftover in (_old(out), out / _STATE):
        if leftover.exists():
            shutil.rmtree(leftover)


def _old(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")
