"""What every HTML page here has in common: its frame, its policy, and values that stay text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from fastapi.responses import HTMLResponse

from telemetry.service.assets import ASSETS, CHARTS

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Files of ours and requests to ourselves; nothing inline, nothing from elsewhere, and no script can
turn text into markup (Trusted Types without any)."""


def document(
    title: str,
    body: str,
    *,
    status: int = 200,
    refresh_s: int | None = None,
    scripts: Sequence[str] = (),
) -> HTMLResponse:
    """A whole page; ``title`` is text, ``body`` is HTML whose values went through `text`.

    ``refresh_s`` is for browsers without scripts, where ``scripts`` (modules among the assets) are given.
    """
    return HTMLResponse(
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"{_refresh(refresh_s, bool(scripts))}"
        f"<title>{text(title)}</title>\n"
        f'<link rel="icon" href="{ASSETS.url("icon.svg")}">\n'
        f'<link rel="stylesheet" href="{ASSETS.url("page.css")}">\n'
        f"{''.join(map(_script, scripts))}"
        f"</head>\n<body>\n{body}\n</body>\n</html>\n",
        status,
        headers={"Content-Security-Policy": POLICY},
    )


def text(value: object) -> str:
    """The value as text, in an element or a quoted attribute."""
    return escape(str(value), quote=True)


def _refresh(refresh_s: int | None, scripted: bool) -> str:
    if refresh_s is None:
        return ""
    tag = f'<meta http-equiv="refresh" content="{refresh_s}">'
    return f"<noscript>{tag}</noscript>\n" if scripted else f"{tag}\n"


def _script(name: str) -> str:
    kind = "defer" if name == CHARTS else 'type="module"'
    return f'<script {kind} src="{ASSETS.url(name)}"></script>\n'
