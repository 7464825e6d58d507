"""A run's method and figures as one paragraph of plain sentences, fit to be pasted into a paper.

Pure. Every emission and energy in it is one of the run's totals, or a fact of `telemetry.method`.
Energies are kWh at the meter, before PUE; emissions are g CO2eq.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Final

from telemetry.budget import used_ratio
from telemetry.domain import RoundSummary, Sensor, StoredRun
from telemetry.domain.estimates import BYTES_PER_GB
from telemetry.method import ON_SERVER_HOST, ONE_MACHINE, Method, boundary, method_of
from telemetry.words import (
    grams,
    is_or_are,
    kwh,
    listed,
    number,
    percent,
    places_for,
    sentence,
    times,
    utc_day,
)

TOOL: Final = "fedserver-telemetry"


def statement(run: StoredRun, rounds: Iterable[RoundSummary], country: str | None = None) -> str:
    """One paragraph of plain sentences, fit to be pasted into a paper.

    ``country`` is the name of the run's country, where the caller knows it.
    """
    method = method_of(run, rounds)
    if not method.tracked:
        parts = [_record(run, method), _course(run, method), _nothing_kept(method)]
    elif _pruned(run, method):
        parts = [
            _record(run, method),
            _course(run, method),
            _totals(run, method),
            _server(method),
            _conversion(method, country),
            _estimates(run, method),
            _budget(run, method),
            _outside(method),
            _deleted(run),
        ]
    else:
        parts = [
            _record(run, method),
            _course(run, method),
            _totals(run, method),
            _server(method),
            _conversion(method, country),
            _clients(run, method),
            _hosts(run, method),
            _marks(method),
            _estimates(run, method),
            _budget(run, method),
            _outside(method),
        ]
    said = chain(*parts, _rows(method), _seal(run))
    return " ".join(" ".join(said).split())


def _record(run: StoredRun, method: Method) -> Iterable[str]:
    info, software = run.info, method.software
    tools = [f"{TOOL} {software[TOOL]}" if TOOL in software else TOOL]
    if method.tracked and "codecarbon" in software:
        tools.append(f"codecarbon {software['codecarbon']}")
    if "flwr" in software:
        tools.append(f"Flower (flwr) {software['flwr']}")
    yield (
        f'The federated training "{info.run_name}" (run {run.run_id}, strategy {info.strategy}, '
        f"privacy {info.privacy}, started {utc_day(info.started_at)}) was recorded with {listed(tools)}."
    )


def _course(run: StoredRun, method: Method) -> Iterable[str]:
    planned = run.info.rounds_planned
    of = f"{method.rounds_played} of {planned} planned" if planned else f"{method.rounds_played}"
    rounds = f"{of} round{'' if (planned or method.rounds_played) == 1 else 's'}"
    found = method.rounds_by_status
    if _pruned(run, method):
        found = run.totals.rounds
        rounds = f"{times(sum(found.values()), 'round')}, repeated ones included"
    others = [f"{n} {name}" for name, n in found.items() if name != "completed"]
    note = f" ({listed(others)})" if others else ""
    reason = f" ({run.reason})" if run.reason else ""
    match run.status:
        case "running":
            yield (
                f"It had not ended when this was written, after {rounds}{note}, so that every "
                "figure is about its closed rounds only."
            )
        case "completed":
            yield f"It completed after {rounds}{note}."
        case "stopped_on_budget":
            yield f"It was stopped to keep its emissions budget, after {rounds}{note}{reason}."
        case "failed":
            yield (
                f"It failed after {rounds}{note}{reason}; the figures cover what it did until then."
            )
        case "interrupted":
            yield (
                f"It was interrupted after {rounds}{note}{reason}; the figures cover what it did "
                "until then."
            )
    if method.rounds_repeated:
        yield (
            "It was taken up again after an interruption; "
            f"{times(method.rounds_repeated, 'repeated attempt')} at a round "
            f"{is_or_are(method.rounds_repeated)} on record, and what every attempt used is counted."
        )


def _totals(run: StoredRun, method: Method) -> Iterable[str]:
    totals = run.totals
    total = totals.total_emissions_kg
    server, clients = totals.server_emissions_kg, totals.clients_emissions_kg
    asked = bool(method.participants) or _pruned(run, method)
    if total is None:
        yield (
            "Its emissions are unknown, for neither the server was metered nor did any client "
            "report."
            if asked
            else "Its emissions are unknown, for the server was not metered and no client took part."
        )
        return
    if server is not None and clients is not None:
        places = places_for((total, server, clients))
        yield (
            f"Its measured total is {grams(total, places)}: {grams(server, places)} of the "
            f"server and {grams(clients, places)} of the clients."
        )
    elif server is not None:
        why = "no client reported" if asked else "no client took part"
        yield f"Its measured total is {grams(total)}, all of the server, for {why}."
    else:
        yield (
            f"Its measured total is {grams(total)}, all of the clients, for the server was not "
            "metered."
        )
    energies = []
    if totals.server_energy_kwh is not None:
        energies.append(f"{kwh(totals.server_energy_kwh)} of the server")
    if totals.clients_energy_kwh is not None:
        count = method.clients_energy_reports
        reports = "client reports" if count is None else times(count, "client report")
        energies.append(f"{kwh(totals.clients_energy_kwh)} in the {reports} of known energy")
    if energies:
        yield f"The energy behind it, at the meters, is {listed(energies)}."


def _server(method: Method) -> Iterable[str]:
    if not method.server_metered:
        yield "No energy of the server was metered: that is unknown and not zero."
        return
    taken = f"taken with {method.tracker} and " if method.tracker else ""
    sensors = listed([SENSOR_WORDS[sensor] for sensor in method.server_sensors])
    share = method.server_metered_share
    covers = "" if share is None else f"; this covers {percent(min(1.0, share))} of the time"
    yield f"The server's energy is that of {_of_scope(method)}, {taken}{sensors}{covers}."


SENSOR_WORDS: Final[Mapping[Sensor, str]] = {
    "rapl": "measured by the processor's energy counters (RAPL)",
    "nvml": "measured by the graphics card (NVML)",
    "mixed": "partly measured by power sensors and partly modelled",
    "model": "modelled from the load, for no power sensor could be read",
    "constant": "modelled as a constant power, for no power sensor could be read",
    "unknown": "read from a sensor that is not known",
}


def _of_scope(method: Method) -> str:
    if method.server_scope == "machine":
        return "its whole machine"
    if method.server_scope == "process":
        return "its process"
    if method.server_scope == "unknown":
        return "the server, in a scope that is not recorded"
    text = "its share of the machine by processor time and memory limit"
    if method.server_shares is None:
        return text
    low, high = method.server_shares
    between = percent(low) if low == high else f"{percent(low)} to {percent(high)}"
    return f"{text} ({between} of the machine's energy)"


def _conversion(method: Method, country: str | None) -> Iterable[str]:
    if not method.server_metered:
        return
    code = method.country
    where = f"{country} ({code})" if country and code else code
    source = [
        where or "the server's country was not stated",
        method.intensity_source,
        "" if method.intensity_year is None else f"data of {method.intensity_year}",
    ]
    overhead = (
        "without a factor for data centre overhead (PUE 1)"
        if method.pue == 1
        else f"with a power usage effectiveness (PUE) of {number(method.pue)}"
    )
    of = "server and of clients on its machine" if method.clients_on_server_host else "server"
    yield (
        f"The energy of the {of} is converted with a carbon intensity of "
        f"{number(method.server_carbon_intensity_g_per_kwh)} g CO2eq per kWh "
        f"({'; '.join(text for text in source if text)}) and {overhead}."
    )


def _clients(run: StoredRun, method: Method) -> Iterable[str]:
    yield (
        "Clients measure themselves and send their figures with their replies, converted with "
        "carbon intensities of their own."
    )
    if not method.participants:
        yield "No client was asked to train in a closed round."
        return
    reported = method.reported or 0
    counts = [f"{reported} {'was' if reported == 1 else 'were'} answered with a report"]
    counts += [
        f"{count} {word}"
        for count, word in (
            (method.missing, "without one"),
            (method.rejected, "with a figure that was rejected as not believable"),
            (method.failed, "failed"),
        )
        if count
    ]
    yield (
        f"Of {times(method.participants, 'request')} to train {listed(counts)} (coverage "
        f"{percent(reported / method.participants)}); what was not reported or was rejected is "
        "unknown and adds nothing."
    )
    if method.evaluate_reported:
        yield f"{times(method.evaluate_reported, 'report')} of evaluation {is_or_are(method.evaluate_reported)} counted as well."
    if run.totals.reports_late:
        late = run.totals.reports_late
        yield (
            f"{times(late, 'report')} came too late for {'its' if late == 1 else 'their'} round "
            "and counted in the round that was open on arrival, if one was."
        )
    if run.totals.reports_repeated:
        repeated = run.totals.reports_repeated
        yield f"{times(repeated, 'repeated report')} {is_or_are(repeated)} not counted."


def _hosts(run: StoredRun, method: Method) -> Iterable[str]:
    if not run.totals.reports_accepted and not run.totals.reports_late:
        return
    yield sentence(ONE_MACHINE)
    if method.clients_on_server_host or method.server_scope != "machine":
        yield sentence(ON_SERVER_HOST[method.server_scope])
    unplaced = run.totals.reports_without_host
    if unplaced:
        yield (
            f"{times(unplaced, 'accepted report')} "
            f"{'names no machine and is' if unplaced == 1 else 'name no machine and are'} counted "
            "in full."
        )


def _marks(method: Method) -> Iterable[str]:
    flagged, emitted = method.reports_flagged, method.flagged_emissions_kg
    if flagged and emitted is not None:
        yield (
            f"{times(flagged, 'accepted report')}, with {grams(emitted)} of the total, "
            f"{'is' if flagged == 1 else 'are'} marked as far from the others or as a possible "
            "running total, and counted unchanged."
        )


def _estimates(run: StoredRun, method: Method) -> Iterable[str]:
    totals = run.totals
    if method.network_kwh_per_gb is not None:
        factor = f"{number(method.network_kwh_per_gb)} kWh per GB"
        estimated = totals.communication_emissions_kg_estimated
        sent, received = totals.bytes_to_clients, totals.bytes_from_clients
        size = number(((sent or 0) + (received or 0)) / BYTES_PER_GB)
        yield (
            f"Data transfer could not be estimated at {factor}, for no bytes were counted."
            if estimated is None
            else f"Beside the measured total and not in it, the transfer of {size} GB between server "
            f"and clients is estimated at {grams(estimated)}, with {factor} and the server's "
            "carbon intensity."
        )
    if method.impute_missing:
        central = totals.imputed_emissions_kg
        low, high = totals.imputed_low_emissions_kg, totals.imputed_high_emissions_kg
        if central is None or low is None or high is None:
            yield "For clients that did not report no estimate was possible."
        else:
            cases = method.imputed_clients
            of = "" if cases is None else f" ({times(cases, 'case')})"
            yield (
                "Beside the measured total and not in it, the emissions of clients that did not "
                f"report{of} are estimated at "
                f"{grams(central)} (from "
                f"{grams(low)} to {grams(high)}), by the median and the 10th and 90th percentile "
                "of the emissions per example of those that did."
            )


def _budget(run: StoredRun, method: Method) -> Iterable[str]:
    """A stop may have been held back, and a forecast wrong: what was used of it is said."""
    if method.budget_kg is None:
        return
    what = "stop before it is exceeded" if method.on_budget == "stop" else "warn of"
    used = used_ratio(run.totals.total_emissions_kg, method.budget_kg)
    spent = "" if used is None else f"; the measured total is {percent(used)} of it"
    yield f"The run had a budget of {grams(method.budget_kg)}, to {what}{spent}."


def _outside(method: Method) -> Iterable[str]:
    told = boundary(method)
    if told["included"]:
        yield f"The measured total contains: {'; '.join(told['included'])}."
    yield f"It does not contain: {'; '.join(told['not_included'])}."


def _nothing_kept(method: Method) -> Iterable[str]:
    yield (
        "Its energy and emissions were not recorded, neither the server's nor the clients': they "
        "are unknown and not zero."
    )
    if method.rounds_closed:
        yield f"Only the course of {times(method.rounds_closed, 'round')} is on record."


def _pruned(run: StoredRun, method: Method) -> bool:
    return run.pruned_at is not None and not method.rounds_closed


def _deleted(run: StoredRun) -> Iterable[str]:
    assert run.pruned_at is not None
    yield (
        f"Its rounds were deleted on {utc_day(run.pruned_at)} and its totals kept, so that coverage, "
        "metered time and marks can no longer be told."
    )


def _rows(method: Method) -> Iterable[str]:
    if not method.client_rows and method.rounds_closed:
        of = f"{method.rounds_without_client_rows} of {times(method.rounds_closed, 'round')}"
        yield (
            f"Of the clients only sums and distributions are kept (in {of}), so that these sums "
            "cannot be recomputed from single reports."
        )


def _seal(run: StoredRun) -> Iterable[str]:
    if run.sha256 is not None:
        yield f"The record is sealed with the SHA-256 digest {run.sha256}."
    elif run.ended_at is None:
        yield "The record is not sealed yet."
    else:
        yield "The record bears no seal: it was made before there were seals."
