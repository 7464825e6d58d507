"""``fedserver.app:app``: the server as a Flower ServerApp, for SuperLink and SuperNodes.

In the ``pyproject.toml`` of a Flower App::

    [tool.flwr.app.components]
    serverapp = "fedserver.app:app"

    [tool.flwr.app.config]
    rounds = 5
    track-emissions = true
    emissions.country = "ESP"
    metrics = "accuracy,f1"
    app.local-epochs = 2            # yours: everything below `app.` is left alone

The options are those of ``server.yaml``, in kebab-case or snake_case, with the same checks. Clients
connect to the SuperLink, so ``server.*`` has no meaning here.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedserver.artefacts import write_exports, write_model
from fedserver.assemble import Bridge, recorded_strategy
from fedserver.config import ServerConfig, load_config
from fedserver.ending import closing_of, end_sending, finish_as_failed
from fedserver.errors import ConfigError, Problem
from fedserver.leftovers import keep_rest
from fedserver.logs import set_up_logging
from fedserver.loop import LoopResult, run_rounds
from fedserver.preparing import (
    bind_http,
    check,
    check_output,
    initial_model,
    open_the_store,
    sender_of,
)
from fedserver.running import log_round
from fedserver.transport import NoInitialModel, SuperLinkGrid, TooFewClients
from telemetry.errors import TelemetryError
from telemetry.writer import Failures

logger = logging.getLogger("fedserver")

OWN_PREFIX: Final = "app."
"""Keys of the run config that belong to the app: for its clients, not for the server."""
SOURCE: Final = "run config"

app = ServerApp()


class TrainingFailed(TelemetryError):
    """The run ended without what it was for; Flower marks its run as failed."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train as the run config says; called by Flower."""
    set_up_logging()
    try:
        config = config_of(context.run_config, os.environ)
        result = train(config, grid)
    except ConfigError as error:
        logger.error("%s", error)
        raise
    if result.ended == "failed":
        raise TrainingFailed(result.reason or "the training failed")


def config_of(run_config: Mapping[str, object], environ: Mapping[str, str]) -> ServerConfig:
    """The configuration in a flat run config (and in ``FEDSERVER_…``). Raises `ConfigError`."""
    overrides = {
        key.replace("-", "_"): value
        for key, value in run_config.items()
        if not key.startswith(OWN_PREFIX)
    }
    elsewhere = [key for key in overrides if key.split(".")[0] == "server"]
    if elsewhere:
        text = "clients connect to the SuperLink, which has its own address, tokens and TLS"
        raise ConfigError([Problem(key, text, SOURCE) for key in elsewhere])
    loaded = load_config(None, environ, overrides, on_platform=False, overrides_from=SOURCE)
    for note in loaded.notes:
        logger.warning("%s", note)
    return loaded.config


def train(config: ServerConfig, grid: Grid) -> LoopResult:
    """One training over the SuperLink's grid, with guard, record, ``/metrics`` and artefacts."""
    with ExitStack() as stack:
        failures = Failures()
        store = open_the_store(config, stack, failures)
        arrays = initial_model(config)
        check_output(config.model.output_dir)
        if config.seed is not None:
            random.seed(config.seed)
            np.random.seed(config.seed)
        recorder, strategy, budget = check(
            lambda: recorded_strategy(config, store, on_round_closed=log_round(config)),
            TelemetryError,
            "emissions",
        )
        recorder.failures.include(failures)
        bridge = Bridge(recorder)
        bridge.emissions = strategy
        sender = sender_of(config, store, recorder)
        http = bind_http(config, store, recorder, sender=sender)
        stack.callback(http.stop)
        http.start()
        check(recorder.start, TelemetryError, "telemetry.database_url")
        atexit.register(recorder.finish, "interrupted")  # Flower ends the process on a signal
        stack.callback(recorder.release)
        stack.callback(keep_rest, config.model.output_dir, recorder)
        if sender is not None:
            stack.callback(end_sending, sender)
            sender.start()
        stack.push(finish_as_failed(recorder))
        run_id = recorder.run.run_id
        logger.info("run %s (%s); metrics at %s/metrics", run_id, config.run_name, http.url)
        link = SuperLinkGrid(grid, listener=bridge, failures=recorder.failures)
        clients = config.cohort
        try:
            if arrays is None:
                logger.info("no model.initial: asking the clients for one")
                link.require(clients.needed_to_train, clients.wait_timeout_s)
                arrays = link.initial_arrays(config.round_timeout_s)
            result = run_rounds(
                strategy,
                link,
                arrays,
                rounds=config.rounds,
                round_timeout_s=config.round_timeout_s,
                wait_timeout_s=clients.wait_timeout_s,
                min_nodes=clients.needed_to_train,
                min_evaluate_nodes=clients.needed_to_evaluate,
                max_failed_rounds=clients.max_failed_rounds,
                may_go_on=None if budget is None else budget.may_go_on,
            )
        except (NoInitialModel, TooFewClients) as error:
            result = LoopResult(arrays=None, rounds_played=0, ended="failed", reason=str(error))
        folder: Path = config.model.output_dir / run_id
        written = write_model(folder, result.arrays)
        recorder.finish(result.ended, result.reason)
        written += write_exports(folder, store, run_id)
        logger.info("run %s %s: %s", run_id, result.ended, closing_of(store, run_id))
        for path in written:
            logger.info("wrote %s", path)
        return result
