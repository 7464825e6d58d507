"""What the routes have in their addresses: ids, sizes of pages and where a page begins."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Any, Final, TypeVar

from fastapi import Path, Query
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

_T = TypeVar("_T")

RUN_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
RunIdPath = Annotated[str, Path(pattern=RUN_ID, examples=["20260102-030405-abcdef"])]
LimitQuery = Annotated[int, Query(ge=1, le=1000, description="Items on a page.")]
CursorQuery = Annotated[str | None, Query(max_length=512, description="`next` of the page before.")]
FromQuery = Annotated[
    int | None,
    Query(
        alias="from",
        ge=0,
        lt=2**31,
        description="Rounds from this number on: while a run lasts, closed ones do not change and need "
        "no second asking. A seal (`sha256`) that is new may have put cumulative figures in order.",
    ),
]
DEFAULT_LIMIT: Final = 100
BAD_CURSOR: Final = "cursor: is not the `next` of a page"


def cursor_of(value: Any) -> str:
    """Where the next page begins, as text that means nothing to others."""
    return urlsafe_b64encode(TypeAdapter(Any).dump_json(value)).decode().rstrip("=")


def read_cursor(kind: TypeAdapter[_T], cursor: str | None) -> _T | None:
    """What `cursor_of` was given; raises 422 for anything else."""
    if cursor is None:
        return None
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return kind.validate_json(text)
    except (ValueError, ValidationError):
        raise HTTPException(422, BAD_CURSOR) from None
