"""``/static``: the style sheet and the scripts of the pages. Open to everybody; they hold no record."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from telemetry.service.assets import ASSETS

FOR_A_YEAR: Final = "public, max-age=31536000, immutable"


def static_router() -> APIRouter:
    """The route. Another version than this program's is not there: its address is another one."""
    router = APIRouter()

    @router.get("/static/{version}/{name:path}")
    async def static(version: str, name: str) -> Response:
        found = ASSETS.get(name) if version == ASSETS.version else None
        if found is None:
            raise HTTPException(404)
        content, media_type = found
        headers = {"Cache-Control": FOR_A_YEAR, "Cross-Origin-Resource-Policy": "same-origin"}
        return Response(content, media_type=media_type, headers=headers)

    return router
