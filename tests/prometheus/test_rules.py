"""``prometheus/``: Prometheus takes the files, every alert is tested both ways and told of in the runbook."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from telemetry.exporters.catalogue import CATALOGUE, LABELS
from tests.tools import require_tool

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "prometheus"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in RULES if "record" in rule}
TESTS = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
TARGET_LABELS = {"job", "instance", "le"}


def promtool(*arguments: str | Path) -> None:
    """Run it; it succeeds and warns of nothing."""
    done = subprocess.run(
        [require_tool("promtool"), *arguments],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"warn|duplicate|lint", done.stdout + done.stderr, re.IGNORECASE), done


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    """As it is, and with files where the tokens are mounted: rules and credentials are found, too."""
    promtool("check", "config", "--syntax-only", "prometheus.yml")
    text = (FOLDER / "prometheus.yml").read_text()
    for path in re.findall(r"credentials_file: (\S+)", text):
        assert path.startswith("/run/secrets/"), "where compose mounts secrets"
        token = tmp_path / Path(path).name
        token.write_text("made-up")
        text = text.replace(path, str(token))
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / "rules.yml").write_text((FOLDER / "rules.yml").read_text())
    promtool("check", "config", "--lint=all", "--lint-fatal", tmp_path / "prometheus.yml")


def test_it_scrapes_every_five_seconds_with_a_time_limit_below() -> None:
    """Rounds may be short, and what ended is shown for a minute; tokens never stand in the file."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert config["global"]["scrape_interval"] == "5s"
    assert config["global"]["scrape_timeout"] == "4s"
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == {"telemetry", "fedserver"}
    for job in jobs.values():
        assert set(job) == {"job_name", "authorization", "static_configs"}
        assert set(job["authorization"]) == {"credentials_file"}


def test_the_rules_are_valid() -> None:
    """And none is there twice."""
    promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yml")
    assert len(RULES) == len(ALERTS) + len(RECORDED)


def test_the_rules_do_what_their_tests_say() -> None:
    """``promtool test rules``: figures, alerts that fire and alerts that do not."""
    promtool("test", "rules", "rules_test.yml")


def test_the_alerts_are_those_of_the_contract() -> None:
    """What operators wait for, by name."""
    assert set(ALERTS) == {
        "FlCoverageLow",
        "FlBudgetBurning",
        "FlBudgetExhausted",
        "FlRoundSpike",
        "FlEmissionsStalled",
        "FlDeliveryStalled",
        "FlSeriesNearLimit",
        "FlExporterDown",
        "FlIngestFailing",
        "FlHttpErrors",
    }


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_tested_both_ways(name: str) -> None:
    """In its own test it fires at one time and is silent at another, and not for every series there."""
    found = [
        (one, test)
        for test in TESTS
        for one in test.get("alert_rule_test", ())
        if one["alertname"] == name
    ]
    assert any(one["exp_alerts"] for one, _ in found)
    assert any(not one["exp_alerts"] for one, _ in found)
    for one, test in found:
        series = {re.sub(r"^\w+", "", each["series"]) for each in test["input_series"]}
        assert len(one["exp_alerts"]) < len(series)


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_figure_is_tested(name: str) -> None:
    """With a value."""
    asked = [
        one for test in TESTS for one in test.get("promql_expr_test", ()) if name in one["expr"]
    ]
    assert any(one["exp_samples"] for one in asked)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_it_is_and_where_to_read_on(name: str) -> None:
    """Severity, summary, description, and a chapter of the runbook that is there."""
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert "{{" in rule["annotations"]["summary"], "which run, or which process"
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    chapters = (ROOT / file).read_text().split("\n## ")[1:]
    text = {one.partition("\n")[0].lower(): one for one in chapters}[anchor]
    assert len(text) > 300
    assert text.startswith(name)


def test_the_runbook_tells_of_nothing_else() -> None:
    """A chapter of an alert that is gone would be looked for."""
    chapters = re.findall(r"^## (.*)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert chapters == list(ALERTS)


@pytest.mark.parametrize("where", ["rules.yml", "rules_test.yml", "../docs/runbook.md"])
def test_every_metric_and_label_exists(where: str) -> None:
    """A name that no page has would never be noticed: an alert on it just stays silent."""
    text = (FOLDER / where).read_text()
    families = {family.name: family for family in CATALOGUE}
    suffixes = {"histogram": ("_bucket", "_count", "_sum")}
    known = set(families) | {
        name + suffix for name, f in families.items() for suffix in suffixes.get(f.type, ())
    }
    text = re.sub(r"- name: fl_\w+", "", text)  # of groups of rules
    named = set(re.findall(r"(?<![\w:])fl_\w+", text))
    assert named
    assert named <= known
    assert set(re.findall(r"\w+:fl_\w+:\w+", text)) <= set(RECORDED)
    selected = re.findall(r"(fl_\w+)\{([^}]*)\}", text)
    for name, labels in selected:
        if name in known:
            base = name if name in families else re.sub("_(bucket|count|sum)$", "", name)
            given = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', labels))
            assert given <= {*families[base].all_labels, *TARGET_LABELS}, (name, labels)
    assert {label for f in CATALOGUE for label in f.labels} | {"run_id"} == set(LABELS)


def test_the_page_of_metrics_is_up_to_date() -> None:
    """``python docs/make_metrics.py`` would change nothing."""
    code = "import sys; sys.path[:0] = ['docs', '.']; import make_metrics as m; print(m.page(), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
