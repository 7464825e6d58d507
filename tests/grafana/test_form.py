"""The committed dashboards: as generated, in Grafana's classic form, and by the rules of dashboard-linter.

The rules are those of https://github.com/grafana/dashboard-linter, in Python; where ours differ, the
test says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from grafana import build, queries
from grafana.checked import NotInCatalogue, checked
from grafana.fields import UNITS
from grafana.frame import DASHBOARDS, Row, Section, dashboard
from grafana.panels import now, stat

SCHEMA = json.loads((Path(__file__).parent / "classic.schema.json").read_text())
VALID = Draft202012Validator(SCHEMA)
UIDS = tuple(DASHBOARDS)
COMMITTED = {uid: queries.load(uid) for uid in UIDS}
TARGETS = [target for uid in UIDS for target in queries.targets(COMMITTED[uid])]
PROMQL = [target for target in TARGETS if target.language == "promql"]


def faults(found: Any) -> list[str]:
    """What the schema has against a dashboard."""
    return [f"{error.json_path}: {error.message[:300]}" for error in VALID.iter_errors(found)]


def every_panel() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each with the uid of its dashboard."""
    for uid, found in COMMITTED.items():
        for panel in queries.panels(found):
            yield uid, panel


def variables(uid: str) -> dict[str, dict[str, Any]]:
    """Of a dashboard, by name."""
    return {one["name"]: one for one in COMMITTED[uid]["templating"]["list"]}


# --- generated -----------------------------------------------------------------------------------


def test_the_committed_files_are_what_the_generator_writes() -> None:
    """``make dashboards`` would change nothing, and there is no file that it does not write."""
    there = {path.name: path.read_text(encoding="utf-8") for path in queries.DASHBOARDS.iterdir()}
    assert there == build.built()
    assert build.main(["--check"]) == 0


def test_a_difference_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that was changed by hand, that is missing or that nobody writes; writing mends all three."""
    monkeypatch.setattr(build, "DASHBOARDS", tmp_path)
    assert build.main([]) == 0
    changed, missing, *_ = sorted(tmp_path.iterdir())
    changed.write_text(changed.read_text().replace("10s", "11s").replace("30s", "31s"))
    missing.unlink()
    (tmp_path / "own.json").write_text("{}")
    assert build.main(["--check"]) == 1
    told = capsys.readouterr().err
    assert {line.split()[0] for line in told.splitlines()} == {
        changed.name,
        missing.name,
        "own.json",
    }
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("expression", "legend", "says"),
    [
        (
            "fl_run_emissions_co2eq_kilograms",
            "",
            "no such metric: fl_run_emissions_co2eq_kilograms",
        ),
        ('sum(rate(fl_energy_joule_total{job="x"}[5m]))', "", "no such metric"),
        ('fl_run_round{runid="x"}', "", r"no such label: fl_run_round\{runid\}"),
        ('fl_run_round{component="server"}', "", "no such label"),
        ("sum by (phase) (fl_energy_joules_total)", "", "no such label: phase"),
        ("fl_run_round * on (run) group_left () fl_run_info", "", "no such label: run,"),
        ("fl_run_round * on (run_id) group_left (name) fl_run_info", "", "no such label: name,"),
        ("fl_run_round", "{{strategy}}", "no such label: strategy"),
        ("fl_http_request_duration_seconds", "", "no such metric"),
        ("sum by (le) (fl_run_round)", "", "no such label: le"),
        ("fl_run_round & fl_run_active", "", "cannot read"),
    ],
)
def test_a_query_on_what_no_page_shows_stops_the_build(
    expression: str, legend: str, says: str
) -> None:
    """A metric, a label that is chosen by, grouped by, joined on or shown."""
    with pytest.raises(NotInCatalogue, match=says):
        checked(expression, legend)


@pytest.mark.parametrize(
    ("expression", "legend"),
    [
        ('max by (run_id) (last_over_time(fl_run_round{job=~"$job"}[$__range])) > 0', "{{run_id}}"),
        ('count_values by (run_id) ("round", fl_run_round) or vector(0)', "round {{round}}"),
        ('label_replace(fl_run_active == 1, "at", "now", "", "")', "{{at}}"),
        (
            "histogram_quantile(0.95, sum by (le, route) "
            "(rate(fl_http_request_duration_seconds_bucket[$__rate_interval])))",
            "{{route}}",
        ),
        ("time() - 1e3 * fl_run_round offset 5m", ""),
    ],
)
def test_queries_that_are_right_are_let_through(expression: str, legend: str) -> None:
    """Functions, labels that are made on the way, variables and ranges are no metrics."""
    assert checked(expression, legend) == expression


def test_a_dashboard_with_such_a_query_cannot_be_built() -> None:
    """The check is in the way of every query, that of a panel too."""
    with pytest.raises(NotInCatalogue):
        stat("Title", "What it is about.", [now("fl_no_such_metric")])


def test_a_row_that_is_too_wide_cannot_be_built() -> None:
    """Grafana would move its last panel somewhere else."""
    panel = stat("Title", "What it is about.", [now("fl_run_active")])
    wrong = Section("", [Row(4, [(12, panel), (13, panel)])])
    with pytest.raises(ValueError, match="25 columns"):
        dashboard(
            "fl-fleet", "What it is.", sections=[wrong], variables=[], start="now-1h", refresh="10s"
        )


# --- form ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", UIDS)
def test_a_dashboard_is_in_the_classic_form(uid: str) -> None:
    """By our schema, which knows every key; not in the form that file provisioning refuses."""
    assert faults(COMMITTED[uid]) == []
    assert not {"elements", "layout", "kind", "spec", "__inputs", "id"} & COMMITTED[uid].keys()
    assert COMMITTED[uid]["uid"] == uid


def _misspelt_option(found: dict[str, Any]) -> None:
    found["panels"][0]["options"]["graphmode"] = "none"


def _wrong_choice(found: dict[str, Any]) -> None:
    panel = next(one for one in found["panels"] if one["type"] == "bargauge")
    panel["options"]["displayMode"] = "lst"


def _unknown_unit(found: dict[str, Any]) -> None:
    found["panels"][0]["fieldConfig"]["defaults"]["unit"] = "kilogram"


def _unit_of_one_field(found: dict[str, Any]) -> None:
    panel = next(one for one in found["panels"] if one.get("type") == "trend")
    panel["fieldConfig"]["overrides"][0]["properties"] = [{"id": "unit", "value": "gram"}]


def _fixed_source(found: dict[str, Any]) -> None:
    found["panels"][0]["datasource"]["uid"] = "prometheus"


def _no_description(found: dict[str, Any]) -> None:
    del found["panels"][0]["description"]


def _other_version(found: dict[str, Any]) -> None:
    found["schemaVersion"] = 41


def _field_of_another_panel(found: dict[str, Any]) -> None:
    panel = next(one for one in found["panels"] if one.get("type") == "timeseries")
    panel["options"]["xField"] = "round"


@pytest.mark.parametrize(
    "spoil",
    [
        _misspelt_option,
        _wrong_choice,
        _unknown_unit,
        _unit_of_one_field,
        _fixed_source,
        _no_description,
        _other_version,
        _field_of_another_panel,
    ],
)
def test_the_schema_refuses(spoil: Callable[[dict[str, Any]], None]) -> None:
    """What Grafana would take without a word and not show."""
    found = queries.load("fl-run-overview")
    spoil(found)
    assert faults(found)


@pytest.mark.parametrize("uid", UIDS)
def test_ids_are_unique_and_panels_do_not_overlap(uid: str) -> None:
    """Those of folded rows too, among themselves; nothing reaches beyond the 24 columns."""
    found = COMMITTED[uid]
    ids = [one["id"] for one in found["panels"]]
    ids += [one["id"] for row in found["panels"] for one in row.get("panels", ())]
    assert len(ids) == len(set(ids))
    folded = [row["panels"] for row in found["panels"] if row.get("collapsed")]
    for group in (found["panels"], *folded):
        cells: set[tuple[int, int]] = set()
        for one in group:
            place = one["gridPos"]
            assert place["x"] + place["w"] <= 24, one["title"]
            covers = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not covers & cells, one["title"]
            cells |= covers


def test_units_are_those_that_are_known() -> None:
    """The list of the generator is that of the schema, and each one is used."""
    assert set(SCHEMA["$defs"]["unit"]["enum"]) == UNITS
    text = json.dumps(COMMITTED)
    assert [unit for unit in UNITS if json.dumps(unit) not in text] == []


@pytest.mark.parametrize("uid", UIDS)
def test_every_dashboard_links_to_the_others(uid: str) -> None:
    """By uid, with the time range and what is chosen."""
    ours = {"Zoom to the run"}
    links = {one["title"]: one for one in COMMITTED[uid]["links"] if one["title"] not in ours}
    assert {title: one["url"] for title, one in links.items()} == {
        title: f"/d/{other}" for other, title in DASHBOARDS.items() if other != uid
    }
    assert all(one["includeVars"] and one["keepTime"] for one in links.values())
    for target in re.findall(r"/d/([a-z-]+)", json.dumps(COMMITTED[uid])):
        assert target in DASHBOARDS


def test_run_overview_asks_no_database() -> None:
    """It works for an FL server with its SQLite file, and a Prometheus."""
    assert {target.language for target in TARGETS if target.dashboard == "fl-run-overview"} == {
        "promql"
    }
    assert "sql_datasource" not in json.dumps(COMMITTED["fl-run-overview"])


def test_marks_are_from_prometheus_on_the_overview_and_from_sql_elsewhere() -> None:
    """Rounds and runs; service health has only processes."""
    languages = {
        uid: {
            target.language
            for target in TARGETS
            if target.place == "annotation" and target.dashboard == uid
        }
        for uid in UIDS
    }
    assert languages == {
        "fl-run-overview": {"promql"},
        "fl-fleet": {"sql"},
        "fl-clients": {"sql"},
        "fl-service-health": {"promql"},
    }


# --- dashboard-linter ----------------------------------------------------------------------------


@pytest.mark.parametrize("uid", UIDS)
def test_rule_template_datasource(uid: str) -> None:
    """Data sources are variables with these names and labels, and those that are asked are there."""
    found = variables(uid)
    asked = {target.language for target in TARGETS if target.dashboard == uid}
    expected = {
        "promql": ("datasource", "Data source"),
        "sql": ("sql_datasource", "SQL data source"),
    }
    for language, (name, label) in expected.items():
        assert (name in found) == (language in asked)
        if name in found:
            assert (found[name]["type"], found[name]["label"]) == ("datasource", label)


@pytest.mark.parametrize("uid", [uid for uid in UIDS if uid != "fl-clients"])
def test_rule_template_job(uid: str) -> None:
    """``job`` takes several, or all; on service health ``instance`` does, too.

    On the others it would say nothing: a run has one source, and `run_id` names it.
    """
    names = ("job", "instance") if uid == "fl-service-health" else ("job",)
    for name in names:
        found = variables(uid)[name]
        assert (found["multi"], found["includeAll"], found["allValue"]) == (True, True, ".+")
        assert found["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("uid", UIDS)
def test_rule_template_on_time_change_reload(uid: str) -> None:
    """Choices follow the time range, and so the refresh."""
    for found in variables(uid).values():
        assert found["refresh"] == (2 if found["type"] == "query" else 1), found["name"]


def test_rules_panel_datasource_and_title_description() -> None:
    """Each panel and each query asks the variable; title and description say what it is, for people."""
    for uid, panel in every_panel():
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"], (uid, panel["title"])
        assert panel["description"].endswith((".", "?")), (uid, panel["title"])
        assert panel["description"] != panel["title"]


def test_titles_are_unique_within_a_dashboard() -> None:
    """Tests and people name panels by them."""
    for uid in UIDS:
        titles = [panel["title"] for panel in queries.panels(COMMITTED[uid])]
        assert len(titles) == len(set(titles))


def test_rule_target_job() -> None:
    """Every series that is asked for is of the chosen jobs; of a run, of the chosen run."""
    for target in PROMQL:
        if target.title in ("job", "instance"):
            continue  # the variables that the others are chosen by
        selectors = re.findall(r"(?<![\w:\"])(?:fl|process|up|scrape)\w*(\{[^}]*\})?", target.text)
        assert selectors
        for selector in selectors:
            assert 'job=~"$job"' in selector, target
            if target.dashboard == "fl-service-health":
                assert 'instance=~"$instance"' in selector, target
            if target.dashboard == "fl-run-overview" and target.title != "run_id":
                assert 'run_id="$run_id"' in selector, target


def test_rule_target_rate_interval() -> None:
    """A rate is over ``$__rate_interval``; only how much there was in the range is over ``$__range``."""
    for target in PROMQL:
        for function, window in re.findall(
            r"\b(rate|irate|increase)\([^[]*\[([^]]*)\]", target.text
        ):
            expected = {"rate": "$__rate_interval", "increase": "$__range"}
            assert window == expected[function], target


def test_rule_target_counter_agg() -> None:
    """A counter is shown as a rate or an increase, or by its last value where it is a run's.

    That is where ours differ: a run's counters are the stored sums over its closed rounds. They never
    begin anew, and the sum is the figure.
    """
    for target in PROMQL:
        for before, name in re.findall(r"(\w*)\((\w+_total)\b", target.text):
            of_run = target.dashboard == "fl-run-overview" and name.startswith("fl_")
            assert before in ({"rate", "increase"} | ({"last_over_time"} if of_run else set())), (
                target
            )
        assert target.text.count("_total") == len(re.findall(r"\((\w+_total)\b", target.text))


def test_finished_runs_are_still_shown() -> None:
    """What is asked of a run at one moment looks back over the time range, but for whether it trains."""
    for target in PROMQL:
        if target.dashboard == "fl-run-overview" and target.instant and target.place == "panel":
            plain = re.sub(r"last_over_time\(\w+\{[^}]*\}\[\$__range\]\)", "", target.text)
            assert set(re.findall(r"\bfl_\w+", plain)) <= {"fl_run_active"}, target


def test_sql_is_bounded_and_quotes_what_is_chosen() -> None:
    """A table has a limit; what a viewer chooses is quoted by Grafana, whatever it is called."""
    for target in TARGETS:
        if target.language == "sql":
            assert not re.search(r"\$(?!__time)(\w+|\{\w+\})(?!:)", target.text), target
    for uid, panel in every_panel():
        if panel["type"] == "table" and "rawSql" in panel["targets"][0]:
            assert re.search(r"LIMIT \d+$", panel["targets"][0]["rawSql"]), (uid, panel["title"])
