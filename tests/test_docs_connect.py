"""What docs/connect-a-client.md shows, run."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from fedserver.cli import app
from fedserver.config import load_config
from fedserver_hooks.client import start_client
from tests.fedserver.pki import make_files

PAGE = (Path(__file__).parent.parent / "docs" / "connect-a-client.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The page's code in this language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of the page, in its order, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) == 4
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "fedserver"
        assert CliRunner().invoke(app, arguments).exit_code == 0, line


def test_the_configuration_is_accepted(tmp_path: Path) -> None:
    """With files of those names beside it."""
    make_files(tmp_path)
    (shown,) = blocks("yaml")
    (tmp_path / "server.yaml").write_text(shown)
    server = load_config(tmp_path / "server.yaml", {}, {}).config.server
    assert yaml.safe_load(shown)["server"]["auth"] == server.auth == "tokens"


def test_the_python_calls_have_arguments_that_exist() -> None:
    """Each block compiles, and calls `start_client` with names of its own parameters."""
    named = set(inspect.signature(start_client).parameters) - {"others"}
    calls = [
        node
        for block in blocks("python")
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "start_client"
    ]
    assert len(calls) == 3
    for call in calls:
        assert {keyword.arg for keyword in call.keywords} <= named
