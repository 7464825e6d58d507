"""Texts that are meant to do harm somewhere, and runs that are full of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from telemetry.service import bodies, bounds
from telemetry.testing import RUN_ID, make_lap, make_report, make_round, make_run

HARMLESS: Final = "harmless"
PAYLOADS: Final = {
    "formula": "=cmd|' /C calc'!A0",
    "formula, plus": "+1+1",
    "formula, minus": "-2+3+cmd|' /C calc'!A0",
    "formula, at": "@SUM(1+1)*cmd|' /C calc'!A0",
    "formula after a tab": "\t=1+1",
    "formula after a return": "\r=1+1",
    "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "HTML attribute": '" onmouseover="alert(1)" x=\'',
    "SQL": "'; DROP TABLE runs;-- \" OR 1=1",
    "log line": 'x\r\n{"level": "error", "message": "forged"}\nERROR forged\u2028ERROR forged',
    "terminal": "\x1b[31mred\x1b]0;title\x07\x9b31m\x08\x08\x7f",
    "label": 'a"} 1\nfl_forged_total{x="y\\',
    "markup": "[red]x[/red][/blink][link=http://x.example]y[/]",
    "direction": "\u202eevil\u2066\u200b",
    "format": "%s %n {0.__class__} ${jndi:ldap://x.example}",
    "path": "../../../etc/passwd",
    "long": "x" * 256,
}
Place = tuple[str | int, ...]
"""Where a text stands in a body: names and positions, and ``"<name>"`` for the name of a member."""
NAME: Final = "<name>"
_NAMED: Final = ("software", "train_metrics", "evaluate_metrics")
"""Mappings whose names are texts of the writer's."""


def whole_bodies() -> dict[str, Any]:
    """A run, a round and an end, in which every text is set: what a writer can say."""
    info = make_run(
        flower_run_id="17", privacy="central-dp", tracker="codecarbon 3.3.2",
        software={"python": "3.11", "os": "linux", "codecarbon": "3.3.2"},
    )  # fmt: skip
    rounds = []
    for number in (1, 2):
        record = make_round(
            number, clients={"1": 0.5, "2": "missing", "3": "negative", "4": "failed"},
            reason="made up", train_metrics={"accuracy": 0.5, "loss": 0.25},
            evaluate_metrics={"accuracy": 0.5},
        )  # fmt: skip
        report = make_report(
            "1", 0.5, country="ESP", scope="process", tracker="made up", dropped_fields="gpu_kwh",
            energy_kwh=0.1, carbon_intensity_g_per_kwh=174.0, looks_cumulative=True, outlier=True,
            reported_round=number,
        )  # fmt: skip
        record = record.model_copy(
            update={
                "reports": (report, *record.reports[1:]),
                "laps": (*record.laps, make_lap(None, phase="evaluate")),
            }
        )
        rounds.append(json.loads(bodies.round_json(record)))
    return {
        "run": json.loads(bodies.run_json(info)),
        "rounds": {"schema": 1, "rounds": rounds},
        "finish": {
            "schema": 1, "status": "failed", "ended_at": "2026-01-02T03:20:05Z", "reason": "made up",
            "late_reports": 0,
        },
    }  # fmt: skip


TAKES: Final[dict[str, Callable[[bytes], object]]] = {
    "run": lambda body: bodies.take_run(body, RUN_ID),
    "rounds": lambda body: bodies.take_rounds(body, RUN_ID),
    "finish": bodies.take_finish,
}
"""What the service makes of each."""


def texts(value: Any, at: Place = ()) -> Iterator[Place]:
    """Where there are texts in a body."""
    if isinstance(value, str):
        yield at
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from texts(item, (*at, place))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from texts(item, (*at, name))
            if at and at[-1] in _NAMED:
                yield (*at, name, NAME)


def with_text(body: Any, at: Place, text: str) -> Any:
    """The body with this text there."""
    changed = copy.deepcopy(body)
    named = at[-1] == NAME
    *path, last = at[:-1] if named else at
    parent = changed
    for step in path:
        parent = parent[step]
    if named:
        parent[text] = parent.pop(last)
    else:
        parent[last] = text
    return changed


def encoded(body: Any) -> bytes:
    """As JSON."""
    return json.dumps(body).encode()


def hostile_bodies(text: str) -> tuple[dict[str, Any], set[str]]:
    """Bodies with the text in every place where the service takes it, and the names of those places."""
    found, taken = whole_bodies(), set()
    for kind, take in TAKES.items():
        for at in texts(found[kind]):
            if at[-1] == NAME and "train_metrics" in at and at[-2] != "accuracy":
                continue  # one name of each mapping: two could not be the same
            if at[-1] == NAME and "software" in at and at[-2] != "os":
                continue
            changed = with_text(found[kind], at, text)
            try:
                take(encoded(changed))
            except bounds.BadBody:
                continue
            found[kind] = changed
            taken.add(next(str(part) for part in reversed(at) if isinstance(part, str)))
            if at[-1] == NAME:
                taken.add(f"{at[-3]} {NAME}")
    return found, taken
