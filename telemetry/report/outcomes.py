"""What became of each request to train, of each report that was rejected, and which look odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, get_args

from telemetry.domain import RejectionReason
from telemetry.report.clients import MOST_LISTED, OTHER, ReportRow
from telemetry.report.facts import Facts
from telemetry.report.figures import UNKNOWN, Units, count, figure, share
from telemetry.report.markup import Content, Html, element, joined, said
from telemetry.report.parts import MOST_NAMES, Section, ordered, paragraph, points
from telemetry.report.tables import Column, scrolling, table
from telemetry.words import times

REASONS: Final[Mapping[RejectionReason, str]] = {
    "not_a_number": "no number at all",
    "not_finite": "not a finite number",
    "negative": "below 0",
    "implausible": "more than a machine can emit in the time",
    "inconsistent": "at odds with the energy and intensity that it states",
}
"""What is wrong with a report, for people."""


def outcomes(facts: Facts, units: Units) -> Section | None:
    """Of each request to train what became of its report; rejections and marks one by one."""
    if not facts.rounds:
        return None
    body = joined(
        _outcomes(facts),
        _failures(facts),
        _rejections(facts),
        _rejected(facts),
        _marks(facts, units),
    )
    return Section("outcomes", "Coverage and outcomes", body)


def _outcomes(facts: Facts) -> Html:
    method, totals = facts.method, facts.run.totals
    rows: list[tuple[str, int | None, str]] = [
        ("Reported", method.reported, "reported"),
        ("Missing: answered, and said nothing of emissions", method.missing, "missing"),
        ("Rejected: said what cannot be believed", method.rejected, "rejected"),
        ("Failed: no usable answer", method.failed, "failed"),
    ]
    asked = method.participants

    def part(row: tuple[str, int | None, str]) -> Html:
        return share(row[1] / asked) if row[1] is not None and asked else joined(UNKNOWN)

    columns: list[Column[tuple[str, int | None, str]]] = [
        Column(heading="What became of it", cell=lambda row: joined(row[0]), number=False),
        Column(heading="Number", cell=lambda row: count(row[1], row[2])),
        Column(heading="Share", cell=part),
    ]
    foot = element(
        "tr",
        element("th", "Requests to train", scope="row"),
        element("td", count(asked, "participants"), class_="n"),
        element("td"),
    )
    who = ""
    if facts.clients.pseudonyms and facts.method.client_rows:
        who = f", from {times(len(facts.clients.pseudonyms), 'client')}"
    caption = joined(element("strong", "Requests to train"), f", all rounds{who}.")
    more = [
        (method.evaluate_reported, "accepted from evaluation; in the figure, not in coverage"),
        (totals.reports_late, "late: counted in the round that was open on arrival, if one was"),
        (totals.reports_repeated, "repeated: not counted again"),
        (totals.reports_without_host, "accepted that name no machine: counted in full"),
    ]
    told = [joined(times(number, "report"), f" {words}") for number, words in more if number]
    return joined(
        table(caption, columns, rows, foot, class_="small"),
        points(told if method.tracked else [], "plain"),
    )


def _failures(facts: Facts) -> Html | None:
    found = facts.clients.failures
    if not found:
        return None
    return joined(
        element("h3", "Why clients failed"),
        points(_common(found), "plain"),
    )


def _common(found: Counter[str]) -> list[Content]:
    shown: list[Content] = [
        joined(said(word), f": {number}") for word, number in ordered(found)[:MOST_NAMES]
    ]
    rest = sum(number for _, number in ordered(found)[MOST_NAMES:])
    return [*shown, f"{OTHER}: {rest}"] if rest else shown


def _rejections(facts: Facts) -> Html | None:
    found = facts.clients.rejections
    if not found:
        return None
    reasons = [*get_args(RejectionReason), *sorted(found.keys() - set(get_args(RejectionReason)))]
    columns: list[Column[str]] = [
        Column(heading="Reason", cell=joined, number=False),
        Column(heading="The value was", cell=_meaning, number=False),
        Column(heading="Reports", cell=lambda reason: count(found[reason])),
    ]
    caption = joined(
        element("strong", "Rejected reports by reason"),
        ", of training and evaluation. They add nothing.",
    )
    return table(caption, columns, [name for name in reasons if name in found], class_="small")


def _meaning(reason: str) -> Html:
    return joined({str(name): words for name, words in REASONS.items()}.get(reason, UNKNOWN))


def _rejected(facts: Facts) -> Html | None:
    rows = facts.clients.rejected
    if not rows:
        return None
    columns: list[Column[ReportRow]] = [
        Column(heading="Round", cell=lambda row: joined(str(row[0])), number=False),
        Column(heading="Client", cell=lambda row: said(row[2].client), number=False),
        Column(heading="Phase", cell=lambda row: joined(row[2].phase), number=False),
        Column(heading="Reason", cell=lambda row: joined(row[2].rejection), number=False),
        Column(
            heading="Value as it was sent",
            cell=lambda row: element("code", said(row[2].rejected_value)),
            number=False,
        ),
    ]
    more = sum(facts.clients.rejections.values()) - len(rows)
    rest = f" The first {MOST_LISTED}; {more} more are in the exports." if more > 0 else ""
    caption = joined(element("strong", "Rejected reports"), f" with their values.{rest}")
    return scrolling(table(caption, columns, rows, class_="small listed"), "Rejected reports")


def _marks(facts: Facts, units: Units) -> Html | None:
    method, clients = facts.method, facts.clients
    if not method.reports_flagged:
        return None
    words = "bears a mark" if method.reports_flagged == 1 else "bear a mark"
    told: list[Content] = []
    for found, meaning in (
        (clients.outliers, "far from what the round's other clients reported (outlier)"),
        (clients.cumulative, "perhaps a running total instead of the round's own amount"),
    ):
        if found:
            names = [f"{name} ({number})" for name, number in ordered(found)[:MOST_NAMES]]
            more = len(found) - len(names)
            rest = f" and {times(more, 'other')}" if more > 0 else ""
            told.append(joined(f"{meaning}: ", said(", ".join(names)), rest))
    return joined(
        element("h3", "Marks"),
        paragraph(
            f"{times(method.reports_flagged, 'accepted report')} {words}, ",
            figure(method.flagged_emissions_kg, "flagged_emissions_kg", units.emissions),
            " CO₂eq of the total. Marked reports count like any other; a mark asks for a look, and accuses "
            "nobody.",
        ),
        points(told, "plain"),
    )
