"""Which keys a configuration has, by dotted path; read once from the schema."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType
from typing import Any, Final, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from fedserver.options import ServerConfig, TlsFiles


def _walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo | None]]:
    """Path and field of every option; no field for a section."""
    for name, field in model.model_fields.items():
        path = prefix + name
        models = _models(field.annotation)
        yield path, None if models else field
        for section in models or ():
            yield from _walk(section, f"{path}.")


def _models(annotation: Any) -> list[type[BaseModel]] | None:
    """The models of which one stands there, several where a name chooses; None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found = [_models(part) for part in get_args(annotation) if not _says_nothing(part)]
    if not found or any(models is None for models in found):
        return None
    return [model for models in found for model in models or ()]


def _says_nothing(part: Any) -> bool:
    """Whether a part of an annotation is null, or metadata."""
    return part is NoneType or isinstance(part, FieldInfo)


def _is_text(field: FieldInfo) -> bool:
    """Whether a field takes text, or nothing, and never a number, a list or a boolean."""
    hint: Any = field.annotation
    schema = TypeAdapter(hint).json_schema()
    kinds = {part.get("type") for part in schema.get("anyOf", [schema])}
    return "string" in kinds and kinds <= {"string", "null"}


_FIELDS: Final = dict(_walk(ServerConfig))

SECTIONS: Final = frozenset(path for path, field in _FIELDS.items() if field is None)
"""Everything that holds further keys."""
OPTIONAL: Final = frozenset({"privacy", "privacy.accounting"})
"""Sections that may be null, which is a value there: without it."""
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
