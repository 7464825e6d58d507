"""The server's configuration, from all its sources: `load_config`.

The schema is `fedserver.options`, the sources are read in `fedserver.sources`, and what is wrong is
put into words in `fedserver.checks`. All that reading and checking is done before a port opens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fedserver import checks, platform_variables, sources, value_checks
from fedserver.errors import ConfigError, Problem
from fedserver.options import (
    ClientsConfig,
    EmissionsConfig,
    HttpConfig,
    ModelConfig,
    ServerConfig,
    ServerSection,
    TelemetryConfig,
    split_address,
)
from fedserver.sources import Layer
from fedserver_hooks.allocation import choose
from fedserver_hooks.allocation.scope import in_words

__all__ = [
    "ClientsConfig",
    "ConfigError",
    "EmissionsConfig",
    "HttpConfig",
    "LoadedConfig",
    "ModelConfig",
    "ServerConfig",
    "ServerSection",
    "TelemetryConfig",
    "describe",
    "load_config",
    "split_address",
]


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration that holds together, and where each of its values comes from."""

    config: ServerConfig
    sources: Mapping[str, str]
    """Dotted path of every option → ``default``, ``server.yaml:12``, a variable, ``command line``."""
    notes: tuple[str, ...] = ()
    """What works, but perhaps otherwise than it reads; to be logged as warnings."""

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Path, value and source of every option, fit to be shown: secrets are hidden."""
        values = dict(sources.flat(self.config.model_dump()))
        for path, source in self.sources.items():
            yield path, value_checks.shown(path, values[path]), source


def load_config(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    *,
    on_platform: bool | None = None,
    overrides_from: str = sources.COMMAND_LINE,
) -> LoadedConfig:
    """The configuration of file, environment and command line, later ones holding over earlier.

    Lowest of all stand the variables of the platform's form: read where no file is given (never, if
    ``on_platform`` is False), and with ``on_platform`` True beside a file too, over the addresses
    that a deployment there has.

    Args:
        path: a YAML file; None for none. Files that it names are relative to it, all others to the
            working directory.
        environ: ``FEDSERVER_…`` variables, nested with ``__``, are read; others are not looked at.
        overrides: dotted path → value. Text is read as YAML where the option is not text itself.
        overrides_from: what to call their source.

    Raises:
        ConfigError: anything is wrong; it lists everything that could be found.
    """
    layers, problems = _read(path, environ, overrides, overrides_from)
    given = layers[0]
    for layer in layers[1:]:
        given = layer.over(given)
    notes: list[str] = []
    if on_platform or (on_platform is None and path is None):
        platform = platform_variables.from_platform(environ)
        problems += platform.layer.problems
        notes += platform.notes
        given = given.over(platform_variables.below(platform.layer, given))
    if on_platform:
        given = given.over(platform_variables.deployment(Path.cwd()))
    config = _validated(given, problems)
    if on_platform:
        notes += checks.open_to_anybody(config)
    return LoadedConfig(config, _sources(config, given), (*notes, *checks.notes(config)))


def _read(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object], source: str
) -> tuple[list[Layer], list[Problem]]:
    """Every layer, lowest first, and what could not be read."""
    here = Path.cwd()
    layers = [sources.defaults(here)]
    problems: list[Problem] = []
    if path is not None:
        try:
            layers.append(sources.from_file(path))
        except ConfigError as error:
            problems += error.problems
    layers.append(sources.from_environment(environ, here))
    layers.append(sources.from_command_line(overrides, here, source))
    for layer in layers:
        problems += layer.problems
        problems += value_checks.not_sections(layer)
    return layers, problems


def _validated(given: Layer, problems: Sequence[Problem]) -> ServerConfig:
    """The checked configuration, or every problem: ``problems`` and what is found here."""
    config: ServerConfig | None = None
    found = list(problems)
    try:
        config = ServerConfig.model_validate(given.values)
    except ValidationError as error:
        found += value_checks.wrong_values(error, given)
    if config is not None and not found:  # of half a configuration, it might be a false alarm
        found += checks.contradictions(config, given)
    if found or config is None:
        raise ConfigError(_first_of_each_path(found))
    return config


def _first_of_each_path(problems: Sequence[Problem]) -> list[Problem]:
    """One problem for each option; those of no single option are all kept."""
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.path or str(problem), problem)
    return list(first.values())


def _sources(config: ServerConfig, given: Layer) -> dict[str, str]:
    """Where each option comes from; what stands nowhere is a default, whatever its section is."""
    stood = {path for path, _ in sources.flat(given.values)}
    return {
        path: given.source(path) if path in stood else "default"
        for path, _ in sources.flat(config.model_dump())
    }


def _scope_here(config: ServerConfig) -> str:
    asked = config.emissions.server_scope
    return in_words(asked, choose(asked))


def describe(loaded: LoadedConfig) -> Iterator[str]:
    """One line an option: path, value, source; and what this machine makes of ``server_scope``."""
    rows = list(loaded.rows())
    wide = max(len(path) for path, _, _ in rows)
    wide_value = min(40, max(len(value) for _, value, _ in rows))
    for path, value, source in rows:
        yield f"{path:<{wide}}  {value:<{wide_value}}  {source}"
    if loaded.config.track_emissions:
        yield f"here, the server's figure is of: {_scope_here(loaded.config)}"
