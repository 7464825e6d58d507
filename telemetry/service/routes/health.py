"""``/healthz``: the process answers. Open to everybody; it says nothing else."""

from __future__ import annotations

from fastapi import APIRouter


def health_router() -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return router
