"""What the columns of the CSV exports mean, in words: for the reference and for reports.

Unknown is an empty cell, never 0. Training metrics (``train_<name>…``, ``evaluate_<name>…``) stand
between the fixed columns of ``csv`` and its last one, ``run_sha256``.
"""

from __future__ import annotations

from typing import Final

_OF_RUN: Final = {
    "run_id": "The run's id, `YYYYMMDD-HHMMSS-xxxxxx`: its start in UTC and six random digits.",
    "run_name": "What its owner called it (`run_name`).",
    "round": "Number of the round; 0 is the set-up before the first one.",
    "attempt": "1, or more where the run was resumed and this round played again.",
}

CSV: Final[dict[str, str]] = _OF_RUN | {
    "status": "`completed`, `partial` (aggregated with at least one failed participant), `failed` or `interrupted`.",
    "started_at": "Start of the round, ISO 8601 in UTC.",
    "ended_at": "Its end, which is the start of the next round.",
    "duration_s": "Seconds from the one to the other.",
    "participants": "Clients that were sent a train message.",
    "reported": "Participants whose report was accepted.",
    "missing": "Participants that answered without a report.",
    "rejected": "Participants whose report could not be believed.",
    "failed": "Participants without a usable answer.",
    "coverage": "`reported` ÷ `participants`.",
    "complete": "1 where the server was metered for at least 99 % of the round and every participant reported, else 0.",
    "evaluate_reported": "Accepted reports from evaluation; in no coverage.",
    "reports_without_host": "Accepted reports that name no machine: counted in full, even where two of them measured one machine.",
    "server_energy_kwh": "The server's own energy, kWh at the meter, before PUE and without the clients on its machine.",
    "clients_energy_kwh": "Energy of the accepted reports that carry one, each machine once.",
    "clients_energy_reports": "How many reports that is the sum of.",
    "server_emissions_kg": "The server's energy × PUE × carbon intensity, kg CO2eq.",
    "clients_emissions_kg": "What the accepted reports count for, each machine once, kg CO2eq.",
    "total_emissions_kg": "The known ones of the two added up; no estimate is in it.",
    "cumulative_emissions_kg": "The run's total up to and with this round, every attempt included.",
    "clients_reported_emissions_kg": "What the accepted reports said, before each machine was counted once.",
    "server_sensor": "What the server's meter read: `rapl`, `nvml`, `mixed`, `model`, `constant` or `unknown`.",
    "server_carbon_intensity_g_per_kwh": "Carbon intensity that the server's figures rest on.",
    "pue": "Power usage effectiveness that they rest on.",
    "bytes_to_clients": "Bytes of the messages to clients.",
    "bytes_from_clients": "Bytes of their answers.",
    "communication_emissions_kg_estimated": "Estimate for the communication, kg CO2eq; empty unless `emissions.network_kwh_per_gb` is set. In no total.",
    "imputed_emissions_kg": "Estimate for the clients that did not report, kg CO2eq; empty unless `emissions.impute_missing` is true. In no total.",
    "estimated_total_emissions_kg": "`total_emissions_kg` and those two estimates.",
    "privacy_epsilon": "Privacy loss spent by the run so far, where it is accounted for.",
}

SEAL: Final = (
    "SHA-256 over the facts and figures of an ended run; `fedserver runs verify` computes it again."
)

CLIENTS_CSV: Final[dict[str, str]] = _OF_RUN | {
    "reported_round": "The round that the client worked for; earlier than `round` for a late report.",
    "client": "Pseudonym of the client, the same within one database.",
    "phase": "`train` or `evaluate`.",
    "outcome": "`accepted`, `late` (accepted, for an earlier round) or `rejected`.",
    "rejection": "Why: `not_a_number`, `not_finite`, `negative`, `implausible` or `inconsistent`.",
    "rejected_value": "What was sent instead, as text.",
    "reported_emissions_kg": "The client's own figure, kg CO2eq.",
    "reported_energy_kwh": "Its own energy, kWh.",
    "cpu_kwh": "Of it, the processor's.",
    "gpu_kwh": "Of it, the graphics processors'.",
    "ram_kwh": "Of it, the memory's.",
    "counted_emissions_kg": "What entered the totals, each machine once.",
    "counted_energy_kwh": "Likewise the energy.",
    "on_server_host": "1 where the client ran on the server's machine and was split off its figure.",
    "duration_s": "Seconds that the client measured.",
    "started_at": "Start of its measurement, ISO 8601 in UTC.",
    "ended_at": "Its end.",
    "country": "Where it says that it computes, ISO 3166 alpha-3.",
    "carbon_intensity_g_per_kwh": "The carbon intensity that it used.",
    "sensor": "What its meter read.",
    "scope": "What its figure is of: `machine`, `allocation`, `process`.",
    "tracker": "The program that measured.",
    "schema_version": "Version of the report's form.",
    "dropped_fields": "Optional fields that were invalid and so are unknown.",
    "flags": "Marks of reports that look odd: `looks_cumulative`, `outlier`. They count like any other.",
}
