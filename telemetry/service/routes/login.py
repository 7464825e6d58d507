"""``/login``: a browser shows the read token once and gets a cookie that stands for it."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from telemetry.service.guards import Readers
from telemetry.service.html import document, text
from telemetry.service.pages.frame import page
from telemetry.service.sessions import COOKIE, LIFETIME_S

MAX_BODY_BYTES: Final = 4096
MAX_FIELDS: Final = 8
FORM_TYPE: Final = "application/x-www-form-urlencoded"


def login_router(readers: Readers) -> APIRouter:
    """The form and what it is sent to; without a read token both lead to the page."""
    router = APIRouter()

    @router.get("/login")
    async def form(request: Request) -> Response:
        readers.check_url(request)
        return _to_the_page() if readers.admits(request) else _form()

    @router.post("/login")
    async def login(request: Request) -> Response:
        if not readers.guarded:
            return _to_the_page()
        readers.check_url(request)
        session = readers.login(await _token_in(request))
        if session is None:
            return _form("That is not the read token of this server.")
        answer = _to_the_page()
        answer.set_cookie(
            COOKIE,
            session,
            max_age=LIFETIME_S,
            path="/",
            secure=_by_https(request),
            httponly=True,
            samesite="strict",
        )
        return answer

    return router


def _to_the_page() -> RedirectResponse:
    return RedirectResponse("/", 303)


def _form(complaint: str = "") -> Response:
    said = f'<p class="alarm" role="alert">{text(complaint)}</p>\n' if complaint else ""
    body = page(
        f"<h1>Log in</h1>\n{said}"
        '<form method="post" action="/login">\n<label for="token">Read token</label>\n'
        '<input id="token" name="token" type="password" required autofocus '
        'autocomplete="current-password">\n<button>Log in</button>\n</form>'
    )
    answer = document("Log in", body, status=401 if complaint else 200)
    if complaint:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


async def _token_in(request: Request) -> str:
    """The form's field, empty where there is none; never more of a body than `MAX_BODY_BYTES`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise HTTPException(415, f"a form is needed: {FORM_TYPE}")
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise HTTPException(413, f"a form has {MAX_BODY_BYTES} bytes at most")
        fields = parse_qs(body.decode("ascii"), max_num_fields=MAX_FIELDS)
    except (ClientDisconnect, ValueError):
        raise HTTPException(400, "the body is not a form") from None
    return fields.get("token", [""])[0].strip()


def _by_https(request: Request) -> bool:
    """Whether the browser spoke https, to us or to the proxy before us."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return "https" in (request.url.scheme, forwarded)
