from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from medtwin.core.errors import OutputError
from medtwin.fhir.remote.journal import Failure, Journal, Tally

ABOUT = {"server": "https://fhir.example/fhir", "write": "put"}


def tally() -> Tally:
    done = Counter({("Patient", "created"): 2, ("Observation", "updated"): 1})
    failure = Failure("Encounter/e", 422, ("value",), ("Encounter.status",))
    return Tally(done, [failure], {"Patient/p": "Patient/s1"}, [["Condition/c"]])


def test_what_was_recorded_is_there_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", ABOUT)
    assert journal.start("2025-01-01T00:00:00+00:00") == "2025-01-01T00:00:00+00:00"
    journal.record("a", "sent")
    journal.record("b", "sent")
    journal.record("b", "divided")
    journal.record("a", "concluded", tally())
    journal.close()
    again = Journal(tmp_path / "j", ABOUT)
    assert [again.state(name) for name in ("a", "b", "c")] == ["concluded", "divided", None]
    assert again.tally("a") == tally()
    assert again.num("concluded") == 1
    assert again.start("2026-01-01T00:00:00+00:00") == "2025-01-01T00:00:00+00:00"
    again.record("c", "concluded", tally())
    assert again.total().num_done == 6
    assert len(again.total().failures) == 2
    again.close()


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", ABOUT)
    journal.record("a", "concluded", tally())
    journal.close()
    whole = (tmp_path / "j").read_bytes()
    for cut in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:cut])
        again = Journal(tmp_path / "cut", ABOUT)
        assert again.state("a") is None
        again.record("b", "sent")
        again.close()
        assert (tmp_path / "cut").read_bytes().count(b"\n") == 2
        once_more = Journal(tmp_path / "cut", ABOUT)
        assert once_more.state("b") == "sent"
        once_more.close()


def test_the_last_line_of_a_parcel_holds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", ABOUT)
    journal.record("a", "concluded", tally())
    journal.record("a", "continued", Tally(tally().done, [], {}, [["Encounter/e"]]))
    assert journal.state("a") == "continued"
    assert journal.total().failures == []
    journal.close()


def test_another_server_is_not_continued(tmp_path: Path) -> None:
    Journal(tmp_path / "j", ABOUT).close()
    with pytest.raises(OutputError, match="about another server"):
        Journal(tmp_path / "j", ABOUT | {"write": "if_none_exist"})
    (tmp_path / "k").write_text("something\n")
    with pytest.raises(OutputError, match="is no journal"):
        Journal(tmp_path / "k", ABOUT)
