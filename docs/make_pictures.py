"""Makes the README's picture from a real demo: python docs/make_pictures.py (or: make pictures)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
WIDTH = 132


def main() -> None:
    """Run the demo, keep what it prints as an SVG."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fedserver", "demo", "--linger", "0"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=120, check=True
        )
    console = Console(record=True, width=WIDTH, file=sys.stderr, legacy_windows=False)
    console.print(Text("$ make demo", style="bold"))
    for line in done.stdout.splitlines():
        text = Text(line)
        text.highlight_regex(r"^\d\d:\d\d:\d\d INFO +", "dim")
        text.highlight_regex(r"accuracy [\d.]+", "green")
        text.highlight_regex(r"[\d.]+ g\b", "cyan")
        text.highlight_regex(r"^total .*", "bold")
        console.print(text, highlight=False)
    target = HERE / "images" / "demo.svg"
    target.parent.mkdir(exist_ok=True)
    console.save_svg(str(target), title="fedserver demo")


if __name__ == "__main__":
    main()
