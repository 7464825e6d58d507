"""The commands of docs/run-your-own-server.md do what the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

from fedserver.app import config_of
from tests.fedserver.clients import ROOT

PAGE = (ROOT / "docs/run-your-own-server.md").read_text()


def blocks(kind: str) -> list[str]:
    """The page's code blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_page_succeed(tmp_path: Path) -> None:
    """Those with a prompt, in their order, in an empty folder."""
    commands = [
        line.removeprefix("$ ")
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    assert len(commands) >= 3
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "fedserver"
        done = subprocess.run(
            [sys.executable, "-m", "fedserver", *arguments],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_run_config_of_the_page_is_valid() -> None:
    """As Flower flattens it: one key a value, with dots."""
    (text,) = blocks("toml")

    def flat(values: dict[str, object], prefix: str = "") -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in values.items():
            path = f"{prefix}{key}"
            found |= flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
        return found

    config = config_of(flat(tomllib.loads(text)["tool"]["flwr"]["app"]["config"]), {})
    assert (config.rounds, config.metrics) == (5, ("accuracy", "f1"))


def test_the_lines_for_a_server_of_ones_own_are_python_with_names_that_exist() -> None:
    """Each imports what it uses."""
    for block in blocks("python"):
        imports = [line for line in block.splitlines() if line.startswith("from ")]
        assert imports
        for line in imports:
            exec(line, {})  # noqa: S102 - a line of our own documentation
        compile(block, "page", "exec")
