"""Makes the README's pictures from real demos: python docs/make_pictures.py (or: make pictures)."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from fedserver.demo.show import show
from fedserver.logs import set_up_logging
from fedserver.terminal.display import LiveDisplay
from fedserver.terminal.drawing import lines
from fedserver.terminal.view import Start, View

IMAGES = Path(__file__).parent / "images"
WIDTH = 132
LIVE_WIDTH, LIVE_HEIGHT = 88, 24
"""Of a terminal that people have."""
LOG_LINES = 5
PAGE_WIDTH = 1200


def main() -> None:
    """Run the demo for each: keep what it prints, a moment of its live display, its page."""
    IMAGES.mkdir(exist_ok=True)
    wanted = sys.argv[1:] or ["demo", "live", "page"]
    if "demo" in wanted:
        printed()
    if "live" in wanted:
        live()
    if "page" in wanted:
        page()


def printed() -> None:
    """What the demo prints where no display is."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fedserver", "demo", "--linger", "0"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=120, check=True
        )
    console = _console(WIDTH)
    console.print(Text("$ make demo", style="bold"))
    for line in done.stdout.splitlines():
        text = _log_line(line)
        text.highlight_regex(r"accuracy [\d.]+", "green")
        text.highlight_regex(r"[\d.]+ g\b", "cyan")
        text.highlight_regex(r"^total .*", "bold")
        console.print(text, highlight=False)
    console.save_svg(str(IMAGES / "demo.svg"), title="fedserver demo")


def live() -> None:
    """The display in the fourth round, when some clients have answered: with the last of the log."""
    log, moments = io.StringIO(), list[tuple[View, list[str]]]()

    def keep(view: View | Start, width: int, height: int) -> list[Text]:
        if isinstance(view, View) and view.round >= 4 and 0 < view.answered < view.asked:
            moments.append((view, log.getvalue().splitlines()))
        return lines(view, width, height)

    nowhere = Console(file=io.StringIO(), force_terminal=True, width=LIVE_WIDTH, height=LIVE_HEIGHT)
    display = LiveDisplay(set_up_logging(io.StringIO()), console=nowhere, draw=keep)
    also = logging.StreamHandler(log)
    also.setFormatter(logging.getLogger().handlers[0].formatter)
    logging.getLogger().addHandler(also)
    with tempfile.TemporaryDirectory() as folder:
        show(Path(folder), port=0, linger_s=0, country="ESP", display=display)
    training = [moment for moment in moments if moment[0].step == "training"]
    view, said = (training or moments)[0]
    console = _console(LIVE_WIDTH)
    for line in said[-LOG_LINES:]:
        console.print(_log_line(line), highlight=False)
    console.print(*lines(view, LIVE_WIDTH, LIVE_HEIGHT), sep="\n")
    console.save_svg(str(IMAGES / "live.svg"), title="fedserver run")


def page() -> None:
    """The page of the run in a browser, down to its charts, after the last round."""
    from tests.browser import browser  # Chromium: .ci/debian-tools fetches it

    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as window:
        command = [sys.executable, "-m", "fedserver", "demo", "--plain", "--linger", "60"]
        with subprocess.Popen(
            [*command, "--metrics-port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True
        ) as demo:
            try:
                assert demo.stdout is not None
                address = next(
                    found.group(1)
                    for line in demo.stdout
                    if (found := re.search(r"curl (http\S+)/metrics", line))
                )
                window.look(PAGE_WIDTH, "light")
                window.open(address, until="document.querySelector('#runs tbody a')")
                window.open(window.js("return document.querySelector('#runs tbody a').href"))
                window.wait("document.getElementById('live').textContent === 'Ended'", 60)
                end = window.js(
                    "return document.getElementById('chart-phases').getBoundingClientRect().top"
                )
                window.picture(IMAGES / "page.png", PAGE_WIDTH, round(end) - 24)
            finally:
                demo.terminate()


def _console(width: int) -> Console:
    return Console(record=True, width=width, file=io.StringIO(), legacy_windows=False)


def _log_line(line: str) -> Text:
    text = Text(line)
    text.highlight_regex(r"^\d\d:\d\d:\d\d INFO +", "dim")
    return text


if __name__ == "__main__":
    main()
