"""Strangers' text on a terminal: visible, and nothing else."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from fedserver.rounds_table import rounds_table
from fedserver.runs_answers import print_json
from fedserver.saying import InertConsole, InertStream, say
from telemetry.testing import make_round
from tests.telemetry.hostile import PAYLOADS


def is_inert(text: str) -> bool:
    """Whether nothing in it but line ends is without a shape."""
    return all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_line_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is in it, on either stream."""
    say(f"run  {PAYLOADS[name]}")
    say(f"run  {PAYLOADS[name]}", err=True)
    for said in capsys.readouterr():
        assert said.startswith("run  ")
        assert said.endswith("\n")
        assert said.count("\n") == 1
        assert is_inert(said)


@pytest.mark.parametrize("name", PAYLOADS)
def test_tables_show_text_as_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a metric in a heading too, and on a console that knows markup."""
    metric = PAYLOADS[name]
    row = make_round(1, train_metrics={metric: 0.5}).summary()
    table = rounds_table([row], (metric,))
    InertConsole().print(table)
    Console(width=400).print(table)
    said = capsys.readouterr().out
    assert is_inert(said)
    if name == "markup":
        assert said.count(metric) == 2


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_file_on_a_terminal(name: str) -> None:
    """Its lines stay; what would command the terminal is shown instead."""
    out = io.StringIO()
    InertStream(out).write(f"a,b\r\n{PAYLOADS[name]},1\r\n")
    assert is_inert(out.getvalue())
    assert out.getvalue().startswith("a,b\n")


@pytest.mark.parametrize("name", PAYLOADS)
def test_an_answer_as_json_is_inert_and_says_what_was_said(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escaped, so that it reads back to the same."""
    print_json({"run_name": PAYLOADS[name], "beyond": "\U000e0001"})
    said = capsys.readouterr().out
    assert is_inert(said)
    assert json.loads(said) == {"run_name": PAYLOADS[name], "beyond": "\U000e0001"}
