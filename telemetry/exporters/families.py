"""The metric families of a run: names, types, labels and what is and is not in each figure.

A contract: dashboards and alerts rely on every name and label here. A new metric is one row.
"""

from __future__ import annotations

from typing import Final

from telemetry.domain import GRAMS_PER_KG
from telemetry.exporters import closed_rounds
from telemetry.exporters import samples as take
from telemetry.exporters.family import Family
from telemetry.exporters.samples import RunView

FAMILIES: Final[tuple[Family[RunView], ...]] = (
    Family(
        "fl_run_info",
        "info",
        "Facts of a run: what it trains with and what its figures rest on. A label is empty where that "
        "is not known.",
        take.run_facts,
        (
            "run_name",
            "strategy",
            "privacy",
            "country",
            "intensity_source",
            "server_scope",
            "server_sensor",
            "pue",
        ),
    ),
    Family(
        "fl_run_active",
        "gauge",
        "1 while the run trains and its server says that it lives (at a telemetry service: said so in "
        "the last minute), else 0.",
        take.active,
    ),
    Family(
        "fl_run_round",
        "gauge",
        "Number of the newest round, open or closed; 0 is the set-up.",
        take.round_number,
    ),
    Family(
        "fl_run_rounds_planned",
        "gauge",
        "Rounds that the run was started for, without the set-up; absent for an open end.",
        take.planned,
    ),
    Family(
        "fl_run_start_timestamp_seconds",
        "gauge",
        "Start of the run, seconds since 1970 in UTC.",
        take.started,
    ),
    Family(
        "fl_run_end_timestamp_seconds",
        "gauge",
        "End of the run, seconds since 1970 in UTC; absent while it runs.",
        take.ended,
    ),
    Family(
        "fl_emissions_co2eq_grams_total",
        "counter",
        "Measured emissions of closed rounds in grams CO2eq, set-up included. Server: its meter, "
        "with PUE, without the clients on its machine. Clients: accepted reports only. Not in it: "
        "silent clients, networks, hardware manufacture.",
        take.emissions,
        ("component",),
        tracked_only=True,
    ),
    Family(
        "fl_energy_joules_total",
        "counter",
        "Measured energy of closed rounds at the meter, before PUE. Server: without the clients on "
        "its machine. Clients: accepted reports that carry an energy.",
        take.energy,
        ("component",),
        tracked_only=True,
    ),
    Family(
        "fl_server_energy_joules_total",
        "counter",
        "Energy on the server's meter in closed rounds by phase, before PUE and with the clients "
        "that ran on its machine: more than the server's part of fl_energy_joules_total where there "
        "are such clients.",
        take.phase_energy,
        ("phase",),
        tracked_only=True,
    ),
    Family(
        "fl_run_emissions_co2eq_grams",
        "gauge",
        "Measured emissions of the run so far in grams CO2eq, server and clients, the open round "
        "included. Not in it: what nobody reported, and estimates.",
        take.run_emissions,
        tracked_only=True,
    ),
    Family(
        "fl_run_emissions_estimate_co2eq_grams",
        "gauge",
        "Estimates beside the measured emissions of the run, in grams CO2eq, never part of them. "
        "Communication: bytes by a stated kWh/GB, allocated. Clients: those of closed rounds that did "
        "not report, low and high as 10th and 90th percentile. Absent unless switched on.",
        take.estimates,
        ("component", "quality", "bound"),
        tracked_only=True,
    ),
    Family(
        "fl_network_bytes_total",
        "counter",
        "Bytes of the messages of closed rounds as the server counted them. Not in it: headers and "
        "repeats of the transport. Absent where the server does not see its messages.",
        take.network_bytes,
        ("direction",),
    ),
    Family(
        "fl_rounds_total",
        "counter",
        "Closed rounds by how they ended, each attempt at a round for itself. Not in it: the set-up "
        "(round 0) and the open round.",
        take.rounds,
        ("status",),
    ),
    Family(
        "fl_client_reports_total",
        "counter",
        "Clients' reports of closed rounds, on training and evaluation, by what became of them; "
        "accepted and late ones count in energy and emissions. Not in it: clients that sent none.",
        take.reports,
        ("outcome",),
        tracked_only=True,
    ),
    Family(
        "fl_clients",
        "gauge",
        "Clients of the last closed round: selected is the sum of reported, missing, rejected and "
        "failed. Connected is the newest count.",
        take.clients,
        ("state",),
    ),
    Family(
        "fl_emissions_coverage_ratio",
        "gauge",
        "Share of the last closed round's selected clients whose report on training was accepted; "
        "absent where nobody was selected. A report on evaluation does not count.",
        take.coverage,
        tracked_only=True,
    ),
    Family(
        "fl_reports_without_host",
        "gauge",
        "Accepted reports of the run that name no machine: counted in full, even where two of them "
        "measured one machine.",
        take.without_host,
        tracked_only=True,
    ),
    Family(
        "fl_training_metric",
        "gauge",
        "Training metrics of the newest round that has them, means over clients by their examples "
        "(in a program of one's own as its strategy makes them): those configured and the loss, or "
        "the first 16 where none is named. Others are only stored.",
        take.training,
        ("name", "split"),
    ),
    Family(
        "fl_round_emissions_co2eq_grams",
        "gauge",
        "Measured emissions of a closed round in grams CO2eq, with PUE, its last attempt only. Not in "
        "it: silent clients. Absent where nothing of the part was known.",
        closed_rounds.round_emissions,
        ("round", "component"),
        tracked_only=True,
    ),
    Family(
        "fl_round_cumulative_emissions_co2eq_grams",
        "gauge",
        "Measured emissions of the run up to and with a closed round in grams CO2eq, every attempt "
        "and the set-up included.",
        closed_rounds.each_round(lambda row: row.cumulative_emissions_kg, GRAMS_PER_KG),
        ("round",),
        tracked_only=True,
    ),
    Family(
        "fl_round_energy_joules",
        "gauge",
        "Measured energy of a closed round at the meter, before PUE, its last attempt only. Server: "
        "without the clients on its machine. Clients: accepted reports that carry an energy; absent "
        "where none does.",
        closed_rounds.round_energy,
        ("round", "component"),
        tracked_only=True,
    ),
    Family(
        "fl_round_training_metric",
        "gauge",
        "Training metrics of a closed round, of its last attempt; which ones, as in "
        "fl_training_metric.",
        closed_rounds.round_training,
        ("round", "name", "split"),
    ),
    Family(
        "fl_round_duration_seconds",
        "gauge",
        "Seconds from the start of a closed round to the start of the next, or to the end of the run, "
        "of its last attempt; waiting included.",
        closed_rounds.each_round(lambda row: row.duration_s),
        ("round",),
    ),
    Family(
        "fl_round_coverage_ratio",
        "gauge",
        "Share of a closed round's selected clients whose report on training was accepted; absent "
        "where nobody was selected. Of its last attempt.",
        closed_rounds.each_round(lambda row: row.coverage),
        ("round",),
        tracked_only=True,
    ),
    Family(
        "fl_client_emissions_co2eq_grams",
        "histogram",
        "Counted emissions of each client in each closed round, training and evaluation together, "
        "in grams CO2eq: accepted reports after clients on one machine were counted once. Not in it: "
        "who did not report.",
        take.distribution,
        tracked_only=True,
    ),
    Family(
        "fl_carbon_intensity_grams_per_kilowatt_hour",
        "gauge",
        "Grams CO2eq for each kWh. Server: what its emissions are computed with, before PUE. Clients: "
        "what their counted emissions come to per energy, in the last round whose reports all carry "
        "an energy; those on the server's machine include its PUE.",
        take.intensity,
        ("component", "source"),
        tracked_only=True,
    ),
    Family(
        "fl_emissions_budget_co2eq_grams",
        "gauge",
        "Grams CO2eq that the run may emit, measured; absent without a budget.",
        take.budget,
        tracked_only=True,
    ),
    Family(
        "fl_emissions_budget_used_ratio",
        "gauge",
        "Measured emissions of the run so far ÷ its budget, the open round included; may pass 1.",
        take.budget_used,
        tracked_only=True,
    ),
    Family(
        "fl_emissions_marginal_co2eq_grams_per_point",
        "gauge",
        "Grams CO2eq since the best value of the run's value metric before ÷ points (0.01) gained by "
        "the last closed round; absent where it gained none, or earlier rounds are not shown.",
        closed_rounds.marginal,
        tracked_only=True,
    ),
    Family(
        "fl_privacy_epsilon",
        "gauge",
        "Privacy loss (epsilon) spent by the run so far; absent where it is not accounted for.",
        take.epsilon,
    ),
)
