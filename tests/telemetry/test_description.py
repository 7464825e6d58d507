"""The description of the service's interface: whole, and true under made-up requests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.service.app import API
from telemetry.service.service import create_service
from telemetry.store.memory import InMemoryStore
from tests.telemetry.pages import app_of
from tests.telemetry.test_service_process import service
from tests.tools import require_tool

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
EXAMPLES = 100


def test_the_description_names_every_route_and_every_reference_in_it_exists():
    """With an example of each body, and a problem document for what can go wrong."""
    described = create_service(InMemoryStore()).openapi()
    assert {path for path in described["paths"] if path.startswith(API)} == {
        f"{API}/runs",
        f"{API}/runs/{{run_id}}",
        *(
            f"{API}/runs/{{run_id}}/{end}"
            for end in ("rounds", "finish", "clients", "export", "method")
        ),
    }
    text = str(described)
    names = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(described["components"]["schemas"])
    assert {"RunBody", "RoundsBody", "FinishBody", "Problem"} <= names
    for operations in described["paths"].values():
        for operation in operations.values():
            if "requestBody" in operation:
                assert operation["requestBody"]["content"]["application/json"]["example"]
                assert {"409", "413", "415", "422", "503"} <= set(operation["responses"])


def test_an_fl_server_describes_what_it_answers():
    """The same routes and answers as the service's, as far as they only read."""
    whole = create_service(InMemoryStore()).openapi()
    own = app_of(InMemoryStore())[0].openapi()
    readable = {
        path: found["get"]
        for path, found in whole["paths"].items()
        if path.startswith(API) and "get" in found
    }
    described = {path: found for path, found in own["paths"].items() if path.startswith(API)}
    assert all(list(found) == ["get"] for found in described.values())
    assert {path: found["get"] for path, found in described.items()} == readable
    for name in ("Run", "SoFar", "RunPage", "RoundPage", "ReportPage", "Account"):
        assert own["components"]["schemas"][name] == whole["components"]["schemas"][name]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite_url", "postgres_url"])
def test_made_up_requests_find_no_fault(kind: str, request: pytest.FixtureRequest, tmp_path: Path):
    """Schemathesis: no 5xx, and no answer that the description does not have."""
    beside = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    program = beside or require_tool("schemathesis")
    with service(request.getfixturevalue(kind), tmp_path / "log", "--requests-per-s", "100000") as (
        _,
        address,
    ):
        done = subprocess.run(
            [
                program, "run", f"{address}{API}/openapi.json",
                "--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS),
                "--max-examples", str(EXAMPLES), "--request-timeout", "20",
                "--seed", "1", "--no-color",
            ],
            cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert '"level": "error"' not in (tmp_path / "log").read_text()
