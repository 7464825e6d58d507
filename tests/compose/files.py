"""docker-compose.yml and the Dockerfile, read as an engine reads them, as far as ours go."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
MAKE_ENV = ROOT / "docker" / "make-env"
_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<kind>:-|:\?)(?P<more>[^}]*))?\}|(?P<wrong>.?))",
    re.DOTALL,
)


class MissingVariable(Exception):
    """What Compose says where a required variable has no value."""


def interpolate(value: Any, env: Mapping[str, str]) -> Any:
    """Every text of a document with its variables put in (Compose Specification, Interpolation)."""
    if isinstance(value, dict):
        return {key: interpolate(item, env) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, env) for item in value]
    if not isinstance(value, str):
        return value

    def put(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["wrong"] is not None:
            raise ValueError(f"{match[0]!r} in {value!r}: write $$, ${{NAME}}, :- or :?")
        given = env.get(match["name"], "")
        if not given and match["kind"] == ":?":
            raise MissingVariable(f"required variable {match['name']}: {match['more']}")
        return given or (match["more"] if match["kind"] == ":-" else "") or ""

    return _VARIABLE.sub(put, value)


def compose(env: Mapping[str, str] | None) -> dict[str, Any]:
    """The file; its variables put in where ``env`` is given."""
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    if env is not None:
        document = interpolate(document, env)
    return document


def env_of(path: Path) -> dict[str, str]:
    """What an env file sets."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def made_env(path: Path) -> dict[str, str]:
    """A new env file, as `make env` writes it."""
    subprocess.run([MAKE_ENV, path], check=True, capture_output=True, timeout=20)
    return env_of(path)


@dataclass
class Stage:
    """One stage of the Dockerfile: its instructions in order."""

    base: str
    name: str | None
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, instruction: str) -> list[str]:
        """The arguments of one kind of instruction."""
        return [text for kind, text in self.steps if kind == instruction]

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        words = [word for text in self.of("ENV") for word in shlex.split(text)]
        return dict(word.split("=", 1) for word in words)


def stages() -> list[Stage]:
    """The Dockerfile's stages."""
    found: list[Stage] = []
    lines = re.sub(r"\\\n", " ", DOCKERFILE.read_text(encoding="utf-8")).splitlines()
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        kind, _, text = line.partition(" ")
        if kind == "FROM":
            base, _, name = text.partition(" AS ")
            found.append(Stage(base, name or None))
        elif found:
            found[-1].steps.append((kind, text.strip()))
        else:
            assert kind == "ARG", line
    return found
