"""The registry in words: for ``fedserver strategies``, and for docs/strategies.md.

Nothing is said here that a config class does not say itself, so neither can fall behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from fedserver.strategies import STRATEGIES
from fedserver.strategies.base import StrategyConfig

_KINDS: Final[Mapping[Any, str]] = {int: "whole number", float: "number", str: "text"}


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a strategy, as a person reads it."""

    name: str
    default: str
    """As YAML; ``required`` for an option that must be given."""
    values: str
    """What it may be."""
    means: str


def options_of(config: type[StrategyConfig]) -> list[Option]:
    """A strategy's own options, in their order."""
    return [
        Option(name, _default(field), _values(field), field.description or "")
        for name, field in config.model_fields.items()
        if name != "name"
    ]


def smallest_fleet(config: type[StrategyConfig]) -> str:
    """The updates that a round needs, with the rule where options decide."""
    example = config(**config.example)
    if example.smallest_fleet == 1 and config.fleet_rule == "any number":
        return "1"
    return f"{config.fleet_rule}; {example.smallest_fleet} with the defaults"


def example(config: type[StrategyConfig]) -> str:
    """A line for ``server.yaml``."""
    values = {"name": config.model_fields["name"].default, **config.example}
    return f"strategy: {{{', '.join(f'{key}: {value}' for key, value in values.items())}}}"


def text(configs: Sequence[type[StrategyConfig]] = STRATEGIES) -> Iterator[str]:
    """Plain lines for a terminal."""
    for config in configs:
        yield config.model_fields["name"].default
        yield f"  {config.summary}"
        options = options_of(config)
        wide = max((len(option.name) for option in options), default=0)
        for option in options:
            default = f"default {option.default}" if option.default != "required" else "required"
            yield f"  {option.name:<{wide}}  {default}; {option.values}: {option.means}"
        yield f"  clients in a round, at least: {smallest_fleet(config)}"
        yield f"  {config.paper}"
        yield ""


def markdown(configs: Sequence[type[StrategyConfig]] = STRATEGIES) -> str:
    """Sections for the documentation."""
    return "\n".join(line for config in configs for line in _section(config))


def _section(config: type[StrategyConfig]) -> Iterator[str]:
    yield f"### {config.model_fields['name'].default}"
    yield ""
    yield config.summary
    yield ""
    if options := options_of(config):
        yield "| option | default | values | |"
        yield "|---|---|---|---|"
        for option in options:
            yield f"| `{option.name}` | {option.default} | {option.values} | {option.means} |"
        yield ""
    yield f"Clients in a round, at least: {smallest_fleet(config)}. Paper: <{config.paper}>"
    yield ""
    yield "```yaml"
    yield example(config)
    yield "```"
    yield ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    return f"{value:g}" if isinstance(value, float) else json.dumps(value).strip('"')


def _values(field: FieldInfo) -> str:
    limits = []
    for limit in field.metadata:
        match limit:
            case Ge(ge):
                limits.append(f"{ge} or more")
            case Gt(gt):
                limits.append(f"above {gt}")
            case Le(le):
                limits.append(f"up to {le}")
            case Lt(lt):
                limits.append(f"below {lt}")
            case MinLen():
                limits.append("not empty")
            case _:
                pass
    return ", ".join([_KINDS[field.annotation], *limits])
