"""``fedserver telemetry …``: what the commands print, and what a user's mistake looks like."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from fedserver.cli import main
from telemetry.domain import utc_now
from telemetry.errors import RunDeleted
from telemetry.store import open_store
from telemetry.store.api_tokens import digest_of
from telemetry.store.sql.schema import REVISION
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    """Standard output and error of a command that exits with that code."""
    with pytest.raises(SystemExit) as ended:
        main(["telemetry", *arguments])
    out, err = capsys.readouterr()
    assert ended.value.code == code, err
    assert "Traceback" not in err
    return out, err


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """`serve` sets the process's logging up for itself."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """URL of a store with a run that ended long ago."""
    found = f"sqlite:///{tmp_path}/telemetry.db"
    with closing(open_store(found)) as store:
        store.start_run(make_run(), OWNER, START)
        store.record_round(make_round(1, clients={"1": 0.5}))
        store.finish_run(RUN_ID, "completed", utc_now() - timedelta(days=10))
    return found


def test_a_token_is_shown_once_listed_and_revoked(capsys: pytest.CaptureFixture[str], url: str):
    """The list has its label and scopes and never the token."""
    make = ("tokens", "create", "--label", "site-a", "--scope", "write", "--scope", "read")
    token, note = said(capsys, *make, "--store", url)
    assert token.startswith("flt_")
    assert "not shown again" in note
    listed, _ = said(capsys, "tokens", "list", "--store", url)
    assert "site-a" in listed
    assert "read write" in listed
    assert "valid" in listed
    assert token.strip() not in listed
    assert "revoke it first" in said(capsys, *make, "--store", url, code=2)[1]
    said(capsys, "tokens", "revoke", "site-a", "--store", url)
    assert "revoked" in said(capsys, "tokens", "list", "--store", url)[0]
    assert "no token" in said(capsys, "tokens", "revoke", "site-a", "--store", url, code=2)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tokens", "create", "--label", "a b", "--scope", "read"), "letters, digits"),
        (("tokens", "create", "--label", "a", "--scope", "all"), "write, read, admin"),
        (("prune", "--older-than", "6m", "--keep-totals"), "180d"),
        (("prune", "--older-than", "999999d", "--keep-totals"), "before all times"),
        (("prune", "--older-than", "1d"), "--keep-totals"),
        (("migrate", "down"), "up, check or history"),
        (("migrate", "check", "--reader", "x"), "goes with up"),
        (("migrate", "up", "--reader", "x"), "only PostgreSQL has roles"),
        (("migrate", "up", "--reader-password-variable", "X"), "goes with --reader"),
        (("migrate", "--reader", "x", "--reader-password-variable", "NO_SUCH"), "is not set"),
        (("tokens", "import"), "name a FILE"),
        (("tokens", "import", "no-such-file"), "cannot read no-such-file"),
        (("tokens", "import", "--variable", "NO_SUCH"), "NO_SUCH is not set"),
        (("serve", "--host", "0.0.0.0", "--port", "0"), "telemetry tokens create"),
        (("serve", "--host", "192.0.2.1", "--port", "0"), "tokens create"),
        (("serve", "--port", "70000"), "a port is a number"),
    ],
)
def test_a_mistake_is_one_sentence(
    capsys: pytest.CaptureFixture[str], url: str, arguments: tuple[str, ...], words: str
):
    """Exit 2, and nothing is changed."""
    _, err = said(capsys, *arguments, "--store", url, code=2)
    assert words in err
    with closing(open_store(url)) as store:
        assert len(list(store.rounds(RUN_ID))) == 1
        assert not store.api_tokens()


TOKEN = "flt_" + "x" * 43
OTHER = "flt_" + "y" * 43


def test_tokens_that_were_drawn_elsewhere_are_taken_in(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From a file or a variable, with their label and scopes; once more changes nothing."""
    lines = f"# ours\n\nfl-server write {TOKEN}\n  prometheus read,write {OTHER}\n"
    (tmp_path / "tokens").write_text(lines)
    monkeypatch.setenv("OUR_TOKENS", lines)
    come = ("tokens", "import", "--store", url)
    out, err = said(capsys, *come, str(tmp_path / "tokens"))
    assert out == "fl-server: taken in (write)\nprometheus: taken in (read, write)\n"
    assert TOKEN not in out + err
    with closing(open_store(url)) as store:
        before = store.api_tokens()
    assert {token.sha256 for token in before} == {digest_of(TOKEN), digest_of(OTHER)}
    assert {t.label: sorted(t.scopes) for t in before} == {
        "fl-server": ["write"],
        "prometheus": ["read", "write"],
    }
    for replace in ((), ("--replace",)):
        out, _ = said(capsys, *come, "--variable", "OUR_TOKENS", *replace)
        assert out == "fl-server: is there already\nprometheus: is there already\n"
    with closing(open_store(url)) as store:
        assert store.api_tokens() == before


def test_a_new_token_takes_the_place_of_the_old_one_only_if_asked(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path
):
    """The old one is revoked; it cannot come back."""
    file = tmp_path / "tokens"
    come = ("tokens", "import", str(file), "--store", url)
    file.write_text(f"fl-server write {TOKEN}")
    said(capsys, *come)
    file.write_text(f"fl-server write {OTHER}")
    assert "revoke it first, or --replace" in said(capsys, *come, code=2)[1]
    assert "in place of the token before" in said(capsys, *come, "--replace")[0]
    with closing(open_store(url)) as store:
        states = {token.sha256: token.state(utc_now()) for token in store.api_tokens()}
    assert states == {digest_of(TOKEN): "revoked", digest_of(OTHER): "valid"}
    file.write_text(f"fl-server write {TOKEN}")
    _, err = said(capsys, *come, "--replace", code=2)
    assert "is revoked: draw a new one" in err
    file.write_text(f"site-b read {OTHER}")
    assert "is there as fl-server (write)" in said(capsys, *come, code=2)[1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a read", "LABEL SCOPE"),
        (f"a read {TOKEN} more", "LABEL SCOPE"),
        ("a read flt_short", "43 or more"),
        (f"a read flc_{'x' * 43}", "none of this interface"),
        (f"a all {TOKEN}", "write, read, admin"),
        (f"/a read {TOKEN}", "letters, digits"),
        (f"good read {TOKEN}", "stands twice"),
        (f"good read {OTHER}", "stands twice"),
    ],
)
def test_one_wrong_line_and_no_token_is_taken_in(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path, line: str, words: str
):
    """The line's number is told, its token never."""
    file = tmp_path / "tokens"
    file.write_text(f"good read {TOKEN}\n\n{line}\n")
    _, err = said(capsys, "tokens", "import", str(file), "--store", url, code=2)
    assert f"{file}:3: " in err
    assert words in err
    assert not any(token in err for token in (TOKEN, OTHER, "flt_short", "flc_x"))
    with closing(open_store(url)) as store:
        assert not store.api_tokens()


def test_pruning_names_the_runs_and_keeps_their_totals(
    capsys: pytest.CaptureFixture[str], url: str
):
    """Only those that ended so long ago; `runs list` shows them as before."""
    prune = ("prune", "--keep-totals", "--store", url, "--older-than")
    for older in ("11d", "2w", "264h"):
        assert said(capsys, *prune, older)[0] == ""
    assert said(capsys, *prune, "216h")[0] == f"{RUN_ID}\n"
    with closing(open_store(url)) as store:
        assert not list(store.rounds(RUN_ID))
    with pytest.raises(SystemExit):
        main(["runs", "list", "--store", url])
    assert "500.17 " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["runs", "show", RUN_ID, "--store", url])
    shown = capsys.readouterr().out
    assert "only its totals are kept" in shown
    assert "its rounds were pruned" in shown
    assert "no client took part" not in shown
    assert " 0 of " not in shown
    with pytest.raises(SystemExit):
        main(["runs", "export", RUN_ID, "--store", url])
    exported = capsys.readouterr()
    assert len(exported.out.splitlines()) == 1
    assert "were pruned" in exported.err


def test_pruning_without_totals_deletes_the_runs(capsys: pytest.CaptureFixture[str], url: str):
    """Only when it is meant (`--yes`, there is nobody to ask here); the id says that it was there.
    Where nothing is old enough, nobody is asked."""
    out, err = said(capsys, "prune", "--store", url, "--older-than", "999w")
    assert out == ""
    assert "deleted 0 of the runs" in err
    out, err = said(capsys, "prune", "--yes", "--store", url, "--older-than", "9d")
    assert out == f"{RUN_ID}\n"
    assert "deleted 1 of the runs" in err
    with closing(open_store(url)) as store, pytest.raises(RunDeleted):
        store.run(RUN_ID)


@pytest.mark.parametrize("how", [("--keep-totals",), ("--yes",)])
def test_what_a_service_has_not_acknowledged_is_not_pruned(
    capsys: pytest.CaptureFixture[str],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    how: tuple[str, ...],
):
    """The run is named, and stays until it is delivered, or until somebody insists."""
    service = "http://127.0.0.1:9"
    monkeypatch.setenv("FEDSERVER_TELEMETRY__SERVICE_URL", service)
    prune = ("prune", *how, "--store", url, "--older-than", "9d")
    out, err = said(capsys, *prune)
    assert out == ""
    assert f"kept {RUN_ID}" in err
    assert "telemetry flush" in err
    with closing(open_store(url)) as store:
        assert len(list(store.rounds(RUN_ID))) == 1
        store.mark_announced(service, RUN_ID)
    monkeypatch.delenv("FEDSERVER_TELEMETRY__SERVICE_URL")
    assert f"kept {RUN_ID}" in said(capsys, *prune)[1], "the service has heard of it"
    out, err = said(capsys, *prune, "--undelivered")
    assert out == f"{RUN_ID}\n"
    assert "kept" not in err


def test_migrate_says_where_a_database_stands(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Up makes it, check looks, history marks the place."""
    store = ("--store", f"sqlite:///{tmp_path}/new.db")
    assert "no such file" in said(capsys, "migrate", "check", *store, code=2)[1]
    assert f"schema {REVISION}, upgraded from nothing" in said(capsys, "migrate", *store)[0]
    assert "is up to date" in said(capsys, "migrate", "up", *store)[0]
    assert f"schema {REVISION}" in said(capsys, "migrate", "check", *store)[0]
    history = said(capsys, "migrate", "history", *store)[0]
    assert "0004  What the service needs" in history
    assert REVISION in history
    (tmp_path / "empty.db").touch()
    empty = f"sqlite:///{tmp_path}/empty.db"
    assert "nothing yet" in said(capsys, "migrate", "check", "--store", empty, code=1)[0]
