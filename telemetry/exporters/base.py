"""What an export format is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TextIO

from telemetry.store.base import Store

Notes = list[str]
"""Sentences on what a reader should know, e.g. how many rounds were left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to write a stored run.

    ``write`` streams closed rounds only, in constant memory, and raises what the store raises
    (`RunNotFound`, `StoreError`). It chooses its own line ends: ``out`` must not translate them
    (open files with ``newline=""``).
    """

    name: str
    media_type: str
    suffix: str
    """Of a file's name, e.g. ``.csv``."""
    write: Callable[[Store, str, TextIO], Notes]

    def save(self, store: Store, run_id: str, path: Path) -> Notes:
        """Write to a file, whole or not at all: an older one stays if anything goes wrong."""
        draft = path.with_name(f".{path.name}.{token_hex(4)}")
        try:
            with draft.open("x", encoding="utf-8", newline="") as out:
                notes = self.write(store, run_id, out)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return notes
