"""How a report begins: which run, what became of it, and its one figure with all that it needs."""

from __future__ import annotations

from collections.abc import Iterator

from telemetry.method import MODELLED, MODELLED_NOTE
from telemetry.report.facts import Facts
from telemetry.report.figures import Units, count, figure, percent, share
from telemetry.report.markup import Content, Html, element, joined, said
from telemetry.report.parts import code, duration, facts_list, moment, paragraph
from telemetry.statement import SENSOR_WORDS
from telemetry.words import is_or_are, listed, times

TITLE = "Emissions report of a federated training"


def opening(facts: Facts, units: Units) -> Html:
    """Everything above the first numbered section."""
    notes = list(_notes(facts))
    return joined(
        element(
            "header",
            paragraph(TITLE, kind="kind"),
            element("h1", said(facts.run.info.run_name)),
            _about(facts),
        ),
        element("div", [paragraph(note) for note in notes], class_="notice", role="note")
        if notes
        else None,
        _headline(facts, units),
    )


def _about(facts: Facts) -> Html:
    run = facts.run
    info = run.info
    first = facts.rounds[0].started_at if facts.rounds else info.started_at
    seconds = None if run.ended_at is None else (run.ended_at - first).total_seconds()
    return facts_list(
        (
            ("Prepared by", None if facts.author is None else said(facts.author)),
            ("Date of this report", facts.date),
            ("Run", code(run.run_id)),
            ("Status", run.status.replace("_", " ")),
            ("Started", moment(info.started_at)),
            ("Ended", moment(run.ended_at)),
            ("Lasted", None if seconds is None or seconds < 0 else duration(seconds)),
            ("Rounds", _rounds(facts)),
            ("Strategy", said(info.strategy)),
            ("Privacy", said(info.privacy)),
            ("Recorded with", said(listed(_tools(facts)))),
        ),
        "about",
    )


def _rounds(facts: Facts) -> str | None:
    if facts.pruned:
        return None
    played, planned = facts.method.rounds_played, facts.run.info.rounds_planned
    return f"{played} of {planned} planned" if planned else str(played)


def _tools(facts: Facts) -> list[str]:
    names = {
        "fedserver-telemetry": "fedserver-telemetry",
        "codecarbon": "codecarbon",
        "flwr": "Flower",
    }
    software = facts.method.software
    found = [f"{name} {software[key]}" for key, name in names.items() if key in software]
    return found or ["fedserver-telemetry"]


# --- what became of the run --------------------------------------------------------------------------


def _notes(facts: Facts) -> Iterator[Content]:
    run, method = facts.run, facts.method
    reason = joined(" (", said(run.reason), ")") if run.reason else None
    until = "The figures cover what it did until then."
    match run.status:
        case "running":
            closed = times(method.rounds_closed, "round")
            yield (
                _strong("This run is still going on. "),
                f"Every figure is of the {closed} that had closed, the set-up included; the record is "
                "not sealed yet.",
            )
        case "failed":
            yield _strong("This run failed"), reason, ". ", until
        case "interrupted":
            yield _strong("This run was interrupted"), reason, ". ", until
        case "stopped_on_budget":
            yield _strong("This run was stopped to keep its emissions budget"), reason, "."
    if not method.tracked:
        yield (
            _strong("Emissions were not tracked in this run"),
            " (", code("track_emissions: false"), "). They are unknown, and not zero.",
        )  # fmt: skip
    if facts.pruned:
        yield (
            _strong("The rounds of this run were deleted"), " on ", moment(run.pruned_at),
            " and its totals kept. Plots, tables, coverage and marks can no longer be given.",
        )  # fmt: skip
    elif not facts.rounds:
        yield _strong("No round has closed"), ": there is nothing to plot or to list."
    if method.rounds_repeated:
        again = times(method.rounds_repeated, "repeated attempt")
        yield (
            _strong("This run was taken up again after an interruption. "),
            f"{again} at a round {is_or_are(method.rounds_repeated)} on record; what every attempt used "
            "is counted.",
        )
    if not method.client_rows and facts.rounds:
        yield (
            _strong("No rows of single clients are kept"), " in ",
            f"{method.rounds_without_client_rows} of {times(method.rounds_closed, 'round')} (",
            code("telemetry.client_rows: false"), "): the clients' sums cannot be recomputed from them.",
        )  # fmt: skip


def _strong(words: str) -> Html:
    return element("strong", words)


# --- the figure ----------------------------------------------------------------------------------------


def _headline(facts: Facts, units: Units) -> Html:
    if not facts.method.tracked:
        return _panel(paragraph("not tracked", kind="total"), None)
    totals, unit = facts.run.totals, units.emissions
    total = facts.total_kg
    shown: Content = "unknown"
    if total is not None:
        number = figure(total, "total_emissions_kg", unit, bare=True)
        shown = joined(number, " ", element("span", units.co2eq, class_="unit"))
    note = _sensor_note(facts)
    return _panel(
        joined(
            paragraph(shown, kind="total"),
            paragraph(note, kind="caveat") if note is not None else None,
        ),
        facts_list(
            (
                ("Server", figure(totals.server_emissions_kg, "server_emissions_kg", unit)),
                ("Clients", _clients(facts, units)),
                ("Energy, at the meters", _energy(facts, units)),
                ("Coverage", _coverage(facts)),
                ("Complete", _complete(facts)),
                ("Beside it, estimated and not in it", _estimates(facts, units)),
                ("Marked as odd, and in it", _marked(facts, units)),
            ),
            "result",
        ),
    )


def _panel(figures: Html, facts: Html | None) -> Html:
    name = "headline-name"
    return element(
        "section",
        element("h2", "Measured emissions", id=name),
        figures,
        facts,
        class_="headline",
        aria_labelledby=name,
    )


def _sensor_note(facts: Facts) -> Content:
    if facts.total_kg is None:
        return None
    sensors = facts.method.server_sensors
    if not facts.method.server_metered:
        return "Nothing of the server was metered: its part is unknown, and not zero."
    words = listed([SENSOR_WORDS[sensor] for sensor in sensors])
    if MODELLED.isdisjoint(sensors):
        return f"The server's energy is {words}."
    return (
        _strong(MODELLED_NOTE[:1].upper() + MODELLED_NOTE[1:]),
        f". The server's energy is {words}.",
    )


def _clients(facts: Facts, units: Units) -> Html:
    totals = facts.run.totals
    if totals.clients_emissions_kg is None and facts.rounds and not facts.method.participants:
        return joined("no client took part")
    if totals.clients_emissions_kg is None:
        return joined("unknown: no report")
    return figure(totals.clients_emissions_kg, "clients_emissions_kg", units.emissions)


def _energy(facts: Facts, units: Units) -> Html:
    totals = facts.run.totals
    server = figure(totals.server_energy_kwh, "server_energy_kwh", units.energy)
    clients = figure(totals.clients_energy_kwh, "clients_energy_kwh", units.energy)
    reports = facts.method.clients_energy_reports
    of = f" (in {times(reports, 'report')})" if reports else ""
    return joined("server ", server, ", clients ", clients, of)


def _coverage(facts: Facts) -> Content:
    if facts.pruned:
        return "no longer known"
    method = facts.method
    if not method.participants:
        return "no client was asked to train"
    return (
        count(method.reported, "reported"), " of ", count(method.participants, "participants"),
        " expected reports came (", share(facts.coverage), ")",
    )  # fmt: skip


def _complete(facts: Facts) -> Content:
    method = facts.method
    if method.rounds_complete is None:
        return None
    rounds = f"{method.rounds_complete} of {times(method.rounds_closed, 'round')}"
    if method.rounds_complete == method.rounds_closed:
        return "yes: the server was metered throughout, and every client reported"
    metered = method.server_metered_share
    covers = (
        ""
        if metered is None
        else f"; the server was metered {percent(min(1.0, metered))} of the time"
    )
    return f"no: {rounds} are{covers}. What is missing adds nothing, so the figure may be too low"


def _estimates(facts: Facts, units: Units) -> Content:
    totals, unit = facts.run.totals, units.emissions
    told: list[Content] = []
    communication = totals.communication_emissions_kg_estimated
    if communication is not None:
        name = "communication_emissions_kg_estimated"
        told.append((figure(communication, name, unit), " for data transfer"))
    low, central, high = (
        totals.imputed_low_emissions_kg,
        totals.imputed_emissions_kg,
        totals.imputed_high_emissions_kg,
    )
    if central is not None and low is not None and high is not None:
        told.append(
            (
                figure(central, "imputed_emissions_kg", unit), " (",
                figure(low, "imputed_low_emissions_kg", unit), " to ",
                figure(high, "imputed_high_emissions_kg", unit), ") for silent clients",
            )
        )  # fmt: skip
    if not told:
        return None
    return joined(told[0], "; " if len(told) > 1 else None, *told[1:])


def _marked(facts: Facts, units: Units) -> Content:
    flagged = facts.method.reports_flagged
    if not flagged:
        return None
    kg = facts.method.flagged_emissions_kg
    return f"{times(flagged, 'report')}, ", figure(kg, "flagged_emissions_kg", units.emissions)
