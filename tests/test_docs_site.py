"""The documentation site: its reference is the code's, its pages are listed, and it builds."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from docs.make_reference import MADE, PAGES, template_comments
from fedserver.keys import OPTIONS
from telemetry.exporters import clients_csv, meanings, rounds_csv
from tests.tools import require_package

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", MADE)
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    """`make reference` writes it again."""
    assert (PAGES / f"{name}.md").read_text(encoding="utf-8") == MADE[name]()


def test_every_option_of_the_configuration_is_explained() -> None:
    """By its comment in the template; options of strategies and of privacy have pages of their own."""
    comments = template_comments()
    elsewhere = ("strategy.", "privacy.", "server.tls.")
    wanted = [path for path in OPTIONS if not path.startswith(elsewhere)]
    assert [path for path in wanted if not comments.get(path)] == []


def test_every_column_of_the_exports_is_explained() -> None:
    """And no column that there is none of."""
    assert set(meanings.CSV) == set(rounds_csv.COLUMNS)
    assert set(meanings.CLIENTS_CSV) == set(clients_csv.COLUMNS)


class Requests(HTMLParser):
    """What a page loads by itself: scripts, styles, pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the address of what it embeds."""
        values = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.loaded.append(values.get("src") or "")
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(values.get("href") or "")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """`make docs`: every page in the table of contents, every link to a page or heading that is there."""
    require_package("sphinx")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
         str(ROOT / "docs"), str(tmp_path)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))
    for page in pages:
        parser = Requests()
        parser.feed(page.read_text(encoding="utf-8"))
        assert [one for one in parser.loaded if re.match(r"(https?:)?//", one)] == [], page.name
