"""How the figures came about: the method, and why what clients said may count for less."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from telemetry.domain import Scope
from telemetry.method import ON_SERVER_HOST, ONE_MACHINE
from telemetry.report.clients import OTHER
from telemetry.report.facts import Facts
from telemetry.report.figures import Units, count, figure, percent, share, short
from telemetry.report.markup import Content, Html, element, joined, said
from telemetry.report.parts import MOST_NAMES, Section, facts_list, ordered, paragraph
from telemetry.statement import SENSOR_WORDS
from telemetry.words import listed, sentence, times

_SCOPES: Final[Mapping[Scope, str]] = {
    "machine": "its whole machine",
    "allocation": "its share of the machine (container)",
    "process": "its process",
    "unknown": "not recorded",
}


def method(facts: Facts) -> Section:
    """The statement, and its facts one by one."""
    body = joined(
        element("blockquote", paragraph(said(facts.statement)), class_="statement"),
        _facts(facts) if facts.method.tracked else None,
        paragraph(
            "Emissions are of electricity in operation, location-based: energy × carbon intensity of the "
            "grid. Which of them are somebody's Scope 2 and which Scope 3 (GHG Protocol) depends on who "
            "runs the machines, of which this record knows nothing.",
            kind="note",
        )
        if facts.method.tracked
        else None,
    )
    return Section("method", "What was measured, and how", body)


def _facts(facts: Facts) -> Html:
    method = facts.method
    country = method.country
    where: Content = "not stated: the source's average of the world"
    if country is not None:
        where = said(f"{facts.country} ({country})" if facts.country else country)
    shares = method.server_shares
    of_machine = ""
    if shares is not None:
        low, high = (percent(value) for value in shares)
        of_machine = f", {low if low == high else f'{low} to {high}'} of the machine's energy"
    metered = method.server_metered_share
    return facts_list(
        (
            ("Meter of the server", said(method.tracker or "none")),
            (
                "Sensor of the server",
                listed([f"{SENSOR_WORDS[name]} ({name})" for name in method.server_sensors]),
            ),
            ("Scope of the server", f"{_SCOPES[method.server_scope]}{of_machine}"),
            (
                "Metered",
                None if metered is None else joined(share(min(1.0, metered)), " of the time"),
            ),
            ("Country of the server", where),
            (
                "Carbon intensity",
                joined(
                    figure(
                        method.server_carbon_intensity_g_per_kwh,
                        "server_carbon_intensity_g_per_kwh",
                    ),
                    " g CO₂eq/kWh",
                ),
            ),
            ("Its source", said(method.intensity_source)),
            ("Year of its data", _year(method.intensity_year)),
            (
                "PUE (data centre overhead)",
                joined(figure(method.pue, "pue"), ": none added" if method.pue == 1 else None),
            ),
            ("Data transfer", _network(method.network_kwh_per_gb)),
            (
                "Silent clients",
                "estimated beside the total" if method.impute_missing else "not estimated",
            ),
            ("Versions", said(", ".join(f"{k} {v}" for k, v in sorted(method.software.items())))),
        ),
        "facts",
    )


def _year(year: int | None) -> str:
    return "not stated" if year is None else str(year)


def _network(kwh_per_gb: float | None) -> str:
    if kwh_per_gb is None:
        return "not estimated: no factor was given"
    return f"estimated beside the total, {short(kwh_per_gb)} kWh/GB (10⁹ bytes)"


# --- said and counted --------------------------------------------------------------------------------


def counted(facts: Facts, units: Units) -> Section | None:
    """What clients said against what it counts for, and why a machine counts once."""
    method, totals = facts.method, facts.run.totals
    if not method.tracked or totals.clients_emissions_kg is None or facts.pruned:
        return None
    unit = units.emissions
    clients = facts.clients
    split = ""
    if method.clients_on_server_host:
        split = (
            " Clients on the server's machine are converted with its carbon intensity and PUE, whatever "
            "they stated themselves."
        )
    body = joined(
        facts_list(
            (
                (
                    "Clients reported",
                    figure(
                        method.clients_reported_emissions_kg, "clients_reported_emissions_kg", unit
                    ),
                ),
                (
                    "It counts for",
                    figure(totals.clients_emissions_kg, "clients_emissions_kg", unit),
                ),
                ("Reports that count for less than they said", _some(clients.less, facts)),
                ("Reports that count for more", _some(clients.more, facts)),
                ("Reports from the server's own machine", _some(clients.on_server_host, facts)),
            )
        ),
        paragraph(
            "A client's meter shows its whole machine, as a rule. Four clients on one machine that each "
            "report it would make four machines of one; so a machine counts once, however many clients "
            "run on it. "
            f"{sentence(ONE_MACHINE)} {sentence(ON_SERVER_HOST[method.server_scope])}{split}",
        ),
        _words_of_clients(facts),
    )
    return Section("counted", "Reported and counted", body)


def _some(number: int, facts: Facts) -> Html | None:
    """A count over rows of clients; nothing where none are kept."""
    return count(number) if facts.clients.accepted else None


def _words_of_clients(facts: Facts) -> Html | None:
    """What the accepted reports state about themselves."""
    clients = facts.clients
    if not clients.accepted:
        return None
    intensity = clients.intensity
    stated: Content = "stated by no report from elsewhere"
    if intensity.reports:
        low, high = short(intensity.low), short(intensity.high)
        span = low if low == high else f"{low} to {high}"
        stated = f"{span} g CO₂eq/kWh, in {times(intensity.reports, 'report')} from elsewhere"
    return joined(
        element("h3", "What the accepted reports say of themselves"),
        facts_list(
            (
                ("Measured with", said(_named(clients.trackers, "not stated"))),
                ("Sensors", said(_named(clients.sensors, "not stated"))),
                ("Countries", said(_named(clients.countries, "not stated"))),
                ("Carbon intensity", stated),
            )
        ),
    )


def _named(found: Counter[str | None], none: str) -> str:
    """``rapl (12), not stated (3)``."""
    named = {none if word is None else word: number for word, number in found.items()}
    shown = [f"{word} ({number})" for word, number in ordered(named)[:MOST_NAMES]]
    rest = sum(number for _, number in ordered(named)[MOST_NAMES:])
    return ", ".join([*shown, f"{OTHER} ({rest})"] if rest else shown)
