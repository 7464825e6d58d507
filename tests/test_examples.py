"""What the README and the examples tell people to do works."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedserver.cli import app
from tests.tools import require_package

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = sorted((ROOT / "examples").glob("*/run.sh"))


def commands() -> list[tuple[str, str]]:
    """Each ``fedserver …`` line of a console block, with its page."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
            lines = re.findall(r"^\$ (fedserver [^\n#]*)", block, re.MULTILINE)
            found += [(page.name, line.strip()) for line in lines]
    return found


def test_every_command_on_the_pages_exists() -> None:
    """Each sub-command is known, and so is each of its options."""
    assert commands()
    for page, line in commands():
        words = line.split()[1:]
        names = [w for w in words if re.fullmatch(r"[a-z][a-z-]*", w)]
        path = names[:2] if names[0] in ("runs", "tokens", "telemetry", "dashboards") else names[:1]
        shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, f"{page}: {line}"
        for option in (w for w in words if w.startswith("-")):
            assert option.split("=")[0] in shown.output, f"{page}: {line}"


def test_links_between_pages_lead_somewhere() -> None:
    """A relative link is a file of this repository."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.parent.name)
def test_an_example_runs_by_itself(script: Path, tmp_path: Path) -> None:
    """``run.sh`` starts what it needs, ends with 0 and leaves nothing in the repository."""
    if package := {"simulation": "ray", "pytorch": "torch"}.get(script.parent.name):
        require_package(package)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bin_folder = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", str(script)],
        cwd=tmp_path,
        env=os.environ | {
            "PATH": f"{bin_folder}:{os.environ['PATH']}", "QUICKSTART_PORT": str(port),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed" in done.stdout + done.stderr
