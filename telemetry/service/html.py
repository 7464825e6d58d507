"""What every HTML page here has in common: one style, its policy, and values that stay text."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import Final

from fastapi.responses import HTMLResponse

STYLE: Final = """
:root { color-scheme: light dark; --text: #1c2430; --soft: #5b6675; --line: #d5dbe3;
  --ground: #fff; --field: #f4f6f9; --alarm: #a32020; --action: #0b5a8f }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e9f0; --soft: #9aa7b8; --line: #36404d; --ground: #12171e;
    --field: #1c232d; --alarm: #ff9d9d; --action: #7cc4f5 }
}
body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--ground); overflow-wrap: anywhere }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums }
th, small, footer { color: var(--soft) } th { font-weight: 600; overflow-wrap: normal }
.wide { overflow-x: auto } .wide th, .wide td { white-space: nowrap }
.alarm { color: var(--alarm) }
input, button { font: inherit; box-sizing: border-box; width: 100%; max-width: 24rem; display: block;
  padding: .6rem; margin: .4rem 0 1rem; border: 1px solid var(--soft); border-radius: .3rem;
  color: var(--text); background: var(--field) }
button { border-color: var(--action); color: var(--action); cursor: pointer }
@media (max-width: 44rem) {
  .cards thead { display: none }
  .cards tr { display: block; padding: .6rem 0; border-bottom: 1px solid var(--line) }
  .cards td { display: grid; grid-template-columns: 8rem 1fr; gap: .5rem; border: 0; padding: .15rem 0 }
  .cards td::before { content: attr(data-label); color: var(--soft) }
}
"""
STYLE_HASH: Final = b64encode(sha256(STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""The one style above and forms to ourselves; no script, no picture, nothing from elsewhere."""


def document(
    title: str, body: str, *, status: int = 200, refresh_s: int | None = None
) -> HTMLResponse:
    """A whole page; ``title`` is text, ``body`` is HTML whose values went through `text`."""
    refresh = "" if refresh_s is None else f'<meta http-equiv="refresh" content="{refresh_s}">\n'
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{refresh}<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
    return HTMLResponse(page, status, headers={"Content-Security-Policy": POLICY})


def text(value: object) -> str:
    """The value as text, in an element or a quoted attribute."""
    return escape(str(value), quote=True)


def figure(value: float | None, unit: str = "") -> str:
    """Four digits for the eye, the whole number in the markup; a dash where it is unknown."""
    if value is None:
        return "–"
    short = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f'<data value="{value!r}">{short}{text(unit)}</data>'
