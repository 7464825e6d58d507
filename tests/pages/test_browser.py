"""The pages in a real browser: what they show, what they load, and for whom they can be used."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry.service.pages.formats import FACTORS, even, shown
from telemetry.store.memory import InMemoryStore
from telemetry.testing import START, make_round
from tests.browser import Browser, Theme, browser
from tests.pages import made_up
from tests.pages.reading import READY, api, check_run, drawn, figures, serving
from tests.telemetry.pages import HOSTILE
from tests.telemetry.test_http import TOKEN

pytestmark = pytest.mark.slow

PATHS = ("/", *(f"/runs/{run_id}" for run_id in made_up.ALL))
LOOKS: list[tuple[int, Theme]] = [(360, "light"), (360, "dark"), (1366, "light"), (1366, "dark")]


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for this module."""
    with browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
def window(one_browser: Browser) -> Iterator[Browser]:
    """Its window: wide, light, with scripts; nothing of an earlier test is in its logs."""
    one_browser.look(1366, "light")
    one_browser.forget()
    yield one_browser
    one_browser.scripts(on=True)
    one_browser.driver.delete_all_cookies()


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """Where runs of every kind are shown."""
    with serving(made_up.everything()) as url:
        yield url


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_id", [made_up.LIVE, made_up.WHOLE, made_up.FAILED, made_up.NAMES])
def test_every_figure_is_the_interfaces(window: Browser, base: str, run_id: str):
    """In tiles, tables, charts and the tables behind them, to 1e-9."""
    window.open(f"{base}/runs/{run_id}", until=READY)
    check_run(window, base, run_id)
    assert not window.complaints()
    assert not window.elsewhere(base)


@pytest.mark.parametrize("path", PATHS)
def test_with_and_without_scripts_a_page_says_the_same(window: Browser, base: str, path: str):
    """Every bound value, word for word, and whether it is there at all."""
    read = (
        "return [...document.querySelectorAll('[data-path]')].map((one) =>"
        " [one.dataset.path, one.checkVisibility(), one.textContent, one.getAttribute('value')])"
    )
    window.scripts(on=False)
    window.open(f"{base}{path}")
    window.scripts(on=True)  # what was not started does not start; the driver may look
    without = window.js(read)
    window.open(f"{base}{path}", until=READY)
    renewed = window.js(read)
    visible = [
        [[path, text] for path, there, text, _ in found if there] for found in (without, renewed)
    ]
    assert visible[0] == visible[1]
    assert len(visible[0]) > 5
    exact = [
        [None if value is None else float(value) for _, there, _, value in found if there]
        for found in (without, renewed)
    ]
    assert exact[0] == exact[1]
    assert not window.complaints()


def test_values_look_the_same_in_both_languages(window: Browser, base: str):
    """`formats.py` and `formats.js`: signs, ties, sizes, unknowns, columns."""
    numbers = [
        0.0,
        -0.0,
        1.0,
        0.125,
        0.375,
        2.5,
        3.5,
        -2.5,
        1 / 3,
        2 / 3,
        9.9995,
        99.995,
        999.95,
        9999.5,
    ]
    numbers += [sign * 1.2345678 * 10.0**power for power in range(-12, 20) for sign in (1, -1)]
    numbers += [
        5e-324,
        1e-4,
        9.9999e-5,
        1e4,
        12345.5,
        1e15,
        999999999999999.9,
        1e90,
        0.00012345,
        0.1 + 0.2,
    ]
    cases = [
        (value, kind, decimals)
        for value in numbers
        for kind in FACTORS
        for decimals in (None, 0, 3, 9)
    ]
    texts: list[tuple[Any, str, None]] = [
        (None, "grams", None), (None, "text", None), ("stopped_on_budget", "words", None),
        ("2026-01-31T09:30:00.000000Z", "moment", None), (HOSTILE, "text", None), (3, "count", None),
    ]  # fmt: skip
    columns = [
        list(some) for some in itertools.combinations([0.0, 0.5, 12.0, 99999.0, 1e-7, None], 3)
    ]
    window.open(base, until=READY)
    module = window.js("return document.querySelector('script[type=module]').src").replace(
        "runs.js", "formats.js"
    )
    found, evened = window.later(
        "const {shown, even} = await import(given[0]);"
        "return [given[1].map((one) => shown(...one)), given[2].map((one) => even(one))]",
        module, [*cases, *texts], columns,
    )  # fmt: skip
    for case, text in zip([*cases, *texts], found, strict=True):
        assert shown(*case) == text, case
    assert evened == [even(column) for column in columns]


def test_what_is_unknown_is_a_dash_and_untracked_is_said(window: Browser, base: str):
    """Neither zeros nor empty charts are drawn."""
    window.open(f"{base}/runs/{made_up.UNKNOWN}", until=READY)
    assert [row[1:] for row in figures(window, "#components")] == [[[], []], [[], []], [[], []]]
    assert window.js("return document.getElementById('chart-emissions').hidden")
    window.open(f"{base}/runs/{made_up.UNTRACKED}", until=READY)
    charts = window.js(
        "return [...document.querySelectorAll('.chart:not([hidden])')].map((one) => one.id)"
    )
    assert charts == ["chart-metric"]
    assert "not tracked" in window.js("return document.body.innerText")
    assert not window.js("return document.getElementById('components').checkVisibility()")
    window.open(f"{base}/runs/{made_up.BEGUN}", until=READY)
    assert "Charts appear with the first round" in window.js("return document.body.innerText")


def test_another_metric_can_be_looked_at(window: Browser, base: str):
    """Both charts of it follow the choice."""
    window.open(f"{base}/runs/{made_up.WHOLE}", until=READY)
    names = window.js(
        "return [...document.getElementById('metric').options].map((one) => one.value)"
    )
    assert names == ["accuracy", "loss"]
    window.js(
        "const choice = document.getElementById('metric'); choice.value = 'loss';"
        "choice.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    check_run(window, base, made_up.WHOLE)
    assert "loss (evaluate)" in drawn(window, "chart-price")


# --- what may not happen --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", f"/runs/{made_up.NAMES}"])
def test_hostile_names_are_inert(window: Browser, base: str, path: str):
    """They are read as they are; no element, no request and no script comes of them."""
    window.open(f"{base}{path}", until=READY)
    window.js("for (const one of document.querySelectorAll('details')) one.open = true")
    assert HOSTILE in window.js("return document.body.innerText")
    strange = window.js(
        "return [...document.querySelectorAll('img, iframe, object, script:not([src]), [onerror]')].length"
    )
    assert strange == 0
    assert not window.complaints()
    assert not window.elsewhere(base)
    assert window.js("return document.documentElement.scrollWidth <= innerWidth")


FORBIDDEN = {
    "eval": "eval('1')",
    "markup": "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
    "handler": "document.body.setAttribute('onclick', 'alert(1)')",
    "elsewhere": "await fetch('http://127.0.0.2:9/')",
    "module": "await import('data:text/javascript,export default 1')",
}


@pytest.mark.parametrize("code", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_the_policy_holds(window: Browser, base: str, code: str):
    """What a page must not do it cannot: eval, markup of text, inline code, a request elsewhere."""
    window.open(base, until=READY)
    # In a task of its own: to what the driver itself runs, eval is allowed.
    outcome = window.later(
        "await new Promise((resolve) => setTimeout(resolve));"
        f"try {{ {code}; return 'done' }} catch (error) {{ return error.name }}"
    )
    assert outcome in ("TypeError", "EvalError", "SecurityError")
    assert window.js("return window.__violations.length") == 1
    assert window.js("return window.__alerts") == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_nothing_is_wrong_for_axe(window: Browser, base: str, path: str, width: int, theme: Theme):
    """WCAG as far as a program can tell, with the tables of charts open; and nothing is cut off."""
    window.look(width, theme)
    window.open(f"{base}{path}", until=READY)
    window.js("for (const one of document.querySelectorAll('details')) one.open = true")
    assert window.axe() == []
    assert window.js("return document.documentElement.scrollWidth <= innerWidth")
    assert not window.complaints()
    assert not window.elsewhere(base)


@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_nothing_is_wrong_with_the_form_and_with_empty_pages(
    window: Browser, width: int, theme: Theme
):
    """The form, a wrong token, a run that is not there, no run yet."""
    window.look(width, theme)
    with serving(InMemoryStore(), read_token=TOKEN) as url:
        window.open(f"{url}/")
        assert window.js("return location.pathname") == "/login"
        assert window.axe() == []
        _log_in(window, "flt_wrong")
        assert "not the read token" in window.js("return document.body.innerText")
        assert window.axe() == []
        _log_in(window, TOKEN)
        window.wait(READY)
        assert "No run yet" in window.js("return document.body.innerText")
        assert window.axe() == []
        window.open(f"{url}/runs/other")
        assert window.axe() == []
    # The browser itself notes the two answers that are no pages.
    assert [one for one in window.complaints() if "status of 40" not in one] == []


def _log_in(window: Browser, token: str) -> None:
    field = window.driver.find_element("css selector", "#token")
    field.send_keys(token)
    window.js("window.before = true")  # gone with this page, whose state is complete already
    field.submit()
    window.wait("!window.before && document.readyState === 'complete'")


# --- by keyboard, by ear, without movement ---------------------------------------------------------


def test_everything_can_be_reached_and_used_by_keyboard(window: Browser, base: str):
    """Tab visits every control in the order of the page; keys open, choose, and walk through charts."""
    window.open(f"{base}/runs/{made_up.WHOLE}", until=READY)
    reachable = window.js(
        "window.wanted = [...document.querySelectorAll("
        "'a[href], button, input, select, summary, [tabindex=\"0\"]')]"
        ".filter((one) => one.checkVisibility());"
        "return window.wanted.length"
    )
    visited = []
    for _ in range(reachable):
        window.driver.switch_to.active_element.send_keys("\ue004")  # Tab
        visited.append(window.js("return window.wanted.indexOf(document.activeElement)"))
        assert window.js("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert visited == list(range(reachable))
    chart = window.driver.find_element("css selector", "#chart-emissions [role=slider]")
    said = "return document.querySelector('#chart-emissions [role=slider]').ariaValueText"
    window.js("arguments[0].focus()", chart)
    at_end = window.js(said)
    assert at_end.startswith("Round 12 · Server ")
    chart.send_keys("\ue012")  # left
    assert window.js(said).startswith("Round 11 · Server ")
    chart.send_keys("\ue011")  # home
    assert window.js(said).startswith("Round 0 · Server ")
    assert (
        window.js("return document.querySelector('#chart-emissions [role=slider]').ariaValueNow")
        == "1"
    )
    assert window.js(
        "return document.querySelector('#chart-emissions .readout').textContent"
    ) == window.js(said)
    summary = window.driver.find_element("css selector", "#chart-emissions summary")
    summary.send_keys("\ue007")  # enter
    window.wait("document.querySelector('#chart-emissions table')")
    window.open(base, until=READY)
    window.driver.switch_to.active_element.send_keys("\ue004")
    window.driver.switch_to.active_element.send_keys("\ue007")  # past everything that comes before
    assert window.js("return document.activeElement.id") == "content"


def test_charts_say_in_words_what_they_show(window: Browser, base: str):
    """A name, a description, a value in words, and a table with as many rows as points."""
    window.open(f"{base}/runs/{made_up.WHOLE}", until=READY)
    for chart, points in (
        ("metric", 12),
        ("emissions", 13),
        ("price", 12),
        ("outcomes", 12),
        ("phases", 6),
    ):
        window.js(f"document.querySelector('#chart-{chart} details').open = true")
        rows = f"document.querySelectorAll('#chart-{chart} tbody tr').length"
        window.wait(f"{rows} === {points}")
        name, about, value = window.js(
            f"const one = document.querySelector('#chart-{chart} [role=slider]');"
            "const text = (id) => document.getElementById(one.getAttribute(id)).textContent;"
            "return [text('aria-labelledby'), text('aria-describedby'), one.ariaValueText]"
        )
        assert all((name, about, value)), chart
        assert window.js(
            f"return document.querySelector('#chart-{chart} [role=slider]').ariaValueMax"
        ) == str(points)


def test_nothing_moves_by_itself(window: Browser, base: str):
    """With and without a wish for less of it: neither style sheet nor charts animate."""
    for motion in (True, False):
        window.look(1366, "light", motion=motion)
        window.open(f"{base}/runs/{made_up.LIVE}", until=READY)
        assert window.js("return document.getAnimations().length") == 0
        assert window.js(
            "return Object.values(Chart.instances).every((one) => one.options.animation === false)"
        )


def test_charts_follow_the_theme(window: Browser, base: str):
    """They are drawn in its colours, also where it changes while somebody looks."""
    window.open(f"{base}/runs/{made_up.WHOLE}", until=READY)
    colour = "Chart.getChart(document.querySelector('#chart-metric canvas')).data.datasets[0].borderColor"
    assert window.js(f"return {colour}") == "#0072b2"
    window.look(1366, "dark")
    window.wait(f"{colour} === '#56b4e9'")


def test_series_differ_without_colour(window: Browser, base: str):
    """Bars by their pattern, lines by dash and marker."""
    window.open(f"{base}/runs/{made_up.WHOLE}", until=READY)
    lines = window.js(
        "return Chart.getChart(document.querySelector('#chart-metric canvas')).data.datasets"
        ".map((one) => JSON.stringify([one.borderDash, one.pointStyle]))"
    )
    assert len(lines) == len(set(lines)) == 2
    for chart in ("emissions", "outcomes"):
        kinds = window.js(
            f"return Chart.getChart(document.querySelector('#chart-{chart} canvas')).data.datasets"
            ".map((one) => one.backgroundColor instanceof CanvasPattern)"
        )
        assert kinds == [False] + [True] * (len(kinds) - 1)


# --- many, and none -------------------------------------------------------------------------------


def test_many_rounds_are_folded_and_asked_for_once(window: Browser):
    """1,500 rounds: all are drawn, fifty are in the table, and later requests are small."""
    store = InMemoryStore()
    made_up.begin(store, made_up.LIVE, rounds_planned=2000)
    made_up.play(store, made_up.LIVE, range(1500))
    with serving(store) as url:
        window.open(f"{url}/runs/{made_up.LIVE}", until=READY)
        assert len(drawn(window, "chart-emissions")["labels"]) == 1500
        assert len(figures(window, "#rounds")) == 50
        first = sum(one["bytes"] for one in window.requests() if "/rounds" in one["url"])
        made_up.play(store, made_up.LIVE, range(1500, 1502))
        window.wait("document.querySelector('#rounds tbody th data').value === '1501'")
        assert len(drawn(window, "chart-emissions")["labels"]) == 1502
        asked = [one for one in window.requests() if "/rounds" in one["url"]]
        assert asked
        assert all("from=1499" in one["url"] or "from=150" in one["url"] for one in asked)
        assert sum(one["bytes"] for one in asked) < first / 20
        window.js("document.querySelector('#rounds-pages [data-page=older]').click()")
        assert figures(window, "#rounds")[0][0] == [1451.0, 1.0] or figures(window, "#rounds")[0][
            0
        ] == [1451.0]
        assert (
            window.js("return document.querySelector('#rounds-pages span').textContent")
            == "Page 2 of 31"
        )
        window.js("document.querySelector('#chart-emissions details').open = true")
        window.wait("document.querySelectorAll('#chart-emissions tbody tr').length === 50")
        window.js("document.querySelector('#chart-emissions button').click()")
        window.wait("document.querySelectorAll('#chart-emissions tbody tr').length === 1502")
    assert not [one for one in window.complaints() if "ERR_" not in one]


def test_an_idle_page_costs_a_304(window: Browser, base: str):
    """While nothing happens, nothing is sent again."""
    window.open(f"{base}/runs/{made_up.LIVE}", until=READY)
    window.requests()
    polled = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('live00')).length"
    before = window.js(f"return {polled}")
    window.wait(f"{polled} >= {before} + 2")
    later = [one for one in window.requests() if one["status"] is not None]
    assert later
    assert {one["status"] for one in later} == {304}


# --- while it happens -----------------------------------------------------------------------------


def test_news_appear_without_a_reload(window: Browser):
    """A run in the list; on its page a first round, metrics of a new name, an attempt, the end."""
    store = InMemoryStore()
    with serving(store) as url:
        window.open(url, until=READY)
        window.js("window.stayed = true")
        assert "No run yet" in window.js("return document.body.innerText")
        made_up.begin(store, made_up.LIVE, metric_names=())
        window.wait("document.querySelector('#runs tbody a')?.checkVisibility()")
        assert window.js("return window.stayed")
        window.driver.find_element("css selector", "#runs tbody a").click()
        window.wait(READY)
        window.js("window.stayed = true")
        said = window.js("return document.getElementById('announced').textContent")
        assert said == ""
        made_up.play(store, made_up.LIVE, range(3))
        window.wait("document.querySelectorAll('#rounds tbody tr').length === 3")
        window.wait("document.querySelectorAll('#rounds th[data-metric]').length === 3")
        assert window.js("return !document.getElementById('chart-metric').hidden")
        metrics: dict[str, Any] = {"evaluate_metrics": {"accuracy": 0.5, "f1": 0.25}}
        store.record_round(make_round(3, run_id=made_up.LIVE, clients={"a": 0.001}, **metrics))
        window.wait("document.querySelectorAll('#rounds th[data-metric]').length === 4")
        window.wait(
            "document.getElementById('announced').textContent.startsWith('Round 3 is closed.')"
        )
        # A round that was tried again stands below one that is known already.
        again = make_round(2, run_id=made_up.LIVE, attempt=2, clients={"a": 0.002}, **metrics)
        store.record_round(again)
        window.wait("document.querySelectorAll('#rounds tbody tr').length === 5")
        assert "attempt 2" in window.js("return document.getElementById('rounds').innerText")
        made_up.end(store, made_up.LIVE, "completed")
        window.wait("document.getElementById('live').textContent === 'Ended'")
        seal = store.run(made_up.LIVE).sha256
        window.wait(f"document.querySelector('.seal')?.innerText.includes('{seal}')")
        check_run(window, url, made_up.LIVE)
        assert seal in window.js("return document.getElementById('statement').innerText")
        assert window.js("return window.stayed")
    assert not [one for one in window.complaints() if "ERR_" not in one]


def test_a_server_that_goes_away_is_told_and_found_again(window: Browser):
    """The page keeps what it has, says that it is not live, and goes on by itself."""
    store = made_up.everything()
    with serving(store) as url:
        window.open(f"{url}/runs/{made_up.LIVE}", until=READY)
        window.js("window.stayed = true")
    window.wait(
        "document.getElementById('live').textContent.startsWith('Not live: the server does not answer')"
    )
    assert figures(window, "#components")[0][1]
    with serving(store, port=int(url.rpartition(":")[2])) as url:
        window.wait("document.getElementById('live').textContent === 'Live'")
        store.finish_run(made_up.LIVE, "completed", START)
        store.delete_run(made_up.LIVE, START)
        window.wait(
            "document.getElementById('live').textContent.startsWith('Not live: this run is not there')"
        )
        assert window.js("return window.stayed")


def test_a_session_that_ends_leads_to_the_form(window: Browser):
    """And with the token back to the figures; the token itself is in no address and no cookie."""
    store = made_up.everything()
    with serving(store, read_token=TOKEN) as url:
        window.open(url)
        _log_in(window, TOKEN)
        window.wait(READY)
        assert api(url, "/runs", Authorization=f"Bearer {TOKEN}")["runs"]
        (cookie,) = window.driver.get_cookies()
        assert cookie["httpOnly"]
        assert TOKEN not in str(cookie)
        window.open(f"{url}/runs/{made_up.WHOLE}", until=READY)
        links = window.js(
            "return [...document.querySelectorAll('.downloads a')].map((one) => one.href)"
        )
        status = window.later(
            "return (await Promise.all(given[0].map((one) => fetch(one)))).map((one) => one.status)",
            links,
        )
        assert set(status) == {200}
        window.open(url, until=READY)
        window.driver.delete_all_cookies()
        window.wait("location.pathname === '/login'")
        assert not [one for one in window.requests() if TOKEN in one["url"]]


def test_the_scripts_have_the_types_they_say(tmp_path: Path):
    """TypeScript's checker, strict, over JSDoc."""
    import subprocess

    from telemetry.service.assets import FOLDER
    from tests.tools import require_npm_file, require_tool

    compiler = require_npm_file("typescript/bin/tsc")
    options = (
        "--noEmit --allowJs --checkJs --strict --noUncheckedIndexedAccess --skipLibCheck "
        "--noUnusedLocals --noUnusedParameters "
        "--target es2022 --lib es2023,dom,dom.iterable --module es2022 --moduleResolution bundler"
    )
    files = sorted(map(str, FOLDER.glob("*.js")))
    command = [require_tool("node"), str(compiler), *options.split(), *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
