"""YAML as this program reads it: core schema, no key twice, every key with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from fedserver.errors import ConfigError, Problem


class Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: ``yes`` is text, ``1e5`` a number, ``2026-01-31`` text.

    PyYAML reads YAML 1.1, where ``NO`` is false and ``1e5`` is text.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 as in the base


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    # Order matters where both fit: the resolver takes the first, so int comes before float.
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )
# The base class would read 010 as 8.
Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(str(node.value)))


def parse(text: str) -> Any:
    """A single value, such as ``5``, ``[a, b]`` or ``{name: FedAvg}``; ValueError if it is none."""
    try:
        return yaml.load(text, Loader)  # noqa: S506 a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("no YAML value") from error


def read(path: Path) -> tuple[Any, dict[str, str]]:
    """What a file holds, and the source (``server.yaml:12``) of every key by dotted path.

    Raises:
        ConfigError: it cannot be read, or is no YAML. The message shows nothing of its text.
    """
    text = _text(path)
    lines: dict[str, str] = {}
    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            return (None if node is None else _plain(loader, node, "", lines, str(path))), lines
        finally:
            loader.dispose()
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError([Problem("", "the file is nested too deeply", str(path))]) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an explicit tag, as in !!int abc
        raise ConfigError([_malformed(error, path)]) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        why = "there is no such file; `fedserver init` writes one"
    except IsADirectoryError:
        why = "is a directory, not a configuration file"
    except UnicodeDecodeError:
        why = "is not UTF-8 text"
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    raise ConfigError([Problem("", f"{path}: {why}", "")])


def _plain(loader: Loader, node: yaml.Node, path: str, lines: dict[str, str], name: str) -> Any:
    """A node as plain values; notes the line of every key below ``path``."""
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
        below = f"{path}.{key}" if path else key
        if key in values:
            first = lines[below]
            raise ConfigError([Problem(below, f"stands twice, first at {first}", f"{name}:{line}")])
        if value_node is node or path.count(".") > 16:
            raise ConfigError([Problem(below, "is nested too deeply", f"{name}:{line}")])
        lines[below] = f"{name}:{line}"
        values[key] = _plain(loader, value_node, below, lines, name)
    return values


def _malformed(error: Exception, path: Path) -> Problem:
    """Says what and where; shows nothing of the text, which may hold a token."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    problem = getattr(error, "problem", None) or "a value or a character that cannot be read"
    harmless = re.sub(r"'([^']*)'", _quoted, str(problem))
    return Problem("", f"not valid YAML: {harmless}", where)


def _quoted(match: re.Match[str]) -> str:
    """Signs and names of tokens stay; anything longer may be the user's own text."""
    text = match[1]
    return match[0] if len(text) <= 1 or re.fullmatch("<[a-z ]+>", text) else "…"
