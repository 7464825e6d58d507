"""Makes docs/metrics.md from the catalogue of metrics and the rules: ``python docs/make_metrics.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "metrics.md"
RULES: Final = ROOT / "prometheus" / "rules.yml"

HEAD: Final = """\
<!-- Made by docs/make_metrics.py from telemetry/exporters and prometheus/rules.yml: do not edit. -->

# Metrics

What `/metrics` of an FL server and of a telemetry service shows, in base units: grams of CO2eq, joules,
bytes, seconds. `promtool check metrics` has nothing to say about it.

- **Counters and histograms are sums over closed rounds**, from the database: a restart, a repeated
  delivery or a corrected open round never lowers one. The running round shows in gauges only.
- **What is not known has no sample.** A 0 is a 0: somebody measured or counted it.
- No client has a series, and the number of series does not depend on the number of clients.
- Every metric of a run has the label `run_id`. Runs that are active are shown, those that have just ended,
  and the last ended ones (`metrics_runs`: 5 at an FL server, 20 at a service), each with its last
  `metrics_rounds` (200) rounds. Above `max_series` (50,000) series of runs the run that ended first
  leaves first, whole, then the oldest rounds of the others.
- Each run has one source: an FL server that delivers to a service shows only itself, and the service shows
  its runs. Of several FL servers on one SQLite file each shows its own run, and that whose run began first
  the finished ones, too (after a `kill -9`, nobody for up to a minute). Several services on one PostgreSQL
  all show the same: scrape them by the one address before them, not each.
- Queries on runs that have ended: `last_over_time(fl_run_emissions_co2eq_grams[$__range])`, since a series
  is gone as soon as its source is.

`prometheus/prometheus.yml` scrapes both kinds every five seconds, `prometheus/rules.yml` has the rules and
alerts below.
"""
SECTIONS: Final = {
    "run": ("Of each run", "All carry `run_id`, beside the labels named here."),
    "process": (
        "Of every process that answers",
        "FL server, telemetry service, program of one's own.",
    ),
    "server": ("Of an FL server only", ""),
    "service": ("Of a telemetry service only", ""),
}


def page() -> str:
    """The whole page."""
    from telemetry.exporters.catalogue import CATALOGUE, LABELS

    parts = [HEAD]
    for where, (title, about) in SECTIONS.items():
        parts += [f"\n## {title}\n\n", f"{about}\n\n" if about else ""]
        parts += ["| metric | type | labels | what is in it |\n|---|---|---|---|\n"]
        for family in CATALOGUE:
            if family.where == where:
                labels = ", ".join(f"`{label}`" for label in family.labels)
                parts.append(f"| `{family.name}` | {family.type} | {labels} | {family.help} |\n")
    parts.append("\n## Labels\n\n| label | what stands in it |\n|---|---|\n")
    parts += [f"| `{label}` | {text} |\n" for label, text in LABELS.items()]
    return "".join([*parts, *_rules(yaml.safe_load(RULES.read_text(encoding="utf-8")))])


def _rules(file: dict[str, Any]) -> list[str]:
    rules = [rule for group in file["groups"] for rule in group["rules"]]
    recorded = [rule for rule in rules if "record" in rule]
    alerts = [rule for rule in rules if "alert" in rule]
    return [
        "\n## Recorded by the rules\n\n| series | expression |\n|---|---|\n",
        *(f"| `{rule['record']}` | `{_in_cell(rule['expr'])}` |\n" for rule in recorded),
        "\n## Alerts\n\n| alert | severity | fires while this holds | for |\n|---|---|---|---|\n",
        *map(_alert, alerts),
    ]


def _alert(rule: dict[str, Any]) -> str:
    link = rule["annotations"]["runbook"].removeprefix("docs/")
    name = f"[{rule['alert']}]({link})"
    condition = f"`{_in_cell(rule['expr'])}`"
    return f"| {name} | {rule['labels']['severity']} | {condition} | {rule.get('for', '0m')} |\n"


def _in_cell(text: str) -> str:
    one_line = " ".join(text.split()).replace("( ", "(").replace(" )", ")")
    return one_line.replace("|", "\\|")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(), encoding="utf-8")
