"""The whole file: head, policy, style, sections in their order."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Final

from telemetry.report import account, closing, course, outcomes
from telemetry.report.charts import hatch
from telemetry.report.facts import Facts
from telemetry.report.figures import Units
from telemetry.report.markup import Html, element, joined
from telemetry.report.opening import TITLE, opening
from telemetry.report.parts import Section

DISTRIBUTION: Final = "fedserver-telemetry"


def document(facts: Facts) -> Html:
    """A run's report as HTML; the same facts give the same bytes."""
    units = units_of(facts)
    found = [section for section in _sections(facts, units) if section is not None]
    title = f"{facts.run.info.run_name} · {TITLE}"
    return joined(
        Html("<!doctype html>\n"),
        element(
            "html",
            "\n",
            _head(facts, title),
            "\n",
            element(
                "body",
                "\n",
                hatch(),
                element(
                    "main",
                    opening(facts, units),
                    _contents(found),
                    [_section(number, section) for number, section in enumerate(found, 1)],
                ),
                "\n",
            ),
            "\n",
            lang="en",
        ),
        "\n",
    )


def units_of(facts: Facts) -> Units:
    """Fit for the run's greatest figures."""
    totals = facts.run.totals
    return Units.of(
        (facts.total_kg, totals.imputed_high_emissions_kg),
        (totals.server_energy_kwh, totals.clients_energy_kwh, *totals.phase_energy_kwh.values()),
    )


def _sections(facts: Facts, units: Units) -> tuple[Section | None, ...]:
    tracked = facts.method.tracked
    return (
        course.plots(facts, units),
        course.rounds(facts, units),
        account.method(facts),
        outcomes.outcomes(facts, units),
        account.counted(facts, units),
        closing.outside(facts) if tracked else None,
        closing.budget(facts, units) if tracked else None,
        closing.rates(facts),
        closing.integrity(facts),
        closing.citation(facts, units),
        course.annex(facts, units),
    )


def _head(facts: Facts, title: str) -> Html:
    style = Html(_style(facts))
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content=f"{DISTRIBUTION} {_version()}"),
        element("title", title),
        element("style", style),
    )


def _style(facts: Facts) -> str:
    """The style sheet; what stands below each page names the run by its id, which is plain."""
    sheet = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return sheet.replace("RUN-ID", facts.run.run_id)


def _contents(sections: list[Section]) -> Html:
    links = [
        element("li", element("a", section.title, href=f"#{section.identifier}"))
        for section in sections
    ]
    return element("nav", element("ol", links), aria_label="Contents")


def _section(number: int, section: Section) -> Html:
    name = f"{section.identifier}-name"
    return element(
        "section",
        element("h2", element("span", f"{number}", class_="number"), " ", section.title, id=name),
        section.body,
        id=section.identifier,
        aria_labelledby=name,
    )


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
