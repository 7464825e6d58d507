"""The option that Krum, MultiKrum and Bulyan share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

Malicious: TypeAlias = Annotated[
    int, Field(ge=0, description="clients that may send anything, at most (f)")
]
