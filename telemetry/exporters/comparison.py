"""Whether a file of the ``json`` format still is what the store says of that run.

The file alone cannot be verified: it names neither connections nor machines, and the seal and the
evidence are over these, too. So it is held against what would be written now. ``method`` is left out:
its words may change with the program, and what it says follows from the rest.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, Final

from telemetry.errors import TelemetryError
from telemetry.exporters import run_json
from telemetry.store.base import Store

NOT_COMPARED: Final = frozenset({"method", "format_version"})
_ABSENT: Final = object()


class NoExport(TelemetryError, ValueError):
    """The text is no export of a run in the ``json`` format."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"not a JSON export of a run: {problem}")


def read_export(text: str) -> dict[str, Any]:
    """An export read back; raises `NoExport`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoExport(str(error)) from error
    if not isinstance(found, dict) or not isinstance(found.get("run_id"), str):
        raise NoExport("it names no run")
    if found.get("format_version") != run_json.VERSION:
        raise NoExport(f"its format_version is not {run_json.VERSION}")
    return found


def differences(store: Store, export: dict[str, Any]) -> Iterator[str]:
    """What stands otherwise in an export than in the store, in words; raises what the store raises."""
    out = io.StringIO()
    run_json.write(store, export["run_id"], out)
    now = json.loads(out.getvalue())
    for name in sorted((export.keys() | now.keys()) - NOT_COMPARED):
        yield from _compared(name, export.get(name, _ABSENT), now.get(name, _ABSENT))


def _compared(where: str, told: Any, stored: Any) -> Iterator[str]:
    if isinstance(told, dict) and isinstance(stored, dict):
        for name in sorted(told.keys() | stored.keys()):
            both = told.get(name, _ABSENT), stored.get(name, _ABSENT)
            yield from _compared(f"{where}.{name}", *both)
    elif isinstance(told, list) and isinstance(stored, list):
        if len(told) != len(stored):
            yield f"{where}: {len(told)} in the file, {len(stored)} in the store"
            return
        for place, both in enumerate(zip(told, stored, strict=True)):
            yield from _compared(f"{where}[{place}]", *both)
    elif type(told) is not type(stored) or told != stored:
        yield f"{where}: {_words(told)} in the file, {_words(stored)} in the store"


def _words(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)[:80]
