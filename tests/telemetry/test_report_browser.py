"""The report in a real browser, in every state of a run: nothing to complain of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.exporters import run_html
from telemetry.testing import RUN_ID
from tests.browser import Browser, Theme, browser
from tests.telemetry.report_runs import RUNS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all."""
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "theme"), [(1366, "light"), (360, "dark")])
@pytest.mark.parametrize("state", RUNS)
def test_nothing_is_wrong_for_axe_and_nothing_is_asked_for(
    window: Browser, tmp_path: Path, state: str, width: int, theme: Theme
) -> None:
    """No fault of accessibility, no complaint, no request but the file, nothing beyond the edge."""
    path = tmp_path / "report.html"
    run_html.FORMAT.save(RUNS[state](), RUN_ID, path)
    window.forget()
    window.look(width, theme)
    window.open(path.as_uri())
    assert [one["url"] for one in window.requests()] == [path.as_uri()]
    assert window.js("return document.documentElement.scrollWidth") <= width
    assert window.complaints() == []
    assert window.axe() == []


def test_axe_would_tell(window: Browser, tmp_path: Path) -> None:
    """Of a page that is made wrong: a plot without its words, a language that is none."""
    path = tmp_path / "report.html"
    run_html.FORMAT.save(RUNS["completed"](), RUN_ID, path)
    text = path.read_text(encoding="utf-8")
    assert 'lang="en' in text
    path.write_text(text.replace('lang="en', 'lang="nowhere', 1), encoding="utf-8")
    window.forget()
    window.open(path.as_uri())
    assert any(found.startswith("html-lang-valid") for found in window.axe())
