"""``html``: a run as a report for people, one file with plots, tables, method and seal.

Unlike the other formats it is not streamed: its first page needs the whole run. Rounds are held in
memory, rows of clients are only counted.
"""

from __future__ import annotations

from typing import Final, TextIO

from telemetry.exporters.base import Format, Notes
from telemetry.progress import Tell, nobody
from telemetry.report.document import document
from telemetry.report.facts import facts_of
from telemetry.store.base import Store


def write(store: Store, run_id: str, out: TextIO) -> Notes:
    """Write a run's report."""
    return write_report(store, run_id, out)


def write_report(
    store: Store,
    run_id: str,
    out: TextIO,
    *,
    country: str | None = None,
    author: str | None = None,
    date: str | None = None,
    tell: Tell = nobody,
) -> Notes:
    """The same with what the store does not know: a country's name, who answers for it, its date."""
    facts = facts_of(store, run_id, country=country, author=author, date=date, tell=tell)
    out.write(document(facts))
    return []


FORMAT: Final = Format(name="html", media_type="text/html", suffix=".html", write=write)
