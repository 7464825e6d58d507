"""A view as lines of a terminal, of any width and height."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.text import Text

from fedserver.terminal.signs import bar, clock, fitted, inert, padded, sparkline
from fedserver.terminal.view import ClientState, ClientView, MetricView, Start, View, worth_showing
from fedserver.wording import grams
from telemetry.budget import WARN_FROM

WIDEST: Final = 100
"""Lines are not longer, however wide the terminal is."""
LOG_ROWS: Final = 6
"""Left to the log, where the terminal is high enough."""
_MOST_METRICS: Final = 3
_MOST_CLIENT_ROWS: Final = 16
_LABEL: Final = 11
_VALUE: Final = 20
_RIGHT: Final = 22
_RIGHT_NARROW: Final = 17
_NARROW: Final = 72

_SIGNS: Final[dict[ClientState, tuple[str, str, str]]] = {
    "idle": ("○", "connected", "dim"),
    "busy": ("◌", "busy", "yellow"),
    "training": ("●", "training", "cyan"),
    "evaluating": ("●", "evaluating", "cyan"),
    "done": ("✓", "done", "green"),
    "failed": ("✗", "failed", "bold red"),
}
"""A sign, a word and a colour: the colour alone says nothing."""


def lines(view: View | Start, width: int, height: int) -> list[Text]:
    """What to show where there are so many cells and rows; never more of either."""
    page = _Page(min(width, WIDEST))
    if isinstance(view, Start):
        return [_cropped(page.start(view), page.width)]
    head = [page.title(view), page.run(view), *page.failed(view), page.step(view)]
    head += page.share(view)
    figures = [*page.metrics(view), *page.footprint(view), *page.warnings(view)]
    room = height - LOG_ROWS - len(head) - len(figures) - 1
    room = max(min(3, height - 1 - len(head) - len(figures)), min(_MOST_CLIENT_ROWS, room))
    drawn = [*head, *page.clients(view, room), *figures]
    return [_cropped(line, page.width) for line in drawn[: max(1, height - 1)]]


def _cropped(line: Text, width: int) -> Text:
    line.no_wrap, line.overflow = True, "ellipsis"
    line.truncate(width, overflow="ellipsis")
    line.rstrip()  # a terminal that becomes narrower must not wrap what nobody sees
    return line


@dataclass(frozen=True, slots=True)
class _Page:
    """The widths of columns, and what stands in them."""

    width: int

    @property
    def narrow(self) -> bool:
        """Whether the last column has short words only."""
        return self.width < _NARROW

    @property
    def about(self) -> str:
        return "~" if self.narrow else "about "

    @property
    def bar_cells(self) -> int:
        right = _RIGHT_NARROW if self.narrow else _RIGHT
        return max(6, self.width - _LABEL - _VALUE - right - 2)

    def row(self, label: str, value: str = "", style: str = "") -> Text:
        """A line with its first two columns."""
        return Text.assemble((padded(label, _LABEL - 1) + " ", "dim"), (value, style))

    def barred(self, label: str, value: str, share: float | None, style: str, right: str) -> Text:
        """A line with a bar."""
        line = self.row(label, padded(value, _VALUE - 1) + " ")
        return line.append_text(bar(share, self.bar_cells, style)).append(f"  {right}")

    def start(self, start: Start) -> Text:
        share = start.done / start.of
        return self.barred("starting", start.what, share, "cyan", clock(start.seconds))

    # --- the run and the round -----------------------------------------------------------------

    def title(self, view: View) -> Text:
        name, strategy = fitted(inert(view.run_name), 30), inert(view.strategy)
        line = Text.assemble(
            ("── ", "dim"), (name, "bold"), (f" · {strategy} · {view.run_id} ", "dim")
        )
        return line.append("─" * max(2, self.width - line.cell_len), "dim")

    def run(self, view: View) -> Text:
        told = f"{view.round} of {view.planned}"
        right = clock(view.run_s)
        if view.left_s is not None:
            right += f", {self.about}{clock(view.left_s + 0.5)} left"
        return self.barred("round", told, view.run_share, "green", right)

    def failed(self, view: View) -> list[Text]:
        count = view.failed_rounds
        told = f"{count} {'round has' if count == 1 else 'rounds have'} no new model"
        return [self.row("failed", told, "bold red")] if count else []

    def step(self, view: View) -> Text:
        right = clock(view.round_s)
        match view.step:
            case "waiting":
                state = "connected" if view.free == view.connected else "free"
                told = f"{view.free} of {view.needed} {state}"
            case "training" | "evaluating":
                told = f"{view.answered} of {view.asked}"
            case _:
                told = ""
        if view.expected_s is not None and view.round and view.step != "ending":
            right += f" of {self.about}{clock(max(1.0, view.expected_s + 0.5))}"
        return self.barred(view.step, told, view.round_share, "cyan", right)

    def share(self, view: View) -> list[Text]:
        """Where clients connect to, while some are missing."""
        if view.step != "waiting" or view.connected >= view.needed:
            return []
        return [self.row("share", view.endpoint, "bold")]

    # --- clients -------------------------------------------------------------------------------

    def clients(self, view: View, rows: int) -> list[Text]:
        line = self.row("clients", f"{view.connected} connected")
        for state in ("training", "evaluating", "done", "failed", "busy"):
            count = view.states.get(state, 0)
            if count or state in ("done", "failed"):
                _, word, style = _SIGNS[state]
                line.append(" · ").append(f"{count} {word}", style if count else "dim")
        total = sum(view.states.values())
        shown, more = worth_showing(view.clients, total, rows)
        drawn = [line, *(self.client(client) for client in shown)]
        if more and rows > 0:
            drawn.append(self.row("", f"+{more} more", "dim"))
        return drawn

    def client(self, client: ClientView) -> Text:
        """The name comes last: whatever script it is in, what stands before it stays where it is."""
        sign, word, style = _SIGNS[client.state]
        took = ""
        if client.seconds is not None:
            at_work = client.state in ("training", "evaluating")
            took = clock(client.seconds) if at_work else _took(client.seconds)
        line = self.row("", f"{sign} {padded(word, 10)} {took:>7}  ", style)
        left = self.width - line.cell_len
        reason = "" if client.reason is None else inert(client.reason)
        line.append(fitted(inert(client.name), max(8, left // 2) if reason else left))
        return line.append(f": {reason}", "red") if reason else line

    # --- figures -------------------------------------------------------------------------------

    def metrics(self, view: View) -> list[Text]:
        return [self.metric(metric) for metric in view.metrics[:_MOST_METRICS]]

    def metric(self, metric: MetricView) -> Text:
        line = self.row(inert(metric.name), padded(f"{metric.last:.4g}", _VALUE - 1) + " ", "bold")
        cells = self.bar_cells
        spark = sparkline(metric.history, cells, from_zero=False)
        line.append(padded(spark, cells), "green")
        line.append(f"  best {metric.best:.4g}")
        return line if self.narrow else line.append(f", round {metric.best_round}")

    def footprint(self, view: View) -> list[Text]:
        found = view.footprint
        if found is None:
            return [self.row("CO2eq", "not tracked (track_emissions: false)", "dim")]
        unit = "" if found.total_kg is None else " g"
        told = f"{grams(found.total_kg)}{unit} so far"
        line = self.row("CO2eq", padded(told, _VALUE - 1) + " ", "bold")
        spark = sparkline(found.rounds_kg, self.bar_cells, from_zero=True)
        line.append(padded(spark, self.bar_cells), "yellow")
        if spark:
            line.append("  a round")
        drawn = [line]
        if found.note is not None:
            drawn.append(self.row("", found.note, "dim"))
        if found.coverage is not None:
            reported, participants = found.coverage
            told = f"{reported} of {participants} clients reported in round {found.coverage_round}"
            row = self.row("coverage", told)
            if found.rejected:
                row.append(f", {found.rejected} rejected", "yellow")
            drawn.append(row)
        if found.budget_kg is not None:
            drawn.append(self.budget(found.budget_kg, found.budget_used))
        return drawn

    def budget(self, budget_kg: float, used: float | None) -> Text:
        style = (
            "green"
            if (used or 0.0) < WARN_FROM
            else "yellow"
            if (used or 0.0) < 1.0
            else "bold red"
        )
        right = "nothing known yet" if used is None else f"{used * 100:.0f} % used"
        return self.barred("budget", f"{grams(budget_kg)} g", used, style, right)

    def warnings(self, view: View) -> list[Text]:
        """How many there were, and the last: it may have scrolled away."""
        if not view.warnings:
            return []
        line = self.row("warnings", f"{view.warnings}  ", "bold yellow")
        left = self.width - line.cell_len
        return [line.append(fitted(inert(view.last_warning), left), "yellow")]


def _took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)
