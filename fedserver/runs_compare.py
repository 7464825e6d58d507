"""``fedserver runs compare``: runs side by side, carbon against a training metric."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from fedserver.runs_answers import (
    DirectionOption,
    FormOption,
    MetricOption,
    TargetOption,
    check_form,
    check_target,
    number,
    print_json,
    wrong,
)
from fedserver.runs_common import FileOption, StoreOption, console, opened_store, resolved_run
from fedserver.saying import say
from fedserver.wording import decimals_for, grams
from telemetry.analysis.compare import Comparison, Contender, compare
from telemetry.analysis.value import Value, metric_names, value_of
from telemetry.domain import GRAMS_PER_KG, RoundSummary, StoredRun

Loaded = list[tuple[StoredRun, list[RoundSummary]]]


def compare_runs(
    wanted: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Ids, their beginnings, names, 'latest'.")
    ],
    metric: MetricOption = None,
    lower_is_better: DirectionOption = None,
    target: TargetOption = None,
    form: FormOption = "table",
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Runs side by side: grams, the metric, grams per point, and the Pareto front of both."""
    check_form(form)
    check_target(target)
    with opened_store(store, config) as opened:
        found = {run.run_id: run for run in (resolved_run(opened, name) for name in wanted)}
        loaded: Loaded = [(run, list(opened.rounds(run.run_id))) for run in found.values()]
    chosen = _metric(loaded, metric)
    compared = compare(loaded, chosen, lower_is_better=lower_is_better, target=target)
    if form == "json":
        print_json(_as_json(compared))
        return
    console().print(_table(compared))
    for line in _notes(compared):
        say(line)


def _metric(loaded: Loaded, asked: str | None) -> str:
    """The metric to compare by: the one asked for, else the one that all runs call theirs."""
    if asked is None:
        theirs = sorted({run.info.value_metric for run, _ in loaded})
        if len(theirs) > 1:
            text = f"the runs have different value metrics; choose one: {', '.join(theirs)}"
            raise wrong("--metric", text)
        (asked,) = theirs
    names = metric_names([row for _, rounds in loaded for row in rounds])
    if asked not in names:
        there = f"there are {', '.join(names)}" if names else "there are no metrics at all"
        raise wrong("--metric", f"none of these runs has {asked!r}; {there}")
    return asked


def _table(compared: Comparison) -> Table:
    table = Table(box=None, header_style="bold")
    for heading in ("", "run", "name", "strategy", "privacy"):
        table.add_column(heading, no_wrap=heading == "run")
    headings = ["rounds", f"best {compared.metric}", "total g", "reported", "g/point"]
    if compared.target is not None:
        headings.append(f"g to {compared.target:g}")
    for heading in headings:
        table.add_column(heading, justify="right")
    known = [c.total_kg for c in compared.contenders if c.total_kg]
    places = decimals_for(min(known) * GRAMS_PER_KG) if known else 2
    for contender in compared.contenders:
        run, value = contender.run, contender.value
        row = [
            "*" if contender.on_front else "",
            run.run_id,
            run.info.run_name,
            run.info.strategy,
            run.info.privacy,
            str(contender.rounds),
            "-" if value is None else f"{value.best.value:.4g}",
            grams(contender.total_kg, places) if run.info.tracked else "not tracked",
            _reported(contender),
            number(None if value is None else value.average_g_per_point),
        ]
        if compared.target is not None:
            row.append(_to_target(contender, places))
        table.add_row(*row)
    return table


def _reported(contender: Contender) -> str:
    if contender.reported is None:
        return "-"
    return f"{contender.reported}/{contender.participants}"


def _to_target(contender: Contender, places: int) -> str:
    if contender.reached is None:
        return "not reached"
    spent = contender.reached.spent_kg
    return f"{grams(spent, places)} (round {contender.reached.round})"


def _notes(compared: Comparison) -> list[str]:
    falling = compared.lower_is_better
    better = "a lower" if falling else "a higher"
    lines = [
        f"* on the Pareto front: no other run has less carbon and {better} best {compared.metric}",
        "g/point: grams from the first value to the best, for each 0.01 gained",
    ]
    if compared.target is not None:
        lines.append(f"g to {compared.target:g}: all grams from the run's start, set-up included")
    for contender in compared.contenders:
        name = contender.run.run_id
        if contender.run.status == "running":
            lines.append(f"{name} goes on: its closed rounds are compared")
        if not contender.comparable:
            what = "total" if contender.total_kg is None else f"best {compared.metric}"
            lines.append(f"{name} is not on the front: its {what} is unknown")
        lines += _too_low(contender)
    for topic, by_run in compared.differences.items():
        told = "; ".join(f"{run_id}: {words}" for run_id, words in by_run.items())
        lines.append(f"differs in {topic}: {told}")
    return lines


def _too_low(contender: Contender) -> list[str]:
    """Why a run's total may be less than what it emitted.

    May: a silent client on the server's own machine is in the server's figure.
    """
    if contender.total_kg is None:
        return []
    why = []
    if silent := contender.participants - (contender.reported or 0):
        why.append(f"{silent} of {contender.participants} expected reports are not in it")
    if contender.unmetered_rounds:
        why.append(f"nothing of the server in {contender.unmetered_rounds} rounds")
    if not why:
        return []
    told = f"{contender.run.run_id}: its total may be too low: {' and '.join(why)}"
    return [told + ("; then its place on the front is too good" if contender.on_front else "")]


def value_lines(run: StoredRun, rounds: list[RoundSummary], target: float | None) -> list[str]:
    """What ``runs show`` says about value for carbon; nothing where no round has the metric."""
    metric = run.info.value_metric
    value = value_of(rounds, metric)
    if value is None:
        return [] if target is None else [f"target     no round has {metric}"]
    lines = [f"value      {_value_words(value)}"]
    if target is not None:
        step = value.reaching(target)
        lines.append(
            f"target     {metric} {target:g} was not reached"
            if step is None
            else f"target     {metric} {target:g} in round {step.round}, "
            + (f"after {grams(step.spent_kg)} g" if step.spent_kg is not None else "grams unknown")
        )
    return lines


def _value_words(value: Value) -> str:
    best = value.best
    words = f"best {value.metric} {best.value:.4g} in round {best.round}"
    average, gain = value.average_g_per_point, value.last_gain
    if average is not None:
        words += f"; {number(average)} g for each point of 0.01 from {value.steps[0].value:.4g} on"
    if gain is not None and gain.marginal_g_per_point is not None:
        words += f", {number(gain.marginal_g_per_point)} g for the last ones"
    return words


def _as_json(compared: Comparison) -> dict[str, Any]:
    return {
        "metric": compared.metric,
        "lower_is_better": compared.lower_is_better,
        "target": compared.target,
        "runs": [_run_as_json(contender) for contender in compared.contenders],
        "differences": {topic: dict(by_run) for topic, by_run in compared.differences.items()},
    }


def _run_as_json(contender: Contender) -> dict[str, Any]:
    info, value, reached = contender.run.info, contender.value, contender.reached
    return {
        "run_id": info.run_id,
        "run_name": info.run_name,
        "status": contender.run.status,
        "strategy": info.strategy,
        "privacy": info.privacy,
        "rounds": contender.rounds,
        "metric_from": None if value is None else value.split,
        "best_value": None if value is None else value.best.value,
        "best_round": None if value is None else value.best.round,
        "points": None if value is None else value.points,
        "total_emissions_kg": contender.total_kg,
        "participants": contender.participants,
        "reported": contender.reported,
        "coverage": contender.coverage,
        "unmetered_rounds": contender.unmetered_rounds,
        "average_g_per_point": None if value is None else value.average_g_per_point,
        "marginal_g_per_point": None if value is None else value.marginal_g_per_point,
        "target_round": None if reached is None else reached.round,
        "target_emissions_kg": None if reached is None else reached.spent_kg,
        "on_pareto_front": contender.on_front,
    }
