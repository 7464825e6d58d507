"""What a report ends with: boundary, budget, rates, how to verify it, how to cite it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from telemetry.analysis.sci import UNIT_WORDS, Score
from telemetry.budget import used_ratio
from telemetry.method import boundary
from telemetry.report.citation import as_bibtex, as_text
from telemetry.report.facts import Facts
from telemetry.report.figures import UNKNOWN, Units, figure, share
from telemetry.report.markup import Content, Html, element, joined, said
from telemetry.report.parts import Section, code, facts_list, paragraph, points
from telemetry.report.tables import Column, table
from telemetry.words import times

SCI_STANDARD: Final = "ISO/IEC 21031:2024 (Software Carbon Intensity)"
SEALED: Final = (
    "SHA-256 over the canonical JSON of the run's facts, its end and every figure of its closed rounds, "
    "with the digest of the rows that they were made from."
)


def outside(facts: Facts) -> Section:
    """What the measured total contains, and what it does not."""
    told = boundary(facts.method)
    columns = [
        element(
            "div",
            element("h3", heading),
            points([words[:1].upper() + words[1:] for words in told[name]])
            or paragraph("Nothing."),
        )
        for heading, name in (
            ("In the measured total", "included"),
            ("Not in it", "not_included"),
        )
    ]
    beside = paragraph(
        "Estimates for data transfer and for silent clients, where they are made, stand beside the "
        "measured total and are never added to it.",
        kind="note",
    )
    return Section("boundary", "What is in the figure, and what is not", joined(
        element("div", columns, class_="pair"), beside
    ))  # fmt: skip


def budget(facts: Facts, units: Units) -> Section | None:
    """What the run was allowed, and what it used of it."""
    info = facts.run.info
    if info.budget_kg is None:
        return None
    used = used_ratio(facts.total_kg, info.budget_kg)
    rule = "the training stops before it is exceeded" if info.on_budget == "stop" else "a warning"
    body = facts_list(
        (
            ("Budget", joined(figure(info.budget_kg, "budget_kg", units.emissions), " CO₂eq")),
            ("Used, measured", "nothing is known to be" if used is None else share(used)),
            ("At its end", rule),
        )
    )
    return Section("budget", "Budget", body)


# --- rates -----------------------------------------------------------------------------------------


def rates(facts: Facts) -> Section | None:
    """Operational SCI by functional unit, and what progress cost."""
    known = [score for score in facts.scores if score.g_per_unit is not None]
    if not facts.method.tracked or not known or facts.pruned:
        return None
    reported, asked = facts.method.reported or 0, facts.method.participants
    low = None
    if reported < asked:
        low = paragraph(
            f"Perhaps too low: {times(asked - reported, 'expected report')} of {asked} "
            f"{'is' if asked - reported == 1 else 'are'} not in it.",
            kind="note",
        )
    body = joined(
        paragraph(
            f"By {SCI_STANDARD}, SCI = ((E × I) + M) per R. Here its operational part, (E × I) per R: "
            "the measured emissions per functional unit, location-based. M, the making of the hardware, "
            "is not in it, for nobody knows all machines; neither are estimates.",
        ),
        _scores(facts.scores),
        low,
        _value(facts),
    )
    return Section("sci", "Software Carbon Intensity", body)


def _scores(found: Sequence[Score]) -> Html:
    def words(score: Score) -> Html:
        text = UNIT_WORDS[score.unit]
        return joined(text[:1].upper() + text[1:])

    def rate(score: Score) -> Html:
        if score.g_per_unit is None:
            return joined(f"{UNKNOWN} ({score.reason})" if score.reason else UNKNOWN)
        return figure(score.g_per_unit, f"sci.{score.unit}")

    columns: list[Column[Score]] = [
        Column(heading="R, the functional unit", cell=words, number=False),
        Column(heading="R in this run", cell=lambda score: figure(score.count)),
        Column(heading="g CO₂eq per R", cell=rate),
    ]
    caption = element("strong", "Operational SCI")
    return table(caption, columns, found, class_="small")


def _value(facts: Facts) -> Html | None:
    value = facts.value
    if value is None or value.average_g_per_point is None:
        return None
    gain = value.last_gain
    last: Content = None
    if gain is not None and gain.marginal_g_per_point is not None:
        last = joined(
            "; ", figure(gain.marginal_g_per_point, "marginal_g_per_point"), " g for each of the last "
            f"ones, in round {gain.round}",
        )  # fmt: skip
    return paragraph(
        "A point (0.01) of ", said(value.metric), " cost ",
        figure(value.average_g_per_point, "average_g_per_point"), " g CO₂eq on average, from the first "
        f"value to the best in round {value.best.round}", last, ".",
    )  # fmt: skip


# --- integrity and citation ------------------------------------------------------------------------


def integrity(facts: Facts) -> Section:
    """The seal, what it covers, and how anybody with the store can check it."""
    run = facts.run
    if run.sha256 is not None:
        seal = joined(
            paragraph(code(run.sha256), kind="seal"),
            paragraph(
                SEALED, " Whoever has the store that the run was recorded in checks it with ",
                code(f"fedserver runs verify {run.run_id}"),
                ", which recomputes seal, sums and totals and ends with exit code 0 if nothing differs. "
                "The seal shows that the record was not changed since the seal was noted elsewhere, such "
                "as in this report; not that what was measured or reported is true.",
            ),
        )  # fmt: skip
    elif run.ended_at is None:
        seal = paragraph("The run goes on: it is sealed when it ends.")
    else:
        seal = paragraph(
            "This run bears no seal: it has no closed round, or was recorded before seals."
        )
    again = paragraph(
        "This report is made of the record alone: the same run gives the same file, byte by byte, with "
        "the same version of the program, by ",
        code(f"fedserver runs report {run.run_id}"),
        " and the same options. The figures as a table: ",
        code(f"fedserver runs export {run.run_id}"),
        ".",
    )
    return Section("integrity", "Integrity", joined(seal, again))


def citation(facts: Facts, units: Units) -> Section:
    """How to cite it, as text and for BibTeX."""
    body = joined(
        element("blockquote", paragraph(said(as_text(facts, units))), class_="statement"),
        element("pre", code(as_bibtex(facts, units)), tabindex="0", aria_label="BibTeX entry"),
    )
    return Section("cite", "How to cite", body)
