"""Holds PromQL against the catalogue of metrics: a name or label that no page has stops the build.

Prometheus answers a query on a metric that is not there with nothing, and so would a panel. No parser
of PromQL: whether an expression is one is for Prometheus to say, and the tests ask it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from telemetry.exporters.catalogue import CATALOGUE

TARGET_LABELS: Final = frozenset({"job", "instance"})
"""What Prometheus itself puts on every series."""
OF_PROMETHEUS: Final = ("up", "scrape_duration_seconds", "scrape_samples_scraped")
"""Metrics that it makes of each scrape."""
_SUFFIXES: Final = ("_bucket", "_sum", "_count")
_AGGREGATIONS: Final = frozenset(
    {"sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile", "count_values", "group"}
)
_GROUPING: Final = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS: Final = frozenset({"and", "or", "unless", "offset", "bool"})
_MAKES_LABELS: Final = frozenset({"count_values", "label_replace", "label_join"})
_TOKEN: Final = re.compile(
    r"""
    (?P<string>"(?:[^"\\]|\\.)*") | (?P<range>\[[^\]]*\]) | (?P<number>\d[\w.]*)
    | (?P<name>[A-Za-z_:][\w:]*) | (?P<sign>=~|!~|!=|==|<=|>=|[-+*/%^<>={}(),]) | (?P<space>\s+)
    """,
    re.VERBOSE,
)


class NotInCatalogue(ValueError):
    """A query asks for what ``/metrics`` does not show."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def _labels_of_metrics() -> Mapping[str, frozenset[str]]:
    found = dict.fromkeys(OF_PROMETHEUS, TARGET_LABELS)
    for family in CATALOGUE:
        labels = TARGET_LABELS | set(family.all_labels)
        if family.type == "histogram":
            found |= {family.name + suffix: labels for suffix in _SUFFIXES}
            found[f"{family.name}_bucket"] = labels | {"le"}
        else:
            found[family.name] = labels
    return found


LABELS: Final = _labels_of_metrics()
"""The labels of every series that may be asked for, by its name."""


def checked(expression: str, legend: str = "") -> str:
    """The expression, if all its metrics and labels exist, and the labels of its legend.

    Raises:
        NotInCatalogue: naming what does not exist, and the expression.
    """
    tokens = list(_tokens(expression))
    metrics: set[str] = set()
    selected: list[tuple[str, str]] = []
    grouped: set[str] = set()
    made: set[str] = set()
    place = 0
    while place < len(tokens):
        token = tokens[place]
        after = tokens[place + 1].text if place + 1 < len(tokens) else ""
        place += 1
        if token.text in _MAKES_LABELS:
            made |= _strings(tokens, place)
        if token.kind != "name" or token.text in _WORDS or token.text in _AGGREGATIONS:
            continue
        if token.text in _GROUPING:
            if after == "(":
                names, place = _until(tokens, place + 1, ")")
                grouped |= set(names)
        elif after == "{":
            metrics.add(token.text)
            names, place = _until(tokens, place + 1, "}")
            selected += [(token.text, name) for name in names]
        elif after != "(":
            metrics.add(token.text)
    _refuse(expression, "metric", metrics - LABELS.keys())
    _refuse(
        expression, "label", {f"{m}{{{name}}}" for m, name in selected if name not in LABELS[m]}
    )
    known = made.union(*(LABELS[metric] for metric in metrics))
    told = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend))
    _refuse(expression, "label", (grouped | told) - known)
    return expression


def _refuse(expression: str, what: str, unknown: set[str]) -> None:
    if unknown:
        raise NotInCatalogue(f"no such {what}: {', '.join(sorted(unknown))}, in {expression}")


def _tokens(expression: str) -> Iterator[_Token]:
    end = 0
    for match in _TOKEN.finditer(expression):
        if match.start() != end:
            break
        end = match.end()
        assert match.lastgroup is not None
        if match.lastgroup != "space":
            yield _Token(match.lastgroup, match[0])
    if end != len(expression):
        raise NotInCatalogue(f"cannot read {expression[end:]!r}, in {expression}")


def _until(tokens: list[_Token], start: int, closing: str) -> tuple[list[str], int]:
    """The names between two brackets, and the place behind the closing one."""
    place = start
    names = []
    while place < len(tokens) and tokens[place].text != closing:
        if tokens[place].kind == "name":
            names.append(tokens[place].text)
        place += 1
    return names, place + 1


def _strings(tokens: list[_Token], start: int) -> set[str]:
    """Strings up to the end of a call: labels that it may make are among them."""
    found: set[str] = set()
    depth = 0
    for token in tokens[start:]:
        depth += (token.text == "(") - (token.text == ")")
        if token.kind == "string":
            found.add(token.text.strip('"'))
        if depth == 0 and found:
            break
    return found
