"""Every query of every dashboard, asked of a real Prometheus and a real PostgreSQL that know real trainings."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row

from grafana import queries
from grafana.frame import DASHBOARDS
from grafana.queries import Target
from telemetry.analysis.compare import compare
from telemetry.domain import GRAMS_PER_KG, JOULES_PER_KWH
from tests.grafana.federation import ROUNDS, Federation, Kept, federation

TARGETS: Final = [target for uid in DASHBOARDS for target in queries.targets(queries.load(uid))]
PROMQL: Final = [target for target in TARGETS if target.language == "promql"]
SQL: Final = [target for target in TARGETS if target.language == "sql"]
OF_OVERVIEW: Final = "fl-run-overview"
SQL_COLUMNS_WITHOUT_VALUES: Final = {
    ("Clients of each round, by outcome", "edge"): "only the row that makes room for the last bar",
}


def named(target: Target) -> str:
    """For the name of a test."""
    return f"{target.dashboard}-{target.place}-{target.title}-{target.ref}"


@dataclass(frozen=True)
class Series:
    """A line of a panel, or one value."""

    labels: dict[str, str]
    values: list[float]

    @property
    def finite(self) -> list[float]:
        """Without NaN, which Grafana leaves out."""
        return [value for value in self.values if math.isfinite(value)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Real trainings."""
    with federation(tmp_path_factory.mktemp("federation")) as found:
        yield found


def asked(seen: Federation, target: Target, run: Kept) -> list[Series]:
    """What a query returns as Grafana asks it; a wrong one is an error of Prometheus's."""
    variables = {"job": ".+", "instance": ".+", "run_id": run.run_id, "metric": "accuracy"}
    window = replace(seen.window, end_s=time.time())
    expression = queries.promql(target.text, window, variables)
    if target.instant:
        found = seen.prometheus.ask("query", query=expression, time=window.end_s)
        return [Series(row["metric"], [float(row["value"][1])]) for row in found["result"]]
    found = seen.prometheus.ask(
        "query_range",
        query=expression,
        start=window.start_s,
        end=window.end_s,
        step=window.step_s,
    )
    return [
        Series(row["metric"], [float(value) for _, value in row["values"]])
        for row in found["result"]
    ]


def figure(seen: Federation, run: Kept, title: str, ref: str = "A", **labels: str) -> float:
    """What a panel of the overview shows: of one series, chosen by its labels."""
    (target,) = [t for t in PROMQL if (t.dashboard, t.title, t.ref) == (OF_OVERVIEW, title, ref)]
    (found,) = [one for one in asked(seen, target, run) if labels.items() <= one.labels.items()]
    return found.values[-1]


# --- Prometheus ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", PROMQL, ids=named)
def test_every_promql_query_has_an_answer(seen: Federation, target: Target) -> None:
    """Of finite numbers, each with the labels of its legend.

    The overview is of a run whose server is gone, without any service: an embedded install after the
    training. What trains now is asked of the one that trains.
    """
    run = seen.gone if target.dashboard == OF_OVERVIEW else seen.training
    found = asked(seen, target, run)
    assert any(one.finite for one in found)
    for one in found:
        for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", target.legend):
            assert one.labels.get(label), (label, one.labels)
    if target.place == "panel" and "{{" not in target.legend and target.legend != "__auto":
        assert len(found) == 1, "several lines would have one name"


@pytest.mark.parametrize(
    "target", [t for t in PROMQL if t.dashboard == OF_OVERVIEW and t.place == "panel"], ids=named
)
def test_the_overview_shows_a_run_that_trains(seen: Federation, target: Target) -> None:
    """All but what its clients and configuration have no value for."""
    absent = {"Privacy loss (epsilon)", "CO2eq/point"}
    found = asked(seen, target, seen.training)
    assert any(one.finite for one in found) == (target.title not in absent)


def test_the_overview_shows_the_stores_figures(seen: Federation) -> None:
    """Total, energy, parts, phases, power, coverage and progress, of a run that is gone and of one delivered."""
    for run in (seen.gone, seen.delivered):
        totals = run.run.totals
        last = run.rounds[-1]
        assert totals.total_emissions_kg is not None
        grams = totals.total_emissions_kg * GRAMS_PER_KG
        assert figure(seen, run, "CO2eq so far") == pytest.approx(grams, rel=1e-9)
        parts = {
            "server": totals.server_emissions_kg,
            "clients": totals.clients_emissions_kg,
        }
        for component, kg in parts.items():
            assert kg is not None
            shown = figure(seen, run, "CO2eq by component", component=component)
            assert shown == pytest.approx(kg * GRAMS_PER_KG, rel=1e-9)
        kwh = [totals.server_energy_kwh, totals.clients_energy_kwh]
        joules = sum(k for k in kwh if k is not None) * JOULES_PER_KWH
        assert figure(seen, run, "Energy") == pytest.approx(joules / 3600, rel=1e-9)
        assert totals.server_emissions_kg is not None
        phases = [
            figure(seen, run, "CO2eq by phase of the server", phase=phase)
            for phase, known in totals.phase_energy_kwh.items()
            if known is not None
        ]
        assert sum(phases) == pytest.approx(totals.server_emissions_kg * GRAMS_PER_KG, rel=1e-9)
        assert figure(seen, run, "Coverage") == last.coverage
        watts = [
            figure(seen, run, "Mean power of each round", ref, round=str(last.round))
            for ref in ("A", "B")
        ]
        energy_kwh = (last.server_energy_kwh or 0) + (last.clients_energy_kwh or 0)
        assert sum(watts) == pytest.approx(energy_kwh * JOULES_PER_KWH / last.duration_s, rel=1e-9)
        assert figure(seen, run, "Power", round=str(last.round)) == pytest.approx(sum(watts))
        assert figure(seen, run, "$metric") == last.evaluate_metrics["accuracy"]
        against = figure(seen, run, "$metric against cumulative CO2eq", round=str(last.round))
        assert against == pytest.approx(grams, rel=1e-9)


def test_status_and_time_are_right_in_every_state(seen: Federation) -> None:
    """Training, ended, ended and gone; the time of a run that trains goes on."""
    assert figure(seen, seen.training, "Status") == 2
    assert figure(seen, seen.delivered, "Status") == 1
    assert figure(seen, seen.gone, "Status") == 1
    before = figure(seen, seen.training, "Time")
    seen.prometheus.until(lambda: figure(seen, seen.training, "Time") > before, "time goes on")
    ended_at, started_at = seen.gone.run.ended_at, seen.gone.run.info.started_at
    assert ended_at is not None
    lasted = (ended_at - started_at).total_seconds()
    assert figure(seen, seen.gone, "Time") == pytest.approx(lasted, abs=1e-3)


def test_the_headline_says_what_measured(seen: Federation) -> None:
    """There is no power sensor where a figure is not from one: the name of the figure says so."""
    (target,) = [t for t in PROMQL if (t.dashboard, t.title) == (OF_OVERVIEW, "CO2eq so far")]
    sensors = {row.factors.server_sensor for row in seen.gone.rounds} - {"unknown"}
    (sensor,) = sensors
    (one,) = asked(seen, target, seen.gone)
    modelled = sensor in ("model", "constant")
    assert one.labels["sensor"] == "modelled, no power sensor" or not modelled


def test_the_time_of_a_run_is_zoomed_to(seen: Federation) -> None:
    """From before its start to after its end, or to now: what the regular expression finds."""
    for run, ends in ((seen.gone, True), (seen.training, False)):
        found = {}
        for variable in queries.load(OF_OVERVIEW)["templating"]["list"]:
            if variable["name"] in ("run_from", "run_to"):
                (target,) = [t for t in PROMQL if t.title == variable["name"]]
                (one,) = asked(seen, target, run)
                text = "{" + ",".join(f'{k}="{v}"' for k, v in one.labels.items()) + "} 1 0"
                match = re.search(variable["regex"].strip("/"), text)
                assert match is not None
                found[variable["name"]] = match[1]
        assert int(found["run_from"]) / 1000 < run.run.info.started_at.timestamp()
        if ends:
            assert run.run.ended_at is not None
            assert int(found["run_to"]) / 1000 > run.run.ended_at.timestamp()
        else:
            assert found["run_to"] == "now"


# --- PostgreSQL ----------------------------------------------------------------------------------


def answered(
    url: str, target: Target, seen: Federation, run_id: str, several: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of a query, for the role that may read the views and nothing else."""
    variables = {
        "run_id": run_id,
        "strategy": ["FedAvg"] if several else [],
        "run_name": several,
        "value_metric": "accuracy",
    }
    text = queries.sql(target.text, replace(seen.window, end_s=time.time() + 60), variables)
    with psycopg.connect(url, row_factory=dict_row) as connection:
        assert connection.execute("SELECT current_user AS me").fetchone() == {
            "me": "grafana_reader"
        }
        return connection.execute(text.encode()).fetchall()


@pytest.mark.parametrize("target", SQL, ids=named)
def test_every_sql_query_has_an_answer(seen: Federation, target: Target) -> None:
    """Rows, and in each column a value; as the role of the dashboards."""
    names = ["delivered", "training", "it's"]
    found = answered(seen.reader_url, target, seen, seen.delivered.run_id, names)
    assert found
    for column in found[0]:
        values = [row[column] for row in found if row[column] is not None]
        if (target.title, column) not in SQL_COLUMNS_WITHOUT_VALUES:
            assert values, column


@pytest.mark.parametrize("target", SQL, ids=named)
def test_no_sql_query_fails_before_there_is_a_run(seen: Federation, target: Target) -> None:
    """Grafana then has no value for a variable, and puts nothing where several would be."""
    for row in answered(seen.empty_url, target, seen, "", []):
        shown = {value for value in row.values() if value is not None}
        assert shown <= {0, "accuracy"}, row


def _of_panel(seen: Federation, title: str, run_id: str = "") -> list[dict[str, Any]]:
    (target,) = [t for t in SQL if t.title == title and t.place == "panel"]
    return answered(seen.reader_url, target, seen, run_id, ["delivered", "training"])


def test_the_comparison_is_that_of_runs_compare(seen: Federation) -> None:
    """Total, best value, grams per point and coverage of each run, to 1e-9."""
    runs = [seen.delivered, seen.training]
    expected = compare([(one.run, one.rounds) for one in runs], "accuracy").contenders
    rows = {row["run"]: row for row in _of_panel(seen, "Runs, side by side")}
    assert set(rows) == {one.run_id for one in runs}
    for contender in expected:
        row = rows[contender.run.run_id]
        assert contender.total_kg is not None
        assert contender.value is not None
        assert row["CO2eq"] == pytest.approx(contender.total_kg * GRAMS_PER_KG, rel=1e-9)
        assert row["best"] == pytest.approx(contender.value.best.value, rel=1e-9)
        assert row["reported"] == pytest.approx(contender.coverage, rel=1e-9)
        assert row["per point"] == (
            None
            if contender.value.average_g_per_point is None
            else pytest.approx(contender.value.average_g_per_point, rel=1e-9)
        )
        assert (row["rounds"], row["status"]) == (contender.rounds, contender.run.status)
    assert rows[seen.delivered.run_id]["per point"] is not None


def test_days_and_strategies_add_up_to_the_runs(seen: Federation) -> None:
    """Nothing is counted twice, nothing is left out."""
    total = sum(row["CO2eq"] for row in _of_panel(seen, "Runs, side by side"))
    for row in _of_panel(seen, "CO2eq of these runs") + _of_panel(seen, "CO2eq by strategy"):
        assert row["CO2eq"] == pytest.approx(total, rel=1e-9)
    days = _of_panel(seen, "CO2eq of each day (UTC)")
    assert len(days) >= 14
    known = [row[part] for row in days for part in ("server", "clients") if row[part] is not None]
    assert sum(known) == pytest.approx(total, rel=1e-9)
    assert len([row for row in days if row["server"] is not None]) in (1, 2), (
        "no bar without rounds"
    )


def test_days_have_runs_that_were_pruned(seen: Federation) -> None:
    """Their rounds are gone, their totals are not: they stand on the day of their end."""
    (target,) = [t for t in SQL if t.title == "CO2eq of each day (UTC)"]
    before = _of_panel(seen, "CO2eq of each day (UTC)")
    variables = {"strategy": ["FedAvg"], "run_name": ["delivered", "training"]}
    text = queries.sql(target.text, replace(seen.window, end_s=time.time() + 60), variables)
    owner = seen.reader_url.replace("grafana_reader@", "postgres@")
    with psycopg.connect(owner, row_factory=dict_row) as connection:
        connection.execute("DELETE FROM rounds WHERE run_id = %s", (seen.delivered.run_id,))
        after = connection.execute(text.encode()).fetchall()
        connection.rollback()
    for part in ("server", "clients"):
        sums = [sum(row[part] or 0 for row in rows) for rows in (before, after)]
        assert sums[0] == pytest.approx(sums[1], rel=1e-9)


def test_clients_are_those_of_the_run(seen: Federation) -> None:
    """Outcomes of each round, what each client emitted, what was rejected and what was flagged."""
    run = seen.delivered
    outcomes = {
        row["round"]: row
        for row in _of_panel(seen, "Clients of each round, by outcome", run.run_id)
    }
    for summary in run.rounds[1:]:
        row = outcomes[summary.round]
        for name in ("reported", "missing", "rejected", "failed", "coverage"):
            assert row[name] == getattr(summary, name), name
    assert set(outcomes) == {*range(1, ROUNDS + 1), ROUNDS + 1}
    assert run.run.totals.clients_emissions_kg is not None
    grams = run.run.totals.clients_emissions_kg * GRAMS_PER_KG
    everyone = _of_panel(seen, "All clients", run.run_id)
    assert len(everyone) == 9
    assert all(re.fullmatch(r"c-[0-9a-f]{8}", row["client"]) for row in everyone)
    assert sum(row["CO2eq"] or 0 for row in everyone) == pytest.approx(grams, rel=1e-9)
    top = _of_panel(seen, "Top emitters", run.run_id)
    assert [row["CO2eq"] for row in top] == sorted((row["CO2eq"] for row in top), reverse=True)
    assert top[0]["CO2eq"] == pytest.approx(2e-6 * 100 * ROUNDS * GRAMS_PER_KG, rel=1e-6)
    counted = _of_panel(seen, "Clients by their CO2eq", run.run_id)
    assert sum(row["clients"] for row in counted) == len([row for row in everyone if row["CO2eq"]])
    assert _of_panel(seen, "Rejected, by reason", run.run_id) == [
        {"reason": "negative", "reports": run.run.totals.reports_rejected}
    ]
    flagged = _of_panel(seen, "Flagged reports", run.run_id)
    assert {row["client"] for row in flagged} == {top[0]["client"]}
    assert len(flagged) == sum(summary.reports_flagged or 0 for summary in run.rounds)


# --- fields --------------------------------------------------------------------------------------


def _fields(seen: Federation, panel: dict[str, Any], dashboard: str) -> set[str]:
    """Names that the fields of a panel may have: columns, labels, legends, and what they are renamed to."""
    found = {"Value", "Time"}
    for target in (t for t in TARGETS if (t.dashboard, t.title) == (dashboard, panel["title"])):
        if target.language == "sql":
            for row in answered(
                seen.reader_url, target, seen, seen.delivered.run_id, ["delivered", "training"]
            ):
                found |= row.keys()
            continue
        found.add(target.legend)
        for run in (seen.gone, seen.delivered, seen.training):
            for one in asked(seen, target, run):
                found |= {*one.labels, *one.labels.values()}
        found.add(f"Value #{target.ref}")
    for transformation in panel["transformations"]:
        options = transformation["options"]
        renamed = options.get("renameByName", {})
        assert set(renamed) - {f"Value #{ref}" for ref in "ABCDEFGZ"} <= found, panel["title"]
        found |= set(renamed.values())
        found |= {options.get("firstFieldName", ""), options.get("restFieldsName", "")}
    return found


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_what_is_said_of_a_field_is_said_of_one_that_is_there(seen: Federation, uid: str) -> None:
    """Overrides, x axes, sorting and links by name: a misspelt one would do nothing."""
    for panel in queries.panels(queries.load(uid)):
        fields = _fields(seen, panel, uid)
        named = {
            override["matcher"]["options"]
            for override in panel["fieldConfig"]["overrides"]
            if override["matcher"]["id"] == "byName"
        }
        named |= {panel["options"]["xField"]} if "xField" in panel["options"] else set()
        named |= set(re.findall(r"__data\.fields\.(\w+)", str(panel["fieldConfig"])))
        # A round may have none of these, and a service no delivery of that kind.
        possible = {
            "edge",
            "failed",
            "missing",
            "rejected",
            "repeated",
            "refused",
            "busy",
            "stored",
        }
        possible |= {"configure", "setup", "wait", "aggregate", "evaluate", "idle", "coverage"}
        assert named - fields <= possible, panel["title"]
