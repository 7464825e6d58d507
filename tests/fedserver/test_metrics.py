"""Training metrics from clients over sockets to the store, to /metrics and to the CSV."""

from __future__ import annotations

import contextlib
import csv
import logging
import math
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedserver.guard import Heard
from fedserver.metrics_log import MetricsLog
from telemetry.testing import make_round
from tests.fedserver.clients import Script
from tests.fedserver.servers import Training, train

SCRIPTS = [
    Script(
        examples=10,
        metrics={"accuracy": 0.2, "loss": 2.0, "other": 1.0},
        evaluate_metrics={"accuracy": 0.5, "f1": 0.4},
        evaluate_examples=10,
        loss=1.0,
    ),
    Script(
        examples=30,
        metrics={"accuracy": 0.6, "loss": 1.0},
        evaluate_metrics={"accuracy": 0.9, "f1": math.nan},
        evaluate_examples=30,
        loss=3.0,
    ),
    Script(examples=60, metrics={"accuracy": "0.9"}, evaluates=False),
]
TRAIN = {"accuracy": (10 * 0.2 + 30 * 0.6) / 40, "loss": (10 * 2 + 30 * 1) / 40, "other": 1.0}
EVALUATE = {"accuracy": (10 * 0.5 + 30 * 0.9) / 40, "f1": 0.4, "loss": (10 * 1 + 30 * 3) / 40}


class Scraper:
    """Scrapes a page all the time; keeps the last answer."""

    def __init__(self) -> None:
        self.text = ""
        self._url = ""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, _: Any, url: str) -> None:
        """Begin; a callback for `train`."""
        self._url = url
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the server has gone
            while True:
                with urllib.request.urlopen(self._url, timeout=5) as answer:  # noqa: S310 our own
                    self.text = answer.read().decode()
                time.sleep(0.1)

    def last(self) -> str:
        """The last answer before the server went."""
        self._thread.join(10)
        return self.text


@pytest.fixture(scope="module")
def scraper() -> Scraper:
    """For the page of `trained`."""
    return Scraper()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, scraper: Scraper) -> Training:
    """Three clients, two rounds: one sends all, one a NaN, one text and no evaluation."""
    done = train(
        tmp_path_factory.mktemp("metrics"),
        SCRIPTS,
        metrics=["accuracy", "f1"],
        clients__min_evaluate=2,
        telemetry__http__linger_s=0.5,
        on_ready=scraper.start,
    )
    assert done.outcome.exit_code == 0
    return done


def test_means_are_by_examples_over_those_who_sent_a_number(trained: Training) -> None:
    """Train and evaluate metrics and loss stand in the store; NaN and text are nobody's number."""
    for row in trained.rounds[1:]:
        assert row.train_metrics == pytest.approx(TRAIN)
        assert row.evaluate_metrics == pytest.approx(EVALUATE)


def test_the_csv_has_them(trained: Training) -> None:
    """A column a metric, train and evaluate apart; empty in round 0."""
    (path,) = [p for p in trained.outcome.artefacts if p.name == "footprint.csv"]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[1:]:
        for split, metrics in (("train", TRAIN), ("evaluate", EVALUATE)):
            for name, value in metrics.items():
                assert float(row[f"{split}_{name}"]) == pytest.approx(value), (split, name)
    assert rows[0]["evaluate_accuracy"] == ""


def test_the_metrics_page_has_the_named_ones_and_loss(trained: Training, scraper: Scraper) -> None:
    """What ``metrics`` names, and loss, for each round; ``other`` is not shown."""
    samples = {
        (sample.labels["name"], sample.labels["split"]): sample.value
        for family in text_string_to_metric_families(scraper.last())
        for sample in family.samples
        if sample.name == "fl_round_training_metric" and sample.labels["round"] == "1"
    }
    shown = {
        **{(name, "train"): TRAIN[name] for name in ("accuracy", "loss")},
        **{(name, "evaluate"): value for name, value in EVALUATE.items()},
    }
    assert samples == pytest.approx(shown)


def test_who_omits_a_metric_is_counted_once_a_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line a round says which mean stands for whom; complete ones are not mentioned."""
    caplog.set_level(logging.INFO, "fedserver.metrics_log")
    train(tmp_path, SCRIPTS, metrics=["accuracy", "f1"], clients__min_evaluate=2)
    lines = [r.getMessage() for r in caplog.records if r.name == "fedserver.metrics_log"]
    assert lines == [
        f"round {number}: accuracy from 2 of 3 clients (train), loss from 2 of 3 clients (train), "
        "f1 from 1 of 2 clients (evaluate)"
        for number in (1, 2)
    ]


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ([("train", {"accuracy": 3}, 3)], []),
        ([("train", {}, 3), ("evaluate", {"accuracy": 3}, 3)], []),
        ([("train", {}, 3), ("evaluate", {}, 2)], ["round 1: accuracy from 0 of 3 clients"]),
        ([("train", {"accuracy": 3}, 3), ("evaluate", {}, 0)], []),
        ([("train", {}, 0)], []),
        ([("train", {"accuracy": 3, "mine": 1}, 3)], []),
        (
            [("evaluate", {"accuracy": 1, "loss": 2}, 3)],
            [
                "round 1: accuracy from 1 of 3 clients (evaluate), "
                "loss from 2 of 3 clients (evaluate)"
            ],
        ),
    ],
)
def test_only_gaps_are_logged(
    heard: list[tuple[Any, dict[str, int], int]], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A metric of one phase only is no gap; one that nobody sends at all is."""
    caplog.set_level(logging.INFO)
    log = MetricsLog(["accuracy"])
    for phase, senders, usable in heard:
        log.heard(Heard(phase, 1, dict.fromkeys(senders, 0.5), senders, usable))
    log.closed(make_round(1))
    log.closed(make_round(1))
    assert [record.getMessage() for record in caplog.records] == said
