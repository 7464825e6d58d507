"""How values look: units, colours, thresholds, words for values, and exceptions for single fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Json = dict[str, Any]

UNITS: Final = frozenset(
    {
        "massg", "watt", "watth", "percentunit", "s", "dthms", "none", "bytes", "decbytes",
        "reqps", "ops", "string", "time:YYYY-MM-DD HH:mm", "suffix: gCO2eq/kWh",
    }
)  # fmt: skip
"""Of Grafana's units (and one suffix), those that are used. A mass is one of CO2eq: the title says so."""

# Okabe and Ito's colours: told apart by those who do not see red or green, on dark and on light.
SERVER: Final = "#56B4E9"
CLIENTS: Final = "#E69F00"
PROGRESS: Final = "#009E73"
EMITTED: Final = "#CC79A7"
BUDGET: Final = "#D55E00"
QUIET: Final = "#8E8E8E"
OUTCOMES: Final[Mapping[str, str]] = {
    "reported": PROGRESS,
    "missing": QUIET,
    "rejected": BUDGET,
    "failed": EMITTED,
}
PHASES: Final[Mapping[str, str]] = {
    "setup": "#8E8E8E",
    "configure": "#F0E442",
    "wait": "#56B4E9",
    "aggregate": "#0072B2",
    "evaluate": "#009E73",
    "idle": "#CC79A7",
}
RATIO_NAMES: Final = "^(.*(accuracy|precision|recall|f1|auc|auroc|iou|dice).*)$"
"""Training metrics whose names say that they lie between 0 and 1."""


def fixed(color: str) -> Json:
    """One colour whatever the value."""
    return {"mode": "fixed", "fixedColor": color}


def steps(*limits: tuple[float | None, str]) -> Json:
    """Thresholds: from each value on (None: from below everything) a colour."""
    return {
        "mode": "absolute",
        "steps": [{"value": value, "color": color} for value, color in limits],
    }


PLAIN: Final = steps((None, "text"))
"""No value is better than another."""


def words(meanings: Mapping[str, tuple[str, str | None]]) -> list[Json]:
    """Values that are shown as words: value → (word, colour)."""
    options = {}
    for index, (value, (text, color)) in enumerate(meanings.items()):
        options[value] = {"text": text, "index": index} | (
            {} if color is None else {"color": color}
        )
    return [{"type": "value", "options": options}]


def whole_numbers_only() -> list[Json]:
    """For an axis of rounds: ticks between two rounds stay without a label."""
    return [
        {
            "type": "regex",
            "options": {"pattern": r"/^\d+\.\d+$/", "result": {"text": " ", "index": 0}},
        }
    ]


SENSORS: Final = words(
    {
        "rapl": ("measured (RAPL)", PROGRESS),
        "nvml": ("measured (NVML)", PROGRESS),
        "mixed": ("partly measured", CLIENTS),
        "model": ("modelled", CLIENTS),
        "constant": ("a constant", CLIENTS),
        "unknown": ("unknown", QUIET),
    }
)
"""For a column; modelled and constant are no measurement."""
SENSORS_IN_FULL: Final = words(
    {
        "rapl": ("measured (RAPL)", PROGRESS),
        "nvml": ("GPU measured (NVML)", PROGRESS),
        "mixed": ("partly measured", CLIENTS),
        "model": ("modelled, no power sensor", CLIENTS),
        "constant": ("a constant, no power sensor", CLIENTS),
        "unknown": ("sensor unknown", QUIET),
    }
)


def of(name: str, **properties: Any) -> Json:
    """What holds for one field; ``custom__width`` stands for ``custom.width``."""
    return _override("byName", name, properties)


def matching(pattern: str, **properties: Any) -> Json:
    """What holds for fields of such names."""
    return _override("byRegexp", f"/{pattern}/", properties)


def of_query(ref: str, **properties: Any) -> Json:
    """What holds for what one query returned."""
    return _override("byFrameRefID", ref, properties)


def _override(matcher: str, options: str, properties: Mapping[str, Any]) -> Json:
    return {
        "matcher": {"id": matcher, "options": options},
        "properties": [
            {"id": name.replace("__", "."), "value": value} for name, value in properties.items()
        ],
    }


TEXT_AS_IT_IS: Final = _override("byType", "string", {"unit": "string"})
"""Else Grafana reads a text such as 1e-4 as a number, and shows it as it shows numbers."""


def colored(colors: Mapping[str, str]) -> list[Json]:
    """A colour by the name of the field, which is shown where there is one field only, too."""
    return [of(name, color=fixed(color), displayName=name) for name, color in colors.items()]


def _whole_numbers() -> list[Json]:
    """No label for a tick between two rounds, or two clients: Grafana has no axis of whole numbers.

    Its ticks are apart by 1, 2 or 2.5 times a power of ten: fractions are there up to a dozen rounds,
    and halves up to a hundred.
    """
    blank = {"text": " ", "index": 0}
    halves = words({f"{number / 2:g}": (" ", None) for number in range(25, 200, 10)})
    return halves + [
        {"type": "range", "options": {"from": n + 0.01, "to": n + 0.99, "result": blank}}
        for n in range(12)
    ]


WHOLE_NUMBERS: Final = _whole_numbers()
ROUND_AXIS: Final = (
    of(
        "round",
        unit="none",
        min=0,
        max=None,
        mappings=WHOLE_NUMBERS,
        custom__axisLabel="round",
    ),
    of("edge", custom__hideFrom={"legend": True, "tooltip": True, "viz": True}),
)
"""Of a trend over the round. A field ``edge`` makes room for the last bar, and is not shown."""

# --- transformations -----------------------------------------------------------------------------


def as_number(name: str) -> Json:
    """A label, which is text, as a number."""
    conversion = {"targetField": name, "destinationType": "number"}
    return {"id": "convertFieldType", "options": {"conversions": [conversion], "fields": {}}}


def joined(name: str) -> Json:
    """All frames as one, by a field."""
    return {"id": "joinByField", "options": {"byField": name, "mode": "outer"}}


def sorted_by(name: str, *, descending: bool = False) -> Json:
    """By one field."""
    return {"id": "sortBy", "options": {"sort": [{"field": name, "desc": descending}]}}


def arranged(
    *, hide: Sequence[str] = (), rename: Mapping[str, str] | None = None, order: Sequence[str] = ()
) -> Json:
    """Fields left out, renamed, and put in an order."""
    return {
        "id": "organize",
        "options": {
            "excludeByName": dict.fromkeys(hide, True),
            "indexByName": {name: place for place, name in enumerate(order)},
            "renameByName": dict(rename or {}),
        },
    }


def by_round(names: Mapping[str, str], always: str = "") -> list[Json]:
    """Queries that give a value a round, as one frame: ``names`` are those of their fields by refId.

    ``always`` is the query that returns something even before there is a run: where only one does,
    Grafana does not number its field.
    """
    times = ("Time", *(f"Time {number}" for number in range(1, len(names) + 1)))
    renamed = {f"Value #{ref}": name for ref, name in names.items()}
    renamed["Value"] = names[always or next(iter(names))]
    return [
        as_number("round"),
        *([joined("round")] if len(names) > 1 else []),
        sorted_by("round"),
        arranged(hide=times, rename=renamed),
    ]
