"""One function for each kind of panel: its options whole, so that no default of Grafana's is relied on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from grafana.checked import checked
from grafana.fields import PLAIN, TEXT_AS_IT_IS, Json, fixed

PROMETHEUS: Final = {"type": "prometheus", "uid": "${datasource}"}
SQL: Final = {"type": "grafana-postgresql-datasource", "uid": "${sql_datasource}"}
EVERY_VALUE: Final = {"calcs": [], "fields": "", "values": True}
"""A mark a row of a table, rather than one a field."""
_LEGEND: Final = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_NO_LEGEND: Final = {**_LEGEND, "showLegend": False}
_TOOLTIP: Final = {"mode": "multi", "sort": "none", "hideZeros": False}

# --- queries -------------------------------------------------------------------------------------


def now(expr: str, legend: str = "", ref: str = "A") -> Json:
    """PromQL at the end of the time range: one value a series."""
    return _promql(expr, legend, ref) | {"instant": True, "range": False, "format": "time_series"}


def rows(expr: str, ref: str = "A") -> Json:
    """PromQL at the end of the time range, as a table with a column a label."""
    return _promql(expr, "", ref) | {"instant": True, "range": False, "format": "table"}


def over_time(expr: str, legend: str, ref: str = "A") -> Json:
    """PromQL along the time range."""
    return _promql(expr, legend, ref) | {"instant": False, "range": True, "format": "time_series"}


def _promql(expr: str, legend: str, ref: str) -> Json:
    expr = " ".join(expr.split())
    return {
        "refId": ref,
        "datasource": PROMETHEUS,
        "editorMode": "code",
        "expr": checked(expr, legend),
        "legendFormat": legend or "__auto",
    }


def select(sql: str, ref: str = "A") -> Json:
    """SQL on the views, as a table."""
    return {
        "refId": ref,
        "datasource": SQL,
        "editorMode": "code",
        "format": "table",
        "rawQuery": True,
        "rawSql": _dedented(sql),
    }


def _dedented(sql: str) -> str:
    lines = [line.rstrip() for line in sql.strip("\n").splitlines()]
    margin = min(len(line) - len(line.lstrip()) for line in lines if line)
    return "\n".join(line[margin:] for line in lines).strip()


# --- panels --------------------------------------------------------------------------------------


def panel(
    kind: str,
    title: str,
    description: str,
    targets: Sequence[Json],
    *,
    unit: str,
    options: Json,
    custom: Json | None = None,
    overrides: Sequence[Json] = (),
    transformations: Sequence[Json] = (),
    no_value: str = "",
    links: Sequence[Json] = (),
    **defaults: Any,
) -> Json:
    """What all panels have; ``defaults`` are of the fields: min, max, decimals, color, mappings…"""
    field = {
        "unit": unit,
        "color": fixed("text"),
        "thresholds": PLAIN,
        "mappings": [],
        "noValue": no_value or "nothing yet",
        "custom": custom or {},
        "links": list(links),
        **defaults,
    }
    return {
        "type": kind,
        "title": title,
        "description": " ".join(description.split()),
        "datasource": targets[0]["datasource"],
        "targets": list(targets),
        "fieldConfig": {"defaults": field, "overrides": list(overrides)},
        "options": options,
        "transformations": list(transformations),
        "transparent": False,
    }


def stat(
    title: str,
    description: str,
    targets: Sequence[Json],
    *,
    unit: str = "none",
    text: Literal["value", "name", "value_and_name"] = "value",
    fields: str = "",
    size: int = 34,
    **more: Any,
) -> Json:
    """A tile with a figure, or with a few beside one another."""
    more.setdefault("no_value", "–")
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": fields, "values": False},
        "orientation": "auto",
        "textMode": text,
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
        "text": {"titleSize": 14, "valueSize": size},
    }
    return panel("stat", title, description, targets, unit=unit, options=options, **more)


def gauge(title: str, description: str, targets: Sequence[Json], *, unit: str, **more: Any) -> Json:
    """A value within limits."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "auto",
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
        "sizing": "auto",
        "minVizWidth": 75,
        "minVizHeight": 75,
    }
    return panel("gauge", title, description, targets, unit=unit, options=options, **more)


def bars(
    title: str,
    description: str,
    targets: Sequence[Json],
    *,
    unit: str,
    name: str,
    each_row: bool = False,
    **more: Any,
) -> Json:
    """Horizontal bars: one a series, named by this label; or one a row, named by this column.

    The name is said outright: Grafana shows none where there is only one bar.
    """
    options = {
        "reduceOptions": EVERY_VALUE
        if each_row
        else {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "text",
        "namePlacement": "left",
        "showUnfilled": True,
        "sizing": "manual",
        "minVizWidth": 8,
        "minVizHeight": 16,
        "maxVizHeight": 56,
        "text": {"titleSize": 12, "valueSize": 15},
        "legend": _NO_LEGEND,
    }
    more.setdefault("min", 0)
    of_what = "__data.fields" if each_row else "__field.labels"
    more["displayName"] = name if "$" in name else f"${{{of_what}.{name}}}"
    return panel("bargauge", title, description, targets, unit=unit, options=options, **more)


def _drawn(style: Literal["line", "bars", "points"], **changes: Any) -> Json:
    return {
        "drawStyle": style,
        "lineInterpolation": "linear",
        "lineWidth": 2 if style == "line" else 0,
        "fillOpacity": 90 if style == "bars" else 10,
        "gradientMode": "none",
        "showPoints": "auto",
        "pointSize": 6,
        "barAlignment": 0,
        "barWidthFactor": 0.7,
        "spanNulls": False,
        "insertNulls": False,
        "stacking": {"mode": "none", "group": "A"},
        "axisPlacement": "auto",
        "axisLabel": "",
        "axisColorMode": "text",
        "axisBorderShow": False,
        "axisGridShow": True,
        "axisCenteredZero": False,
        "scaleDistribution": {"type": "linear"},
        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
        "thresholdsStyle": {"mode": "off"},
        **changes,
    }


def line_style(**changes: Any) -> Mapping[str, Any]:
    """Changes of a field's drawing, for an override: ``custom.…`` each."""
    return {f"custom__{name}": value for name, value in _drawn("line", **changes).items()}


STACKED: Final = {"mode": "normal", "group": "A"}


def series(
    title: str,
    description: str,
    targets: Sequence[Json],
    *,
    unit: str,
    style: Literal["line", "bars", "points"] = "line",
    stacked: bool = False,
    drawn: Mapping[str, Any] | None = None,
    legend: bool = True,
    **more: Any,
) -> Json:
    """Lines over time."""
    changes = dict(drawn or {}) | ({"stacking": STACKED} if stacked else {})
    options = {"legend": _LEGEND if legend else _NO_LEGEND, "tooltip": _TOOLTIP}
    more.setdefault("color", {"mode": "palette-classic"})
    custom = _drawn(style, **changes)
    return panel(
        "timeseries", title, description, targets, unit=unit, options=options, custom=custom, **more
    )


def trend(
    title: str,
    description: str,
    targets: Sequence[Json],
    *,
    x: str,
    unit: str,
    style: Literal["line", "bars", "points"] = "line",
    stacked: bool = False,
    drawn: Mapping[str, Any] | None = None,
    legend: bool = True,
    **more: Any,
) -> Json:
    """Lines or bars over a number that rises, such as the round."""
    made = series(
        title, description, targets, unit=unit, style=style, stacked=stacked, drawn=drawn,
        legend=legend, **more,
    )  # fmt: skip
    return made | {"type": "trend", "options": {**made["options"], "xField": x}}


def categories(
    title: str,
    description: str,
    targets: Sequence[Json],
    *,
    x: str,
    unit: str,
    stacked: bool = True,
    **more: Any,
) -> Json:
    """Vertical bars, one a word."""
    options = {
        "xField": x,
        "orientation": "vertical",
        "xTickLabelRotation": 0,
        "xTickLabelMaxLength": 12,
        "xTickLabelSpacing": 100,
        "showValue": "never",
        "stacking": "normal" if stacked else "none",
        "groupWidth": 0.7,
        "barWidth": 0.9,
        "barRadius": 0,
        "fullHighlight": False,
        "tooltip": _TOOLTIP,
        "legend": _LEGEND,
        "text": {},
    }
    custom = {
        "lineWidth": 0,
        "fillOpacity": 90,
        "gradientMode": "none",
        "axisPlacement": "auto",
        "axisLabel": "",
        "axisColorMode": "text",
        "axisBorderShow": False,
        "axisGridShow": True,
        "axisCenteredZero": False,
        "scaleDistribution": {"type": "linear"},
        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
        "thresholdsStyle": {"mode": "off"},
    }
    return panel(
        "barchart", title, description, targets, unit=unit, options=options, custom=custom, **more
    )


def scatter(
    title: str,
    description: str,
    targets: Sequence[Json],
    *,
    unit: str,
    **more: Any,
) -> Json:
    """Points: the second number of each row over the first; what else is in the row is in its tooltip."""
    options = {
        "mapping": "auto",
        "series": [{}],
        "legend": _NO_LEGEND,
        "tooltip": {"mode": "single", "sort": "none", "hideZeros": False},
    }
    custom = {
        "show": "points",
        "pointShape": "circle",
        "pointSize": {"fixed": 8},
        "pointStrokeWidth": 1,
        "fillOpacity": 70,
        "axisPlacement": "auto",
        "axisLabel": "",
        "axisColorMode": "text",
        "axisBorderShow": False,
        "axisGridShow": True,
        "axisCenteredZero": False,
        "scaleDistribution": {"type": "linear"},
        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
    }
    return panel(
        "xychart", title, description, targets, unit=unit, options=options, custom=custom, **more
    )


def table(
    title: str,
    description: str,
    targets: Sequence[Json],
    *,
    unit: str = "none",
    sort: Sequence[tuple[str, bool]] = (),
    header: bool = True,
    **more: Any,
) -> Json:
    """Rows and columns; ``sort`` is (column, descending)."""
    options = {
        "showHeader": header,
        "cellHeight": "sm",
        "enablePagination": False,
        "sortBy": [{"displayName": name, "desc": descending} for name, descending in sort],
        "frameIndex": 0,
    }
    custom = {
        "align": "auto",
        "cellOptions": {"type": "auto"},
        "filterable": False,
        "footer": {"reducers": []},
        "inspect": False,
    }
    more.setdefault("no_value", "–")
    more["overrides"] = [TEXT_AS_IT_IS, *more.get("overrides", ())]
    return panel(
        "table", title, description, targets, unit=unit, options=options, custom=custom, **more
    )
