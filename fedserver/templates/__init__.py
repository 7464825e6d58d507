"""Files that the command line writes for a user."""

from __future__ import annotations

from importlib.resources import files


def server_yaml() -> str:
    """A ``server.yaml`` with every option at its default, each with a comment."""
    return files(__package__).joinpath("server.yaml").read_text(encoding="utf-8")
