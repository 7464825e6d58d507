"""Which keys a configuration has, by dotted path; read once from the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from fedserver.options import ServerConfig, TlsFiles
from fedserver.strategies import STRATEGIES


def _walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo | None]]:
    """Path and field of every option; no field for a section."""
    for name, field in model.model_fields.items():
        path = prefix + name
        inner: Any = field.annotation
        if path == "strategy":
            yield path, None
            for config in STRATEGIES:
                yield from _walk(config, f"{path}.")
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            yield path, None
            yield from _walk(inner, f"{path}.")
        else:
            yield path, field


def _is_text(field: FieldInfo) -> bool:
    """Whether a field takes text, or nothing, and never a number, a list or a boolean."""
    hint: Any = field.annotation
    schema = TypeAdapter(hint).json_schema()
    kinds = {part.get("type") for part in schema.get("anyOf", [schema])}
    return "string" in kinds and kinds <= {"string", "null"}


_FIELDS: Final = dict(_walk(ServerConfig))

SECTIONS: Final = frozenset(path for path, field in _FIELDS.items() if field is None)
"""Everything that holds further keys."""
OPTIONS: Final = tuple(path for path, field in _FIELDS.items() if field is not None)
"""Everything that has a value, in the order of the schema, for all strategies together."""
OPEN: Final = frozenset({"server.tls"})
"""Options that may also be a section."""
INSIDE: Final = tuple(path for path, _ in _walk(TlsFiles, "server.tls."))
"""The options in such a section."""
TEXTS: Final = frozenset(
    path for path, field in _FIELDS.items() if field is not None and _is_text(field)
)
"""Options that are text: ``2026`` on a command line is no number there."""
