"""``fedserver strategies``: what ``strategy.name`` may be, and what each choice takes."""

from __future__ import annotations

from typing import Annotated

import typer

from fedserver.errors import ConfigError, Problem

Name = Annotated[str | None, typer.Argument(help="One strategy; without it, all of them.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="As docs/strategies.md has them.")]


def strategies(name: Name = None, as_markdown: Markdown = False) -> None:
    """List the strategies: options, defaults, clients that they need, papers."""
    from fedserver.strategies import STRATEGIES, named, names
    from fedserver.strategies.describe import markdown, text

    chosen = STRATEGIES
    if name is not None:
        config = named(name)
        if config is None:
            says = f'"{name}" is no strategy; choices: {", ".join(names())}'
            raise ConfigError([Problem(path="", text=says, source="")])
        chosen = (config,)
    typer.echo(markdown(chosen) if as_markdown else "\n".join(text(chosen)).rstrip())
