"""The pages of a real ``fedserver run``, looked at while clients train over real sockets."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser
from tests.fedserver.clients import ClientProcess, Script
from tests.fedserver.servers import ServerProcess
from tests.pages.reading import READY, check_run

pytestmark = pytest.mark.slow

ROUNDS = 4
SCRIPT = Script(fit="hang", hang_s=2.5, metrics={"emissions": 1e-6}, learns=0.1)
CLOSED = "document.querySelectorAll('#rounds tbody [data-word=completed]').length"


def test_a_training_is_seen_as_it_happens(tmp_path: Path):
    """Each round appears open and then closed, without a reload; in the end every figure is the interface's."""
    options: dict[str, Any] = {"rounds": ROUNDS, "telemetry__http__linger_s": "forever"}
    with (
        browser(tmp_path) as window,
        ServerProcess(tmp_path, 2, **options) as server,
    ):
        base = server.metrics_url.removesuffix("/metrics")
        window.open(base, until=READY)
        window.js("window.stayed = true")
        window.wait("document.querySelector('#runs tbody a')?.checkVisibility()")
        assert window.js("return window.stayed")
        window.driver.find_element("css selector", "#runs tbody a").click()
        window.wait(READY)
        window.js("window.stayed = true")
        with ClientProcess(server.address, SCRIPT), ClientProcess(server.address, SCRIPT):
            window.wait("document.querySelector('#rounds tbody [data-word=running]')")
            for number in range(1, ROUNDS + 1):
                window.wait(f"{CLOSED} > {number}")  # the set-up is one, too
                drawn = (
                    "Chart.getChart(document.querySelector('#chart-emissions canvas')).data.labels"
                )
                assert window.js(f"return {drawn}.length") >= number
            server.wait_for(r"run \S+ completed", 60)
        window.wait("document.getElementById('live').textContent === 'Ended'")
        run_id = window.js("return document.getElementById('page').dataset.run")
        window.wait("document.querySelector('.seal')?.checkVisibility()")
        check_run(window, base, run_id)
        assert window.js("return window.stayed")
        assert window.complaints() == []
        assert window.elsewhere(base) == []
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
