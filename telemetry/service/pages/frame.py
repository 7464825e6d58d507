"""What stands around the content of each page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from telemetry.service.html import text

TITLE: Final = "Federated training"
LIVE: Final = '<p class="live" id="live" data-tone="wait" hidden></p>'
"""Where a script says how fresh the page is."""
ANNOUNCED: Final = '<p class="unseen" id="announced" role="status"></p>'
"""What a screen reader is told of news."""


def page(main: str, *, back: bool = False, live: bool = False) -> str:
    """The body of a page."""
    home = '<a href="/">All runs</a>' if back else ""
    return (
        '<a class="skip" href="#content">Skip to the content</a>\n'
        f'<header class="top"><p class="brand">{MARK}<span>{TITLE}</span></p>'
        f'<nav aria-label="Pages">{home}</nav>{LIVE if live else ""}</header>\n'
        f'<main id="content" tabindex="-1">\n{main}\n</main>\n{ANNOUNCED if live else ""}'
    )


MARK: Final = (
    '<svg class="logo" viewBox="0 0 32 32" aria-hidden="true" focusable="false">'
    '<path d="M5 27C5 12 13 5 27 5c0 14-7 22-18 20"/><path d="M5 27C9 20 14 15 20 12"/></svg>'
)


def sentence(heading: str, said: str) -> str:
    """A page that says one thing."""
    return page(f"<h1>{text(heading)}</h1>\n<p>{text(said)}</p>", back=True)


def head(*columns: tuple[str, str], metrics: Sequence[tuple[str, str]] = ()) -> str:
    """The head of a table: (name, class) of each column, then (name, split) of training metrics."""
    cells = [f'<th scope="col"{_class(kind)}>{text(name)}</th>' for name, kind in columns]
    cells += [
        f'<th scope="col" class="num" data-metric="{text(json.dumps([name, split]))}">'
        f"{text(f'{name} ({split})')}</th>"
        for name, split in metrics
    ]
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def table(label: str, rows_head: str, body: str, table_id: str, kind: str = "") -> str:
    """A table that scrolls by itself where it is wider than the page."""
    return (
        f'<div class="wide" role="region" aria-label="{text(label)}" tabindex="0">'
        f'<table id="{table_id}"{_class(kind)}>{rows_head}{body}</table></div>'
    )


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
