from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

from medtwin.cli import VERBS
from medtwin.config import compose, quote_override
from medtwin.core.events import EVENT_SCHEMA

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_of_laws_is_what_the_laws_say() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "laws"))["page"]()
    assert (ROOT / "docs" / "hospital.md").read_text(encoding="utf-8") == page, "run scripts/laws"


def test_the_conventions_name_every_column() -> None:
    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    for field in EVENT_SCHEMA:
        assert f"| {field.name} | {str(field.type).replace('float', 'float32')} |" in text


def test_the_readme_shows_verbs_and_settings_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    commands = re.findall(r"^medtwin (\w+) ([^#\n]*)", blocks, re.MULTILINE)
    assert len(commands) >= 5
    assert {verb for verb, _ in commands} == set(VERBS)
    assert set(re.findall(r"`medtwin (\w+)`", text)) <= set(VERBS)
    for verb, written in commands:
        given = [word for word in shlex.split(written) if word != "-m" and not word.startswith("hydra")]
        if "-m" in shlex.split(written):  # one of the runs of the sweep
            given = [word.split(",")[0] for word in given]
        compose(verb, [quote_override(word) for word in given])  # refuses what is no setting


def test_links_in_the_docs_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
