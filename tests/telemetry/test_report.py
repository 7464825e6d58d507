"""``html``: a run's report tells the store's figures, of every state of a run, and harms nobody."""

from __future__ import annotations

import io
import json
import re
from base64 import b64encode
from collections import Counter
from hashlib import sha256
from math import fsum
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.exporters.run_html import write_report
from telemetry.report.facts import Facts, facts_of
from telemetry.report.figures import UNKNOWN, percent, short
from telemetry.statement import statement
from telemetry.store import Store, open_store
from telemetry.testing import OWNER, RUN_ID, START
from tests import strategies
from tests.telemetry.html_reader import Node, read_html
from tests.telemetry.report_runs import HOSTILE, RUNS, busy, busy_round
from tests.telemetry.views import exported, table

ELEMENTS: Final = frozenset(
    [
        "a",
        "bdi",
        "blockquote",
        "body",
        "caption",
        "circle",
        "code",
        "data",
        "dd",
        "defs",
        "desc",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "g",
        "h1",
        "h2",
        "h3",
        "head",
        "header",
        "html",
        "li",
        "line",
        "main",
        "meta",
        "nav",
        "ol",
        "p",
        "path",
        "pattern",
        "polyline",
        "pre",
        "rect",
        "section",
        "span",
        "strong",
        "style",
        "svg",
        "table",
        "tbody",
        "td",
        "text",
        "tfoot",
        "th",
        "thead",
        "time",
        "title",
        "tr",
        "ul",
    ]
)
HARMLESS: Final = frozenset(
    [
        "aria-hidden",
        "aria-label",
        "aria-labelledby",
        "charset",
        "class",
        "content",
        "cx",
        "cy",
        "d",
        "data-attempt",
        "data-figure",
        "datetime",
        "fill",
        "focusable",
        "height",
        "href",
        "http-equiv",
        "id",
        "lang",
        "name",
        "patternunits",
        "points",
        "preserveaspectratio",
        "r",
        "role",
        "scope",
        "tabindex",
        "text-anchor",
        "transform",
        "value",
        "viewbox",
        "width",
        "x",
        "x1",
        "x2",
        "xmlns",
        "y",
        "y1",
        "y2",
    ]
)


def report_of(store: Store, **said: Any) -> str:
    """The report as text."""
    out = io.StringIO(newline="")
    assert write_report(store, RUN_ID, out, **said) == []
    return out.getvalue()


@pytest.fixture(scope="module")
def stores() -> dict[str, Store]:
    """A store with a run in each state; no test writes to them."""
    return {name: make() for name, make in RUNS.items()}


def cleaned(text: str) -> str:
    """Without the hostile text's bell and the sign that turns text around."""
    return text.replace("\x07", "\ufffd").replace("\u202e", "\ufffd")


def shown(page: Node) -> str:
    """The text of a page, each run of white space as one space."""
    return " ".join(page.one("body").text.split())


# --- every state of a run ------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_a_report_is_sound_and_asks_for_nothing(stores: dict[str, Store], name: str) -> None:
    """Well-formed, with known elements only, no script, no address, and references that lead somewhere."""
    text = report_of(stores[name])
    page = read_html(text)
    nodes = list(page.all())
    assert {node.tag for node in nodes} <= ELEMENTS
    assert {key for node in nodes for key in node.attributes} <= HARMLESS
    identifiers = Counter(node.attributes["id"] for node in nodes if "id" in node.attributes)
    assert set(identifiers.values()) == {1}
    for node in nodes:
        for words in node.attributes.get("aria-labelledby", "").split():
            assert words in identifiers
        if "href" in node.attributes:
            assert node.attributes["href"][0] == "#"
            assert node.attributes["href"][1:] in identifiers
        assert node.attributes.get("xmlns", "http://www.w3.org/2000/svg") == (
            "http://www.w3.org/2000/svg"
        )
        for inner in node.all(node.tag) if node.tag in ("p", "a", "table", "dl") else ():
            pytest.fail(f"<{inner.tag}> within itself")
    style = page.one("style").text
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("name", RUNS)
def test_its_policy_allows_its_own_style_and_nothing_else(
    stores: dict[str, Store], name: str
) -> None:
    """Before anything else in the head, by the style's own digest."""
    head = read_html(report_of(stores[name])).one("head")
    digest = b64encode(sha256(head.one("style").text.encode()).digest()).decode()
    policy = head.children[1].attributes
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].split("; ")[:2] == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
    ]


@pytest.mark.parametrize("name", RUNS)
def test_plots_and_tables_say_what_they_are(stores: dict[str, Store], name: str) -> None:
    """Plots have title and description, tables a caption, heads that are scoped, and rows of one length."""
    page = read_html(report_of(stores[name]))
    for plot in page.all("svg", role="img"):
        first, second = plot.children[:2]
        assert (first.tag, second.tag) == ("title", "desc")
        assert first.text.strip()
        assert second.text.strip()
    for found in page.all("table"):
        assert found.one("caption").text.strip()
        assert all(cell.attributes["scope"] in ("row", "col") for cell in found.all("th"))
        assert len({len(row.children) for row in found.all("tr")}) == 1


@pytest.mark.parametrize("name", RUNS)
def test_it_has_the_method_statement(stores: dict[str, Store], name: str) -> None:
    """Word for word, as ``runs show --method`` prints it."""
    store = stores[name]
    run = store.run(RUN_ID)
    said = shown(read_html(report_of(store, country="Spain")))
    wanted = cleaned(statement(run, store.rounds(RUN_ID), "Spain"))
    assert wanted in said


@pytest.mark.parametrize("name", RUNS)
def test_it_has_the_seal_and_how_to_cite_it(stores: dict[str, Store], name: str) -> None:
    """A sealed run's digest, where it is verified, in the citation and for BibTeX."""
    run = stores[name].run(RUN_ID)
    page = read_html(report_of(stores[name], author="An Institute", date="2026-01-31"))
    cite = page.one("section", id="cite")
    assert "An Institute. Emissions of the federated training" in cite.text
    assert "2026-01-31" in cite.text
    assert "@misc{fl-emissions-20260102-030405-abcdef," in cite.text
    assert "author = {{An Institute}}" in cite.text
    integrity = page.one("section", id="integrity").text
    if run.sha256 is None:
        assert "it is sealed when it ends" in integrity or "bears no seal" in integrity
        assert "not sealed" in cite.text
    else:
        assert run.sha256 in integrity
        assert f"fedserver runs verify {RUN_ID}" in integrity
        assert cite.text.count(run.sha256) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("completed", ["24 of 48 expected reports came", "Prepared by", "8 of 8 planned"]),
        (
            "going on",
            ["This run is still going on. Every figure is of the 9 rounds that had closed",
             "sealed when it ends", "the run was still going on"],
        ),
        ("failed", ["This run failed (as it was told). The figures cover what it did until then."]),
        ("interrupted", ["This run was interrupted (as it was told)."]),
        ("stopped on budget", ["This run was stopped to keep its emissions budget (as it was told)."]),
        (
            "untracked",
            ["Emissions were not tracked in this run", "unknown, and not zero", "not tracked"],
        ),
        ("no clients", ["no client took part", "no client was asked to train"]),
        ("not metered", ["Nothing of the server was metered: its part is unknown, and not zero."]),
        ("nothing known", ["Measured emissionsunknown", "unknown: no report"]),
        (
            "no rows of clients",
            ["No rows of single clients are kept in 4 of 4 rounds (telemetry.client_rows: false)"],
        ),
        (
            "resumed",
            ["taken up again after an interruption. 1 repeated attempt at a round is on record",
             "3 (attempt 2)"],
        ),
        (
            "pruned",
            ["The rounds of this run were deleted on", "totals kept", "Coverageno longer known"],
        ),
        ("no round", ["No round has closed: there is nothing to plot or to list."]),
        ("just begun", ["This run is still going on", "0 rounds that had closed"]),
        ("many rounds", ["50 to a line; every single one is in the annex", "Annex: every round"]),
    ],
)  # fmt: skip
def test_each_state_of_a_run_is_said_plainly(
    stores: dict[str, Store], name: str, words: list[str]
) -> None:
    """Where a figure is unknown, not final or not there at all, the report says so."""
    text = shown(read_html(report_of(stores[name], author="A. N. Other")))
    for expected in words:
        assert expected in text, expected


def test_what_does_not_hold_is_not_said(stores: dict[str, Store]) -> None:
    """A notice stands where it is due only, and an untracked run has no figure of emissions."""
    assert not list(read_html(report_of(stores["completed"])).all(role="note"))
    page = read_html(report_of(stores["untracked"]))
    assert not [
        node for node in page.all("data") if "emissions" in node.attributes.get("data-figure", "")
    ]
    assert "CO₂eq" not in page.one("section", class_="headline").text


# --- figures -------------------------------------------------------------------------------------


def named(page: Node) -> list[tuple[str, float]]:
    """Figures under their names, those of tables of rounds left out."""
    return [
        (node.attributes["data-figure"], float(node.attributes["value"]))
        for node in page.all("data")
        if "data-figure" in node.attributes
    ]


def known(store: Store) -> dict[str, float]:
    """What the JSON export has under these names, and what is computed elsewhere of the run."""
    run: dict[str, Any] = json.loads(exported(store, "json"))
    found: dict[str, Any] = {}
    totals = run["totals_of_closed_rounds"]
    for part in (run["method"], totals):
        found |= {key: value for key, value in part.items() if isinstance(value, int | float)}
    found |= {f"phase_energy_kwh.{k}": v for k, v in totals["phase_energy_kwh"].items()}
    facts = facts_of(store, RUN_ID)
    found |= {f"sci.{score.unit}": score.g_per_unit for score in facts.scores}
    if facts.value is not None:
        found["average_g_per_point"] = facts.value.average_g_per_point
        if facts.value.last_gain is not None:
            found["marginal_g_per_point"] = facts.value.last_gain.marginal_g_per_point
    return found


@pytest.mark.parametrize("name", [name for name in RUNS if name != "just begun"])
def test_every_figure_is_the_export_s(stores: dict[str, Store], name: str) -> None:
    """Under the same name, to 1e-9."""
    wanted = known(stores[name])
    figures = named(read_html(report_of(stores[name])))
    for key, value in figures:
        assert value == pytest.approx(wanted[key], rel=1e-9, abs=0), key
    if name == "completed":
        assert {key for key, _ in figures} >= {
            "total_emissions_kg", "server_emissions_kg", "clients_emissions_kg", "reported",
            "server_energy_kwh", "clients_energy_kwh", "flagged_emissions_kg", "imputed_emissions_kg",
            "communication_emissions_kg_estimated", "clients_reported_emissions_kg", "budget_kg",
            "phase_energy_kwh.wait", "sci.run", "average_g_per_point", "pue", "missing", "rejected",
            "server_carbon_intensity_g_per_kwh", "failed", "participants",
        }  # fmt: skip


def cells(row: Node, heads: list[Node]) -> dict[str, Node]:
    """A row's cells by the name of their figure."""
    return {
        head.attributes["data-figure"]: cell
        for head, cell in zip(heads, row.children, strict=True)
        if "data-figure" in head.attributes
    }


@pytest.mark.parametrize(
    "name", ["completed", "resumed", "many rounds", "no clients", "not metered"]
)
def test_the_rounds_are_those_of_the_csv(stores: dict[str, Store], name: str) -> None:
    """Each cell, each round and attempt; what is empty there is a dash here."""
    page = read_html(report_of(stores[name]))
    found = list(page.all("table", class_="rounds"))[-1]
    heads = found.one("thead").one("tr").children
    rows, wanted = list(found.one("tbody").all("tr")), table(stores[name])
    assert len(rows) == len(wanted)
    compared = set()
    for row, line in zip(rows, wanted, strict=True):
        for key, cell in cells(row, heads).items():
            values = [node.attributes["value"] for node in cell.all("data")]
            if not line[key] or (key == "reported" and line["participants"] == "0"):
                assert cell.text == UNKNOWN
                continue
            assert float(values[0]) == pytest.approx(float(line[key]), rel=1e-9, abs=0), key
            compared.add(key)
    assert compared >= {"round", "duration_s", "total_emissions_kg", "cumulative_emissions_kg"}


def test_blocks_of_rounds_add_up(stores: dict[str, Store]) -> None:
    """A block's energies and emissions are the sums of its rounds in the CSV."""
    page = read_html(report_of(stores["many rounds"]))
    found, _ = page.all("table", class_="rounds")
    heads = found.one("thead").one("tr").children
    lines = table(stores["many rounds"])
    blocks = list(found.one("tbody").all("tr"))
    assert [row.children[0].text for row in blocks][:3] == ["set-up", "1–50", "51–100"]
    for row in blocks:
        name = row.children[0].text
        low, _, high = ("0", "", "") if name == "set-up" else name.partition("–")
        mine = [line for line in lines if int(low) <= int(line["round"]) <= int(high or low)]
        for key, cell in cells(row, heads).items():
            if not key.endswith(("_kg", "_kwh", "_s")):
                continue
            wanted = fsum(float(line[key]) for line in mine)
            if key == "cumulative_emissions_kg":
                wanted = float(mine[-1][key])
            assert float(cell.one("data").attributes["value"]) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("name", ["completed", "resumed", "many rounds"])
def test_bars_are_as_high_as_the_store_s_figures(stores: dict[str, Store], name: str) -> None:
    """Server and clients of the drawn rounds, to a tenth of a unit of the picture."""
    facts: Facts = facts_of(stores[name], RUN_ID)
    page = read_html(report_of(stores[name]))
    plot = next(node for node in page.all("svg", role="img") if node.one("desc").text[0].isdigit())
    by_kind = {
        kind: fsum(float(bar.attributes["height"]) for bar in plot.all("rect", class_=kind))
        for kind in ("server-bar", "clients-bar")
    }
    totals = facts.run.totals
    assert totals.server_emissions_kg is not None
    assert totals.clients_emissions_kg is not None
    bars = len(list(plot.all("rect", class_="clients-bar")))
    server, clients = totals.server_emissions_kg, totals.clients_emissions_kg
    if name == "many rounds":  # each bar is a mean of ten rounds, but the set-up's
        set_up = facts.rounds[0].server_emissions_kg or 0.0
        server, clients = (server - set_up) / 10 + set_up, clients / 10
    share = by_kind["clients-bar"] / by_kind["server-bar"]
    assert share == pytest.approx(clients / server, rel=0.1 / by_kind["server-bar"] * bars)


def test_the_headline_is_the_measured_total_alone() -> None:
    """Estimates stand beside it, and are not in it."""
    store = busy()
    run = store.run(RUN_ID)
    head = read_html(report_of(store)).one("section", class_="headline")
    value = head.one("p", class_="total").one("data").attributes["value"]
    assert float(value) == run.totals.total_emissions_kg
    assert "estimated and not in it" in head.text
    assert "Modelled; no power sensor on the server" in head.text


@given(st.floats(1e-300, 1e15))
def test_a_figure_is_shown_to_four_digits(value: float) -> None:
    """And what is not 0 never looks like 0."""
    text = re.sub(r"\s", "", short(value))
    assert float(text) == pytest.approx(value, rel=6e-4)


@given(st.floats(0, 1))
def test_a_share_is_neither_nothing_nor_all_unless_it_is(share: float) -> None:
    """``<0.1 %`` and ``>99.9 %`` are their own words."""
    assert percent(share).startswith("0\u00a0") == (share == 0)
    assert percent(share).startswith("100\u00a0") == (share == 1)


# --- hostile words, same bytes -------------------------------------------------------------------


def test_hostile_words_are_words(stores: dict[str, Store]) -> None:
    """Whatever a client or a writer made up stands there as text, and turns nothing around."""
    text = report_of(stores["hostile"], author=HOSTILE, country=HOSTILE)
    page = read_html(text)
    assert "<script" not in text
    assert "<img" not in text
    assert "\u202e" not in text
    assert not set(text) & {chr(n) for n in range(32) if chr(n) != "\n"}
    quoted = " ".join(cleaned(HOSTILE).split())
    assert page.one("h1").text == quoted
    assert page.one("head").one("title").text.startswith(cleaned(HOSTILE))
    assert shown(page).count("alert(1)") >= 10


def test_braces_and_backslashes_do_not_leave_bibtex(stores: dict[str, Store]) -> None:
    """Its braces match, whatever a run is called."""
    entry = read_html(report_of(stores["hostile"], author="}\\input{x}")).one("pre").text
    depth = 0
    for sign in re.sub(r"\\[{}]", "", entry):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert r"\input" not in entry


@given(data=st.data(), info=strategies.runs(run_id=RUN_ID))
def test_any_run_has_a_sound_report(data: st.DataObject, info: Any) -> None:
    """Whatever the store took: it parses strictly, and shows no None, nan or inf of ours."""
    store = open_store("memory://")
    store.start_run(info, OWNER, START)
    drawn = strategies.rounds(closed=True, tracked=info.tracked)
    for record in data.draw(st.lists(drawn, max_size=3, unique_by=lambda r: (r.round, r.attempt))):
        store.record_round(record)
    page = read_html(report_of(store))
    assert {node.tag for node in page.all()} <= ELEMENTS
    for node in page.all("data"):
        assert re.search(r"\d|set-up", node.text), node
        assert float(node.attributes["value"]) == float(node.attributes["value"])
    for plot in page.all("svg"):
        for inner in plot.all():
            numbers = [
                v for k, v in inner.attributes.items() if k in ("x", "y", "height", "points")
            ]
            assert not any("nan" in value or "inf" in value for value in numbers)


@pytest.mark.parametrize("end", ["completed", None])
def test_the_same_run_gives_the_same_bytes(end: Any, sqlite_url: str) -> None:
    """Twice from one store, and from a store of another kind."""
    store = busy(5, end)
    first = report_of(store)
    assert report_of(store) == first
    other = open_store(sqlite_url)
    try:
        other.start_run(store.run(RUN_ID).info, OWNER, START)
        for number in range(6):
            other.record_round(busy_round(number))
        ended_at = store.run(RUN_ID).ended_at
        if end is not None and ended_at is not None:
            other.finish_run(RUN_ID, end, ended_at)
        assert report_of(other) == first
    finally:
        other.close()


def test_whoever_waits_hears_how_many_rows_were_read() -> None:
    """Participants and reports of clients, counted on."""
    heard: list[int] = []

    def tell(done: int, of: int | None = None, what: str | None = None) -> None:
        del of, what
        heard.append(done)

    report_of(busy(3), tell=tell)
    assert heard == list(range(1, 3 * 6 + 3 * 4 + 1))
