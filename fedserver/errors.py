"""Everything this package raises of its own about configuration.

TelemetryError
└─ ConfigError(ValueError)        the server cannot start with this configuration
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from telemetry.errors import TelemetryError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, as a person should read it. Holds no secret."""

    path: str
    """Dotted path of the key; empty for the file as a whole."""
    text: str
    """What is wrong, with the value and the choices where that helps."""
    source: str
    """Where the value comes from: ``server.yaml:12``, ``FEDSERVER_ROUNDS``, ``command line``."""

    def __str__(self) -> str:
        where = f" ({self.source})" if self.source else ""
        return f"{self.path}: {self.text}{where}" if self.path else f"{self.text}{where}"


class ConfigError(TelemetryError, ValueError):
    """The configuration is wrong; the message lists every problem, one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        if len(lines) > 1:
            heading = f"{len(lines)} problems in the configuration:"
            lines = [heading, *(f"  {line}" for line in lines)]
        super().__init__("\n".join(lines))
