"""Certificates and tokens in the configuration: what is wrong is said before the port opens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedserver import tls
from fedserver.config import LoadedConfig, load_config
from fedserver.errors import ConfigError
from fedserver.options import TlsFiles
from tests.fedserver.pki import Files, make_files

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Good ones."""
    return make_files(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LoadedConfig]:
    """Loads these options of ``server``."""

    def load_server(environ: dict[str, str] | None = None, **server: Any) -> LoadedConfig:
        path = tmp_path / "server.yaml"
        path.write_text(yaml.safe_dump({"server": server}))
        return load_config(path, environ or {}, {})

    return load_server


Load = Callable[..., LoadedConfig]


def refusal(load: Load, **server: Any) -> str:
    """The message with which these are refused."""
    with pytest.raises(ConfigError) as refused:
        load(**server)
    return str(refused.value)


def options_of(files: Files, **others: Path) -> TlsFiles:
    """``server.tls`` as the schema reads it."""
    paths = {"certificate": files.certificate, "key": files.key, "ca": files.ca} | others
    return TlsFiles(**paths)


def test_good_files_are_loaded_as_they_are(files: Files) -> None:
    """PEM texts in the order that the grid takes, and the day on which they end."""
    loaded = tls.load(options_of(files), NOW)
    assert (loaded.authority, loaded.certificate, loaded.key) == files.texts
    assert (loaded.expires_at - NOW).days in (88, 89)


def test_a_chain_is_judged_by_any_of_its_links(files: Files, tmp_path: Path) -> None:
    """The file often holds the intermediate authorities, too."""
    chain = tmp_path / "chain.pem"
    chain.write_bytes(files.certificate.read_bytes() + files.ca.read_bytes())
    assert tls.load(options_of(files, certificate=chain), NOW).certificate == chain.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f, _: {"certificate": f.key},
            "server.tls.certificate: .*holds no certificate in PEM",
        ),
        (lambda f, _: {"key": f.certificate}, "server.tls.key: .*holds no private key in PEM form"),
        (lambda _, d: {"key": make_files(d / "o").key}, "is not the key of the certificate"),
        (lambda _, d: {"ca": make_files(d / "o").ca}, "server.tls.ca: .* has not issued the cert"),
        (lambda _, d: {"key": d / "none"}, "server.tls.key: .*/none cannot be read: no such file"),
        (lambda _, d: {"ca": d}, "server.tls.ca: .* cannot be read: is a directory"),
    ],
)
def test_files_that_do_not_fit_are_named(
    load: Load, files: Files, tmp_path: Path, change: Any, message: str
) -> None:
    """The key of the option, the file, and what is wrong with it."""
    given = files.options | {key: str(path) for key, path in change(files, tmp_path).items()}
    with pytest.raises(ConfigError, match=message):
        load(tls=given)


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        ({"begins_in": timedelta(days=-9), "lasts": timedelta(days=8)}, "server.pem expired on 20"),
        ({"begins_in": timedelta(days=1)}, "server.pem holds only from 20"),
        ({"passphrase": b"x"}, "server.key is encrypted: gRPC needs a key without passphrase"),
    ],
)
def test_files_that_no_client_would_take_are_refused(
    load: Load, tmp_path: Path, dates: Any, message: str
) -> None:
    """Out of date, or locked."""
    assert message in refusal(load, tls=make_files(tmp_path / "pki", **dates).options)


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (
            {"tls": "yes"},
            'server.tls: "yes" must be {certificate, key, ca}, terminated-by-proxy or null',
        ),
        ({"tls": 3}, "server.tls: 3 must be {certificate, key, ca}, terminated-by-proxy or null"),
        ({"tls": {"certificate": "a.pem"}}, "server.tls.key: is missing ("),
        (
            {"tls": {"certificate": "a", "key": "b", "cert": "c"}},
            "server.tls.cert: unknown key; choices: ca, certificate, key",
        ),
        ({"tls": {"certificate": 3, "key": "b"}}, "server.tls.certificate: 3 must be the name of"),
        (
            {"auth": "tokens", "address": "0.0.0.0:5000"},
            'server.tls: tokens would travel in plain text to "0.0.0.0:5000"; choices: server.tls: '
            "{certificate, key, ca}, server.tls: terminated-by-proxy",
        ),
        ({"tokens_file": "t"}, "server.tokens_file: is not read while server.auth is none"),
        ({"auth": "tokens", "tokens_file": "t"}, "t: cannot be read: no such file"),
        ({"auth": "tokens", "tokens_file": "server.yaml"}, "line 1: "),
        ({"auth": "tokens", "tokens_store": "server.yaml"}, "file is not a database"),
        ({"address": "0.0.0.0:5000"}, "choices: server.auth: tokens, server.allow_anonymous: true"),
    ],
)
def test_what_cannot_work_names_the_way_out(load: Load, server: Any, message: str) -> None:
    """Key, value and choices, before anything is started."""
    assert message in refusal(load, **server)


def test_what_works_is_accepted(load: Load, files: Files) -> None:
    """Tokens with own certificates or behind a proxy on any address; on loopback without."""
    open_address = {"auth": "tokens", "address": "0.0.0.0:5000"}
    assert load(**open_address, tls=files.options).config.server.tls == options_of(files)
    assert load(**open_address, tls="terminated-by-proxy").config.server.behind_proxy
    assert not load(auth="tokens").config.server.behind_proxy


def test_files_are_relative_and_every_value_has_a_source(
    load: Load, files: Files, tmp_path: Path
) -> None:
    """As for every other file; a variable of the environment holds over the file."""
    make_files(tmp_path / "pki")
    loaded = load(
        {"FEDSERVER_SERVER__TLS__KEY": str(tmp_path / "pki" / "server.key")},
        tls={"certificate": "pki/server.pem", "key": "no.key"},
    )
    rows = {path: (value, source) for path, value, source in loaded.rows()}
    assert rows["server.tls.certificate"][0] == f'"{tmp_path}/pki/server.pem"'
    assert "server.yaml" in rows["server.tls.certificate"][1]
    assert rows["server.tls.key"][1] == "FEDSERVER_SERVER__TLS__KEY"
    assert rows["server.tls.ca"] == ("null", "default")
