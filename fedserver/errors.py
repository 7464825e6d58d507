"""What this package raises about configuration, and about a Grafana that dashboards are pushed to.

TelemetryError
├─ ConfigError(ValueError)        the server cannot start with this configuration
├─ GrafanaAway                    no Grafana answers there, or not to this token
└─ GrafanaRefused                 Grafana will not do one thing; others may work
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


class GrafanaAway(TelemetryError):
    """Nothing can be done with this Grafana: it is not there, is none, or does not know the token."""

    def __init__(self, url: str, problem: str) -> None:
        self.url = url
        self.problem = problem
        super().__init__(f"{url} {problem}")


class GrafanaRefused(TelemetryError):
    """Grafana would not do ``to_do``; ``status`` is HTTP's, ``said`` its own words in brackets."""

    def __init__(self, url: str, to_do: str, status: int, said: str) -> None:
        self.url = url
        self.status = status
        meaning = {
            403: "the token may not",
            404: "nothing is there by that name: cannot",
            409: "something of that name or uid is in the way: cannot",
            412: "a precondition does not hold: cannot",
        }.get(status, "has trouble of its own: cannot" if status >= 500 else "refuses to")
        super().__init__(f"{status}: {meaning} {to_do}{said}")
