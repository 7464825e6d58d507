"""Where tokens are kept, and the command line that makes, lists and revokes them."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedserver.auth import KnownToken, digest_of, new_token
from fedserver.cli import app, main
from fedserver.errors import ConfigError
from fedserver.tokens import BadLabel, LabelInUse, TokenStore, TokenStoreError, UnknownLabel
from fedserver.tokens_cli import expiry
from fedserver.tokens_file import TokenFile
from telemetry.errors import TelemetryError
from tests.telemetry.hostile import PAYLOADS

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    """A store whose file is not there yet."""
    return TokenStore(tmp_path / "tokens.db")


# --- the store -----------------------------------------------------------------------------------


def test_a_token_is_kept_as_a_hash_in_a_file_for_its_owner_only(store: TokenStore) -> None:
    """What is stored is the label, the SHA-256 and dates; mode 0600, whatever the umask."""
    before = os.umask(0)
    try:
        token = store.create("hospital-a", now=NOW, expires_at=NOW + timedelta(days=1))
    finally:
        os.umask(before)
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert token.encode() not in store.path.read_bytes()
    assert store.tokens() == [
        KnownToken("hospital-a", digest_of(token), NOW + timedelta(days=1), revoked=False)
    ]


def test_a_file_that_is_not_there_holds_no_token(store: TokenStore) -> None:
    """Reading makes no file; the first token does."""
    assert store.tokens() == []
    store.used([b"x"], now=NOW)
    assert not store.path.exists()


def test_rights_that_are_too_wide_are_taken_back(store: TokenStore) -> None:
    """Another token makes the file its owner's again."""
    store.create("a", now=NOW)
    store.path.chmod(0o644)
    store.create("b", now=NOW)
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_a_label_has_one_token_at_a_time(store: TokenStore) -> None:
    """Once the first is revoked the label is free; its row stays."""
    store.create("a", now=NOW, expires_at=NOW + timedelta(hours=1))
    with pytest.raises(LabelInUse, match="there is a token labelled a"):
        store.create("a", now=NOW)
    with pytest.raises(LabelInUse, match="an expired token labelled a"):
        store.create("a", now=NOW + timedelta(hours=2))
    store.revoke("a", now=NOW)
    store.create("a", now=NOW)
    assert [token.state(NOW) for token in store.stored()] == ["revoked", "valid"]


@pytest.mark.parametrize("label", ["", " a", "a b", "-a", "a#2", "a\n", "é", "x" * 65, "a'--"])
def test_a_label_that_could_mislead_is_refused(store: TokenStore, label: str) -> None:
    """``#`` numbers clients of one name; spaces and controls could forge lines of a log."""
    with pytest.raises(BadLabel):
        store.create(label, now=NOW)


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize(
    "command",
    [("tokens", "create"), ("tokens", "revoke"), ("telemetry", "tokens", "create"), ("telemetry", "tokens", "revoke")],
    ids=" ".join,
)  # fmt: skip
def test_a_hostile_label_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], name: str
) -> None:
    """Of a client's token and of the service's: exit code 2, and the terminal is left in peace."""
    label = PAYLOADS[name]
    service = command[0] == "telemetry"
    file = tmp_path / "tokens.db"
    where = ("--store", f"sqlite:///{file}" if service else str(file))
    scope = ("--scope", "write") if service and command[-1] == "create" else ()
    named = (f"--label={label}",) if command[-1] == "create" else ("--", label)
    with pytest.raises(SystemExit) as ended:
        main([*command, *where, *scope, *named])
    out, err = capsys.readouterr()
    assert ended.value.code == 2, err
    assert out == ""
    assert "label" in err or "no token" in err
    assert all(c.isprintable() or c == "\n" for c in err), ascii(err)
    assert not [line for line in err.splitlines() if line.startswith(("ERROR forged", '{"level"'))]


def test_revoking_what_is_not_there_names_what_is(store: TokenStore) -> None:
    """Labels of tokens that hold are the choices."""
    with pytest.raises(UnknownLabel, match="it holds no token"):
        store.revoke("a", now=NOW)
    store.create("hospital-a", now=NOW)
    store.create("gone", now=NOW)
    store.revoke("gone", now=NOW)
    with pytest.raises(
        UnknownLabel, match=r"no token labelled 'hospital' in .*; labels: hospital-a"
    ):
        store.revoke("hospital", now=NOW)


def test_the_last_use_is_noted(store: TokenStore) -> None:
    """By hash, and for that token only."""
    token = store.create("a", now=NOW)
    store.create("b", now=NOW)
    store.used([digest_of(token)], now=NOW + timedelta(hours=1))
    assert [t.last_used_at for t in store.stored()] == [NOW + timedelta(hours=1), None]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Neither another program's database nor a text file is read or changed."""
    other = tmp_path / "telemetry.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE runs (x)")
    database.close()
    text = tmp_path / "notes.txt"
    text.write_text("not a database, not by far" * 10)
    for path in (other, text):
        content = path.read_bytes()
        with pytest.raises(TokenStoreError):
            TokenStore(path).tokens()
        with pytest.raises(TokenStoreError):
            TokenStore(path).create("a", now=NOW)
        assert path.read_bytes() == content
    with pytest.raises(TokenStoreError, match="cannot be written"):
        TokenStore(tmp_path / "nowhere" / "tokens.db").create("a", now=NOW)


def test_a_later_version_of_the_file_is_not_touched(store: TokenStore) -> None:
    """It says so, instead of misreading it."""
    store.create("a", now=NOW)
    with sqlite3.connect(store.path) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(TokenStoreError, match="later version"):
        store.tokens()


def test_programs_write_at_the_same_time(store: TokenStore) -> None:
    """Ten writers at once each make their token."""
    threads = [
        threading.Thread(target=store.create, args=(f"client-{number}",), kwargs={"now": NOW})
        for number in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.tokens()) == 10


# --- the file ------------------------------------------------------------------------------------


def test_a_file_has_one_token_a_line(tmp_path: Path) -> None:
    """Comments and empty lines are passed over; a second word is the label."""
    path = tmp_path / "tokens.txt"
    path.write_text("# ours\n\n0123456789abcdef0123456789abcdef\nfedcba9876543210  hospital-b\n")
    first, second = TokenFile(path).tokens()
    assert first.label == f"file-{first.digest.hex()[:8]}"
    assert second == KnownToken("hospital-b", digest_of("fedcba9876543210"))


def test_a_change_of_the_file_is_taken_once_it_stands(tmp_path: Path) -> None:
    """A file that is being rewritten in place does not revoke everybody for a moment."""
    path = tmp_path / "tokens.txt"
    path.write_text("0123456789abcdef one\n")
    file = TokenFile(path)
    path.write_text("")
    file.look()
    assert [token.label for token in file.tokens()] == ["one"]
    path.write_text("0123456789abcdef one\nfedcba9876543210 two\n")
    file.look()
    assert [token.label for token in file.tokens()] == ["one"]
    file.look()
    assert [token.label for token in file.tokens()] == ["one", "two"]
    path.write_text("fedcba9876543210 two\n")
    file.reload()
    assert [token.label for token in file.tokens()] == ["two"]


def test_a_file_that_went_away_leaves_its_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once; the tokens that were read last still hold, and a new file is read."""
    path = tmp_path / "tokens.txt"
    path.write_text("0123456789abcdef one\n")
    file = TokenFile(path)
    path.unlink()
    for _ in range(3):
        file.look()
    assert [token.label for token in file.tokens()] == ["one"]
    assert len([r for r in caplog.records if "still hold" in r.message]) == 1
    path.write_text("fedcba9876543210 two\n")
    file.look()
    file.look()
    assert [token.label for token in file.tokens()] == ["two"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("short", "line 1: a token must have at least 16 characters"),
        (f"\n{'x' * 20} a b", "line 2: must be a token, or a token and a label"),
        (f"{'x' * 600}", "line 1: must be a token, or a token and a label"),
        (f"flt_{'x' * 20}", "line 1: a token of the HTTP API"),
        ("töken-töken-töken", "something else than plain text"),
    ],
)
def test_a_wrong_line_is_named_and_not_shown(tmp_path: Path, text: str, problem: str) -> None:
    """By number: the text may be a token."""
    path = tmp_path / "tokens.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TokenStoreError, match=problem) as refused:
        TokenFile(path)
    assert text.split()[0] not in str(refused.value)


# --- the command line ----------------------------------------------------------------------------

Tokens = Callable[..., Any]


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    """Runs ``fedserver tokens …`` in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["tokens", *arguments])


def test_create_list_revoke(tokens: Tokens, tmp_path: Path) -> None:
    """The token is printed alone and once; the list has its label, dates and state."""
    created = tokens("create", "--label", "hospital-a", "--expires", "30d")
    token = created.stdout.strip()
    assert TokenStore(tmp_path / "tokens.db").tokens()[0].digest == digest_of(token)
    assert "not shown again" in created.stderr
    assert token not in created.stderr
    listed = tokens("list").stdout
    assert token not in listed
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["hospital-a", "valid"]]
    assert tokens("revoke", "hospital-a").exit_code == 0
    assert "revoked" in tokens("list").stdout.splitlines()[1]


def test_nothing_to_list(tokens: Tokens) -> None:
    """It says where it looked."""
    assert tokens("list").stdout.startswith("no tokens in")


def test_the_file_is_that_of_the_configuration(
    tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--store over environment over -c over ./server.yaml; a relative path is relative to the file.

    The rest of the configuration need not be right: certificates often come after tokens.
    """
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "fl.yaml").write_text("server: {tokens_store: mine.db, tls: {certificate: no.pem}}\n")
    tokens("create", "--label", "a", "-c", str(folder / "fl.yaml"))
    (tmp_path / "server.yaml").write_text("server: {tokens_store: here.db}\n")
    tokens("create", "--label", "b")
    monkeypatch.setenv("FEDSERVER_SERVER__TOKENS_STORE", str(tmp_path / "env.db"))
    tokens("create", "--label", "c", "-c", str(folder / "fl.yaml"))
    tokens("create", "--label", "d", "--store", str(tmp_path / "given.db"))
    found = {
        path.name: [token.label for token in TokenStore(path).tokens()]
        for path in tmp_path.rglob("*.db")
    }
    assert found == {"mine.db": ["a"], "here.db": ["b"], "env.db": ["c"], "given.db": ["d"]}


@pytest.mark.parametrize(
    "arguments",
    [
        ("revoke", "nobody"),
        ("create", "--label", "a b"),
        ("create", "--label", "a", "--expires", "x"),
    ],
)
def test_a_mistake_is_an_error_of_ours(tokens: Tokens, arguments: tuple[str, ...]) -> None:
    """`main` turns these into a message and exit code 2, without a traceback."""
    assert isinstance(tokens(*arguments).exception, TelemetryError)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("4w", timedelta(weeks=4)),
        ("2026-01-01", timedelta(hours=12)),
    ],
)
def test_expiry_is_a_duration_or_a_day(text: str, after: timedelta) -> None:
    """A token holds to the end of the day that is named."""
    assert expiry(text, NOW) == NOW + after


@pytest.mark.parametrize(
    "text", ["", "0d", "-1d", "30", "1y", "2025-12-31", "2026-02-30", "9999-12-31"]
)
def test_an_expiry_that_is_none_is_refused(text: str) -> None:
    """So that nobody gets a token that never expires by mistake, nor one that has."""
    with pytest.raises(ConfigError, match="--expires"):
        expiry(text, NOW)


def test_a_token_is_never_part_of_a_representation(store: TokenStore) -> None:
    """What a log may show of a stored token has neither token nor hash."""
    token = new_token()
    store.create("a", now=NOW)
    assert "digest" not in repr(store.stored()[0])
    assert token not in repr(KnownToken("a", digest_of(token)))
