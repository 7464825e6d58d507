"""The name of a machine within a run."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fedserver_hooks.host import host_id


def _file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="ascii")
    return path


def test_is_a_hash_of_run_and_boot(tmp_path: Path) -> None:
    """The id is the first 12 hex digits of SHA-256(run id ‖ boot id), without the line's end."""
    boot = _file(tmp_path / "boot", "5e3f-77\n")
    expected = hashlib.sha256(b"run-15e3f-77").hexdigest()[:12]
    assert host_id("run-1", boot_id=boot, machine_id=tmp_path / "none") == expected


def test_differs_between_runs() -> None:
    """This machine's ids of two runs are different, and the same for one run."""
    assert host_id("run-1") != host_id("run-2")
    assert host_id("run-1") == host_id("run-1")


def test_prefers_the_boot_id(tmp_path: Path) -> None:
    """The machine id does not matter where there is a boot id."""
    boot = _file(tmp_path / "boot", "boot")
    one, two = _file(tmp_path / "one", "1"), _file(tmp_path / "two", "2")
    assert host_id("r", boot_id=boot, machine_id=one) == host_id("r", boot_id=boot, machine_id=two)


def test_falls_back_to_the_machine_id(tmp_path: Path) -> None:
    """Without a boot id, or with an empty one, the machine id names the host."""
    machine = _file(tmp_path / "machine", "m")
    expected = hashlib.sha256(b"rm").hexdigest()[:12]
    empty = _file(tmp_path / "empty", "\n")
    assert host_id("r", boot_id=tmp_path / "none", machine_id=machine) == expected
    assert host_id("r", boot_id=empty, machine_id=machine) == expected


def test_is_absent_where_nothing_names_the_machine(tmp_path: Path) -> None:
    """Without either id, or with files that are no text, there is no host id and no exception."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert host_id("r", boot_id=tmp_path / "none", machine_id=tmp_path) is None
    assert host_id("r", boot_id=binary, machine_id=binary) is None
