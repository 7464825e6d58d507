"""A real training whose server delivers to a service, in one process."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from fedserver.app import config_of
from tests.fedserver.clients import Script
from tests.fedserver.servers import train
from tests.service_double import ServiceDouble, assert_same

FLEET = [Script(metrics={"emissions": 1e-7}), Script()]


def test_what_a_training_recorded_is_with_the_service_when_it_ends(tmp_path: Path) -> None:
    """Run, rounds, rows and end, without anybody asking for it."""
    with ServiceDouble() as service:
        training = train(tmp_path, FLEET, telemetry__service_url=service.url)
        with closing(training.store):
            assert training.outcome.exit_code == 0
            assert [row.round for row in training.rounds] == [0, 1, 2]
            assert_same(service.store, training.store)


def test_the_keys_of_a_flower_app_are_the_same() -> None:
    """In kebab-case, as every option."""
    keys = {
        "telemetry.service-url": "https://telemetry.example.org",
        "telemetry.service-token": "flt_made-up-for-tests",
    }
    telemetry = config_of(keys, {}).telemetry
    assert telemetry.service_url == "https://telemetry.example.org"
    assert telemetry.write_token() == "flt_made-up-for-tests"
