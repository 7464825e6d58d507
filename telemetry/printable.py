"""Somebody else's text in a line of ours."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text in one line, what cannot be printed made visible: it neither ends a line nor colours it."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
