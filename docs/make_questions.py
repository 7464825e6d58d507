"""Make the outputs in questions.md again: ``python docs/make_questions.py`` from the repository's root."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "questions.md"


def main() -> None:
    """Run each command of the page on the made-up runs and write what it prints under it."""
    sys.path.insert(0, str(ROOT))
    from tests.fedserver.questions import fill

    with tempfile.TemporaryDirectory() as folder:
        fill(f"sqlite:///{folder}/telemetry.db")

        def block(found: re.Match[str]) -> str:
            command = found[1].partition("\n")[0]
            done = subprocess.run(
                [sys.executable, "-m", *shlex.split(command.removeprefix("$ "))],
                cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            told = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
            return f"```console\n{command}\n{told}```"

        text = PAGE.read_text(encoding="utf-8")
        made = re.sub(r"^```console\n(.*?)^```", block, text, flags=re.MULTILINE | re.DOTALL)
        PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
