"""What the tests of pages in a browser share: a server, and readers of what is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import httpx
import pytest

from telemetry.service.server import EmbeddedHttp
from telemetry.store import Store
from tests.browser import Browser
from tests.telemetry.pages import app_of

READY: Final = "document.getElementById('live') && !document.getElementById('live').hidden"
"""A script has renewed the page once."""
G: Final = 1000.0


@contextmanager
def serving(store: Store, port: int = 0, **options: Any) -> Iterator[str]:
    """Where an FL server with that store answers."""
    with EmbeddedHttp(app_of(store, **options)[0], "127.0.0.1", port) as server:
        yield server.url


def api(base: str, path: str, **headers: str) -> Any:
    """An answer of the interface."""
    answer = httpx.get(f"{base}/api/v1{path}", headers=headers, trust_env=False)
    answer.raise_for_status()
    return answer.json()


def figures(browser: Browser, table: str) -> list[list[list[float]]]:
    """The exact figures in each cell of a table's body."""
    found: list[list[list[float]]] = browser.js(
        "return [...document.querySelectorAll(arguments[0] + ' > tbody > tr')].map((row) =>"
        " [...row.cells].map((cell) => [...cell.querySelectorAll('data[value]')]"
        ".filter((one) => one.checkVisibility()).map((one) => Number(one.value))))",
        table,
    )
    return found


def drawn(browser: Browser, chart: str) -> dict[str, Any]:
    """What Chart.js was given to draw: labels, and each series by its name."""
    found: dict[str, Any] = browser.js(
        "const {data} = Chart.getChart(document.querySelector(`#${arguments[0]} canvas`));"
        "return {labels: data.labels, ...Object.fromEntries("
        "data.datasets.map((one) => [one.label, one.data]))};",
        chart,
    )
    return found


def same(found: Sequence[float | None], wanted: Sequence[float | None]) -> None:
    """Each figure is the other one to 1e-9; what is unknown in one is so in both."""
    assert len(found) == len(wanted), (found, wanted)
    for one, other in zip(found, wanted, strict=True):
        if one is None or other is None:
            assert one is other
        else:
            assert one == pytest.approx(other, rel=1e-9, abs=0)


def times(factor: float, values: Sequence[float | None]) -> list[float | None]:
    """Known values in another unit."""
    return [None if value is None else value * factor for value in values]


def check_run(browser: Browser, base: str, run_id: str) -> None:
    """Every figure of a run's page, its charts and their tables, against the interface."""
    run, account = api(base, f"/runs/{run_id}"), api(base, f"/runs/{run_id}/method")
    rows = api(base, f"/runs/{run_id}/rounds?limit=1000")["rounds"]
    so_far, method = run["so_far"], account["method"]
    parts = ("server_emissions_kg", "clients_emissions_kg", "emissions_kg")
    energies = ("server_energy_kwh", "clients_energy_kwh")
    same(
        [_one(row[1]) for row in figures(browser, "#components")],
        times(G, [so_far[name] for name in parts]),
    )
    same(
        [_one(row[2]) for row in figures(browser, "#components")[:2]],
        times(G, [so_far[name] for name in energies]),
    )
    same(
        [_one(row[1]) for row in figures(browser, "#phases")],
        times(G, list(so_far["phase_energy_kwh"].values())),
    )
    outcomes = ("participants", "reported", "missing", "rejected", "failed")
    same(
        [_one(row[1]) for row in figures(browser, "#outcomes")], [method[name] for name in outcomes]
    )
    _check_rounds(browser, rows)
    _check_charts(browser, [row for row in rows if row["closed"]], so_far)


def _check_rounds(browser: Browser, rows: list[dict[str, Any]]) -> None:
    heads: list[list[str]] = browser.js(
        "return [...document.querySelectorAll('#rounds th[data-metric]')]"
        ".map((one) => JSON.parse(one.dataset.metric))"
    )
    newest_first = sorted(rows, key=lambda row: (-row["round"], -row["attempt"]))[:50]
    shown = figures(browser, "#rounds")
    assert len(shown) == len(newest_first)
    for found, row in zip(shown, newest_first, strict=True):
        assert found[0][0] == row["round"]
        same(found[2], [row["duration_s"]])
        if row["closed"]:
            same(found[3], [row[n] for n in ("reported", "participants") if row[n] is not None])
            same([_one(found[4])], times(100.0, [row["coverage"]]))
        names = ("server", "clients", "total", "cumulative")
        kilograms = [row[f"{name}_emissions_kg"] for name in names]
        same([_one(cell) for cell in found[5:9]], times(G, kilograms))
        metrics = [row[f"{split}_metrics"].get(name) for name, split in heads]
        same([_one(cell) for cell in found[9:]], metrics)


def _check_charts(browser: Browser, closed: list[dict[str, Any]], so_far: dict[str, Any]) -> None:
    last = {row["round"]: row for row in closed}
    rows = [last[number] for number in sorted(last)]
    played = [row for row in rows if row["round"] > 0]
    chart = drawn(browser, "chart-emissions")
    assert chart["labels"] == [str(row["round"]) for row in rows]
    same(chart["Server"], times(G, [row["server_emissions_kg"] for row in rows]))
    same(chart["Clients"], times(G, [row["clients_emissions_kg"] for row in rows]))
    chart = drawn(browser, "chart-outcomes")
    for name in ("reported", "missing", "rejected", "failed"):
        same(chart[name.capitalize()], [row[name] for row in played])
    chart = drawn(browser, "chart-phases")
    assert chart["labels"] == list(so_far["phase_energy_kwh"])
    same(chart["Energy"], times(G, list(so_far["phase_energy_kwh"].values())))
    name = browser.js("return document.getElementById('metric').value")
    if name not in {key for row in played for key in row["evaluate_metrics"]}:
        return
    values = [row["evaluate_metrics"].get(name) for row in played]
    same(drawn(browser, "chart-metric")[f"{name} (evaluate)"], values)
    points = drawn(browser, "chart-price")[f"{name} (evaluate)"]
    spent = [row for row in played if row["cumulative_emissions_kg"] is not None]
    same([p["x"] for p in points], times(G, [row["cumulative_emissions_kg"] for row in spent]))
    same([p["y"] for p in points], [row["evaluate_metrics"].get(name) for row in spent])
    tables = {
        "emissions": (rows, ("server_emissions_kg", "clients_emissions_kg", "total_emissions_kg")),
        "price": (spent, ("cumulative_emissions_kg",)),
    }
    for which, (wanted, columns) in tables.items():
        browser.js(f"document.querySelector('#chart-{which} details').open = true")
        browser.wait(f"document.querySelector('#chart-{which} table')")
        found = figures(browser, f"#chart-{which} table")
        for cells, row in zip(found, reversed(wanted), strict=False):
            same(
                [_one(cell) for cell in cells[1 : 1 + len(columns)]],
                times(G, [row[c] for c in columns]),
            )
        assert len(found) == min(50, len(wanted))


def _one(cell: list[float]) -> float | None:
    assert len(cell) <= 1
    return cell[0] if cell else None
