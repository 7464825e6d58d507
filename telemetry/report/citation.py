"""A run as something to be cited: one sentence, and an entry for BibTeX."""

from __future__ import annotations

import re
from typing import Final

from telemetry.method import MODELLED
from telemetry.report.facts import Facts
from telemetry.report.figures import Units, percent, short

_ESCAPED: Final = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_SIGNS: Final = re.compile(r"[\\~^&%$#_{}]")


def as_text(facts: Facts, units: Units) -> str:
    """One line with all that a reader of the figure needs."""
    author = f"{facts.author}. " if facts.author else ""
    seal = f", SHA-256 {facts.run.sha256}" if facts.run.sha256 else ", not sealed"
    return (
        f"{author}Emissions of the federated training “{facts.run.info.run_name}”. {_figure(facts, units)}"
        f" {_tool(facts)}, run {facts.run.run_id}, {_date(facts)}{seal}."
    )


def as_bibtex(facts: Facts, units: Units) -> str:
    """An entry of type ``misc``: every style knows it."""
    run = facts.run
    seal = f" SHA-256 {run.sha256}." if run.sha256 else " Not sealed."
    year, month, _ = _date(facts).split("-")
    fields = {
        "author": f"{{{_tex(facts.author)}}}" if facts.author else None,
        "title": f"Emissions of the federated training {{“{_tex(run.info.run_name)}”}}",
        "year": year,
        "month": str(int(month)),
        "howpublished": _tex(f"{_tool(facts)}, run {run.run_id}"),
        "note": _tex(f"{_figure(facts, units)}{seal}"),
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value is not None]
    return "\n".join((f"@misc{{fl-emissions-{run.run_id},", *lines, "}"))


def _figure(facts: Facts, units: Units) -> str:
    if not facts.method.tracked:
        return "Emissions not tracked."
    total = facts.total_kg
    if total is None:
        return "Emissions unknown."
    said = [f"{short(total * units.emissions.factor)} {units.emissions.name} CO2eq measured"]
    if facts.coverage is not None:
        said.append(f"{percent(facts.coverage)} of the clients' reports came")
    if facts.method.server_metered and not MODELLED.isdisjoint(facts.method.server_sensors):
        said.append("server modelled, without a power sensor")
    if facts.run.ended_at is None:
        said.append("the run was still going on")
    return "; ".join(said) + "."


def _tool(facts: Facts) -> str:
    version = facts.method.software.get("fedserver-telemetry")
    return "Recorded with fedserver-telemetry" + (f" {version}" if version else "")


def _date(facts: Facts) -> str:
    """Of the report, else of the run's end, else of what was recorded last."""
    if facts.date is not None:
        return facts.date
    last = facts.run.ended_at or max(
        (row.ended_at for row in facts.rounds), default=facts.run.info.started_at
    )
    return f"{last:%Y-%m-%d}"


def _tex(text: str) -> str:
    """Text in which no sign means anything to TeX."""
    return _SIGNS.sub(lambda sign: _ESCAPED[sign[0]], " ".join(text.split()))
