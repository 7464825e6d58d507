"""Where configuration comes from: defaults, a YAML file, the environment, the command line.

Each is read into a `Layer`, a nested mapping that remembers for every value where it stood. Layers
know keys and nothing else; types and ranges are checked once, on what they add up to.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from fedserver import keys, options, yaml_file
from fedserver.errors import ConfigError, Problem
from fedserver.service_links import is_service_link

logger = logging.getLogger(__name__)

PREFIX: Final = "FEDSERVER_"
COMMAND_LINE: Final = "command line"
_SQLITE_FILE: Final = re.compile(r"(sqlite(?:\+\w+)?:///)(?!:memory:)([^?]+)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place, and where exactly each of them stood."""

    values: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)
    """Dotted path → source, of every value and every section that stood there by itself."""
    problems: tuple[Problem, ...] = ()
    """What could not be read; the values are all the others."""

    def source(self, path: str) -> str:
        """Where the value at ``path`` stood: it, else what it stands in, else what stands in it."""
        at = path
        while at and at not in self.sources:
            at = at.rpartition(".")[0]
        inside = (other for other in self.sources if other.startswith(f"{path}."))
        return self.sources.get(at or next(inside, ""), "")

    def over(self, lower: Layer) -> Layer:
        """Both together; where both say something, this one holds."""
        return Layer(_merged(lower.values, self.values), {**lower.sources, **self.sources})


def _merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged


# --- the defaults that depend on where one stands -----------------------------------------------


def defaults(directory: Path) -> Layer:
    """The default files and database, in ``directory``; every other default is in the schema."""
    config = options.ServerConfig()
    values = {
        "model": {"output_dir": str(config.model.output_dir)},
        "server": {"tokens_store": str(config.server.tokens_store)},
        "telemetry": {"database_url": config.telemetry.database_url},
    }
    return Layer(_located(values, directory), {path: "default" for path, _ in flat(values)})


def _located(values: dict[str, Any], directory: Path) -> dict[str, Any]:
    """``values`` with every relative file made absolute; changes ``values`` itself."""
    for path in options.PATHS:
        _replace(values, path, lambda text: os.path.abspath(directory / os.path.expanduser(text)))
    _replace(values, "telemetry.database_url", lambda url: _located_url(url, directory))
    return values


def _located_url(url: str, directory: Path) -> str:
    match = _SQLITE_FILE.fullmatch(url)
    if match is None:
        return url
    scheme, name, rest = match.groups()
    return f"{scheme}{os.path.abspath(directory / os.path.expanduser(name))}{rest}"


def _replace(values: dict[str, Any], path: str, change: Any) -> None:
    *parents, name = path.split(".")
    at: Any = values
    for parent in parents:
        at = at.get(parent) if isinstance(at, dict) else None
    if isinstance(at, dict) and isinstance(at.get(name), str) and at[name]:
        at[name] = change(at[name])


# --- the file -----------------------------------------------------------------------------------


def from_file(path: Path) -> Layer:
    """The values of a YAML file; `ConfigError` if it cannot be read or is no mapping."""
    values, lines = yaml_file.read(path)
    if values is None:  # every key is commented out
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(
            [Problem("", "the file must hold keys and values, as in rounds: 5", str(path))]
        )
    return Layer(_located(_without_empty_sections(values), path.absolute().parent), lines)


def _without_empty_sections(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A section whose every key is commented out reads as null and means its defaults."""
    known = keys.SECTIONS
    kept: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if path in known - keys.OPTIONAL and value is None:
            continue
        kept[key] = _without_empty_sections(value, f"{path}.") if isinstance(value, dict) else value
    return kept


# --- environment and command line ---------------------------------------------------------------


def from_environment(environ: Mapping[str, str], directory: Path) -> Layer:
    """``FEDSERVER_ROUNDS=5``, ``FEDSERVER_TELEMETRY__HTTP__PORT=0``; not what Kubernetes sets."""
    wanted = {name: environ[name] for name in sorted(environ) if name.upper().startswith(PREFIX)}
    known = {variable(path): path for path in (*keys.SECTIONS, *keys.OPTIONS, *keys.INSIDE)}
    unknown = {name for name in wanted if name not in known and not _in_open_section(name)}
    links = {name for name in unknown if is_service_link(name, wanted[name])}
    if links:
        wanted = {name: text for name, text in wanted.items() if name not in links}
        unknown -= links
        logger.info(
            "passed over, as variables of a Kubernetes service: %s", ", ".join(sorted(links))
        )
    problems = tuple(
        Problem("", f"unknown environment variable {name}{_near_variable(name, known)}", "")
        for name in sorted(unknown)
    )
    given = {
        known.get(name, _dotted(name)): (text, name)
        for name, text in wanted.items()
        if name not in unknown
    }
    layer = _from_pairs(given, directory)
    return replace(layer, problems=problems + layer.problems)


def from_command_line(
    overrides: Mapping[str, object], directory: Path, source: str = COMMAND_LINE
) -> Layer:
    """Dotted paths and values; text is read as YAML where the option is not text itself."""
    return _from_pairs({path: (value, source) for path, value in overrides.items()}, directory)


def variable(path: str) -> str:
    """The environment variable of an option."""
    return PREFIX + path.upper().replace(".", "__")


def _dotted(name: str) -> str:
    return name.removeprefix(PREFIX).lower().replace("__", ".")


def _in_open_section(name: str) -> bool:
    """Options of other strategies and of privacy mechanisms: the schema judges them by name."""
    return name.startswith((variable("strategy") + "__", variable("privacy") + "__"))


def _near_variable(name: str, known: Mapping[str, str]) -> str:
    rests = {variable.removeprefix(PREFIX): variable for variable in known}
    near = get_close_matches(name.upper().removeprefix(PREFIX), rests, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {rests[near[0]]}?"
    return "; `fedserver check-config` lists the options"


def _from_pairs(given: Mapping[str, tuple[object, str]], directory: Path) -> Layer:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    problems: list[Problem] = []
    # A section before its keys, so that a key given by itself holds over the section's own.
    for path in sorted(given, key=lambda path: path.count(".")):
        raw, source = given[path]
        try:
            value = _typed(path, raw)
        except ValueError:
            problems.append(Problem(path, "cannot be read as a YAML value", source))
            continue
        if not _set(values, path, value):
            above = path.rpartition(".")[0]
            problems.append(Problem(path, f"{above} is given a value of its own", source))
            continue
        sources[path] = source
        sources |= {below: source for below, _ in flat({path: value})}
    located = _located(_without_empty_sections(values), directory)
    return Layer(located, sources, tuple(problems))


def _set(values: dict[str, Any], path: str, value: Any) -> bool:
    """Whether it could be set: not where something above it is no section."""
    *parents, name = path.split(".")
    at = values
    for parent in parents:
        below = at.setdefault(parent, {})
        if not isinstance(below, dict):
            return False
        at = below
    at[name] = value
    return True


def _typed(path: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    if path in keys.TEXTS:
        return None if value in ("", "null", "~") else value
    return yaml_file.parse(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of everything in ``values`` that is no section."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
