"""What the commands share that answer questions about stored runs: their options and their form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from fedserver.errors import ConfigError, Problem
from fedserver.wording import decimals_for

FORMS: Final = ("table", "json")

FormOption = Annotated[str, typer.Option("--format", help=f"One of: {', '.join(FORMS)}.")]
MetricOption = Annotated[
    str | None, typer.Option("--metric", help="Training metric (default: the run's value_metric).")
]
DirectionOption = Annotated[
    bool | None,
    typer.Option(
        "--lower-is-better/--higher-is-better",
        help="Which way the metric improves (default: by its name; loss, error, mse… fall).",
    ),
]
TargetOption = Annotated[
    float | None, typer.Option("--target", help="A value of the metric: what did it cost?")
]


def wrong(option: str, text: str) -> ConfigError:
    """A user's mistake, by the option that it is in."""
    return ConfigError([Problem(path=option, text=text, source="")])


def check_target(target: float | None) -> None:
    """Refuse a ``--target`` that is no number."""
    if target is not None and not math.isfinite(target):
        raise wrong("--target", f"{target} is no value of a metric; choose a finite number")


def check_form(form: str) -> None:
    """Refuse a ``--format`` that is none."""
    if form not in FORMS:
        raise wrong("--format", f"{form!r} is none; choose {', '.join(FORMS)}")


def print_json(answer: Mapping[str, Any]) -> None:
    """The answer as one JSON object; unknown is null. What cannot be seen is escaped."""
    text = json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False)
    typer.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def number(value: float | None) -> str:
    """A figure with at least two significant digits; ``-`` for None."""
    return "-" if value is None else f"{value:.{decimals_for(abs(value))}f}"
