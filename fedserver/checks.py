"""What options say about one another: what can never work, and what may not work as it reads."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

from fedserver.errors import ConfigError, Problem
from fedserver.options import ServerConfig, TlsFiles, split_address
from fedserver.sources import Layer
from fedserver.tokens import TokenStore, TokenStoreError
from fedserver.tokens_file import TokenFile
from fedserver.value_checks import shown
from fedserver_hooks.allocation import ScopeUnavailable, choose
from fedserver_hooks.intensity import (
    IntensityTablesMissing,
    UnknownCountry,
    UnknownRegion,
    lookup,
)
from telemetry.domain import utc_now


def contradictions(config: ServerConfig, given: Layer) -> Iterator[Problem]:
    """What can never work, although every option by itself is fine."""
    for check in _CHECKS:
        for path, text in check(config):
            yield Problem(path, text, given.source(path))


Findings = Iterator[tuple[str, str]]


def _country(config: ServerConfig) -> Findings:
    emissions = config.emissions
    country = emissions.country
    try:
        lookup(country, emissions.region, emissions.carbon_intensity_g_per_kwh)
    except UnknownCountry as error:
        yield "emissions.country", str(error)
    except UnknownRegion as error:
        yield "emissions.region", str(error)
    except IntensityTablesMissing:  # without codecarbon only the form can be checked
        if country is not None and not re.fullmatch("[A-Z]{3}", country):
            yield (
                "emissions.country",
                (
                    f"unknown country {country!r}: must be a 3-letter code "
                    "(ISO 3166-1 alpha-3, upper case), such as ESP"
                ),
            )


def _scope(config: ServerConfig) -> Findings:
    if config.track_emissions:  # else nothing is metered, whatever it says
        try:
            choose(config.emissions.server_scope)
        except ScopeUnavailable as error:
            yield "emissions.server_scope", str(error)


def _open_address(config: ServerConfig) -> Findings:
    server = config.server
    host, _ = split_address(server.address)
    if server.auth == "none" and not server.allow_anonymous and not is_loopback(host):
        yield (
            "server.address",
            (
                f"{shown('', server.address)} is open to other machines and server.auth is none: "
                "anybody could train along; choices: server.auth: tokens, "
                "server.allow_anonymous: true, or a loopback address such as 127.0.0.1:5000"
            ),
        )


def _tokens(config: ServerConfig) -> Findings:
    server = config.server
    host, _ = split_address(server.address)
    if server.auth == "none":
        if server.tokens_file is not None:
            yield "server.tokens_file", "is not read while server.auth is none; set it to tokens"
        return
    if server.tls is None and not is_loopback(host):
        yield (
            "server.tls",
            (
                f"tokens would travel in plain text to {shown('', server.address)}; choices: "
                "server.tls: {certificate, key, ca}, server.tls: terminated-by-proxy (an ingress "
                "before this server ends TLS), or a loopback address such as 127.0.0.1:5000"
            ),
        )
    try:
        TokenStore(server.tokens_store).stored()
    except TokenStoreError as error:
        yield "server.tokens_store", str(error)
    try:
        if server.tokens_file is not None:
            TokenFile(server.tokens_file)
    except TokenStoreError as error:
        yield "server.tokens_file", str(error)


def _tls(config: ServerConfig) -> Findings:
    if isinstance(config.server.tls, TlsFiles):
        from fedserver import tls  # cryptography is loaded only where it is needed

        yield from tls.problems(config.server.tls, utc_now())


def _open_http(config: ServerConfig) -> Findings:
    http = config.telemetry.http
    if http.read_token_file is None and not is_loopback(http.host):
        yield (
            "telemetry.http.host",
            (
                f"{shown('', http.host)} is open to other machines without a token; choices: "
                "telemetry.http.read_token_file, or a loopback address such as 127.0.0.1"
            ),
        )


def _any_host(config: ServerConfig) -> Findings:
    http = config.telemetry.http
    if "*" in http.allowed_hosts and http.read_token_file is None:
        yield (
            "telemetry.http.allowed_hosts",
            '"*" answers to every name and needs telemetry.http.read_token_file',
        )


def _one_port_each(config: ServerConfig) -> Findings:
    host, port = split_address(config.server.address)
    http = config.telemetry.http
    everywhere = {"0.0.0.0", "::"}  # noqa: S104 compared only
    together = host == http.host or everywhere & {host, http.host}
    if port and port == http.port and together:
        yield "telemetry.http.port", f"{port} is the port of server.address too"


def _service(config: ServerConfig) -> Findings:
    telemetry = config.telemetry
    tokens = {
        "telemetry.service_token": telemetry.service_token,
        "telemetry.service_token_file": telemetry.service_token_file,
    }
    given = [path for path, value in tokens.items() if value is not None]
    if telemetry.service_url is None:
        for path in given:
            yield path, "is not read while telemetry.service_url is null"
        return
    if len(given) > 1:
        yield given[1], "telemetry.service_token is given, too: only one can hold"
        return
    if not given and not is_loopback(urlsplit(telemetry.service_url).hostname or ""):
        yield (
            "telemetry.service_url",
            (
                f"{shown('', telemetry.service_url)} is on another machine and needs a token; choices: "
                "telemetry.service_token_file, telemetry.service_token, or a loopback address"
            ),
        )
    if not telemetry.client_rows:
        yield (
            "telemetry.client_rows",
            (
                "false cannot be delivered to telemetry.service_url: the service adds up the rows of "
                "the clients itself and trusts no sums; choices: telemetry.client_rows: true, or "
                "telemetry.service_url: null"
            ),
        )
    try:
        telemetry.write_token()
    except ConfigError as error:
        for problem in error.problems:
            yield problem.path, problem.text


def _files(config: ServerConfig) -> Findings:
    initial = config.model.initial
    if initial is not None and initial.suffix != ".npz":
        yield "model.initial", f"{shown('', initial)} must be a .npz file, as numpy.savez writes it"
    elif initial is not None and not initial.is_file():
        yield "model.initial", f"{shown('', initial)}: there is no such file"
    try:
        config.telemetry.http.read_token()
    except ConfigError as error:
        for problem in error.problems:
            yield problem.path, problem.text
    output = config.model.output_dir
    if output.exists() and not output.is_dir():
        yield "model.output_dir", f"{shown('', output)} is a file, not a directory"


def _fleet(config: ServerConfig) -> Findings:
    strategy = config.strategy
    trained = config.cohort.trained_at_least
    if trained < strategy.smallest_fleet:
        yield (
            "clients.min_fit",
            (
                f"{config.clients.min_fit}: {strategy.name} with these options needs "
                f"{strategy.smallest_fleet} clients in every round ({strategy.fleet_rule}), and a "
                f"round may train {trained}; choices: {strategy.smallest_fleet} or more"
            ),
        )


def _privacy(config: ServerConfig) -> Findings:
    if config.privacy is not None:
        yield from config.privacy.contradictions(config)


def _budget(config: ServerConfig) -> Findings:
    emissions = config.emissions
    if emissions.budget_kg is not None and not config.track_emissions:
        yield (
            "emissions.budget_kg",
            (
                f"{emissions.budget_kg:g}: nobody would watch it; choices: track_emissions: true, "
                "or emissions.budget_kg: null"
            ),
        )
    if emissions.on_budget == "stop" and emissions.budget_kg is None:
        yield (
            "emissions.on_budget",
            '"stop" needs a budget; choices: emissions.budget_kg: a number of kg CO2eq, or '
            "emissions.on_budget: warn",
        )


_CHECKS: Final[tuple[Callable[[ServerConfig], Findings], ...]] = (
    _country,
    _scope,
    _open_address,
    _tokens,
    _tls,
    _open_http,
    _any_host,
    _one_port_each,
    _service,
    _files,
    _fleet,
    _privacy,
    _budget,
)


def notes(config: ServerConfig) -> Iterator[str]:
    """What works, but perhaps otherwise than it reads; fit for a warning at start."""
    clients = config.clients
    yield from _plain_service(config)
    yield from config.strategy.notes(config.cohort.trained_at_least)
    if clients.min_fit > clients.min_available:
        yield (
            f"clients.min_fit {clients.min_fit} is greater than clients.min_available "
            f"{clients.min_available}: a round waits for {clients.needed_to_train} clients"
        )
    if clients.fraction_evaluate and clients.needed_to_evaluate > clients.needed_to_train:
        yield (
            f"clients.min_evaluate {clients.min_evaluate}: a round is not evaluated with fewer "
            f"clients, although {clients.needed_to_train} are enough to train"
        )


def _plain_service(config: ServerConfig) -> Iterator[str]:
    url = urlsplit(config.telemetry.service_url or "")
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        yield (
            f"telemetry.service_url {config.telemetry.service_url} is not encrypted: whoever is on the "
            "way can read the token and what is delivered; https:// is"
        )


def open_to_anybody(config: ServerConfig) -> Iterator[str]:
    """The warning that stands for a refusal where open addresses are the way of the place."""
    server = config.server
    if server.auth == "none" and not is_loopback(split_address(server.address)[0]):
        yield (
            f"server.address {server.address} is open to other machines and server.auth is none: "
            "whoever can reach it may train along"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``; a name other than localhost counts as open."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
