"""``path=value`` from a command line."""

from __future__ import annotations

from collections.abc import Sequence

from fedserver.errors import ConfigError, Problem


def from_pairs(settings: Sequence[str] | None) -> dict[str, object]:
    """Dotted path → text of each ``path=value``. Raises `ConfigError`."""
    overrides: dict[str, object] = {}
    for setting in settings or ():
        path, equals, value = setting.partition("=")
        if not equals or not path:
            text = f"--set {setting!r} is not of the form path=value, e.g. --set rounds=3"
            raise ConfigError([Problem(path="", text=text, source="command line")])
        overrides[path] = value
    return overrides
