"""Every option of the server with its type, range and default: the schema of ``server.yaml``.

Units stand in the names. Everything is strict: ``"5"`` is no number and ``"yes"`` no boolean.
What one option says about another is checked in `fedserver.checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
)
from pydantic_core import PydanticCustomError

from fedserver import auth, privacy, strategies
from fedserver.errors import ConfigError, Problem
from fedserver.strategies import FedAvgConfig
from fedserver_hooks.allocation import ServerScope
from telemetry.analysis.recost import MOST as MOST_FACTOR
from telemetry.store import BACKENDS

if TYPE_CHECKING:
    from fedserver.privacy import PrivacyConfig as AnyPrivacy
    from fedserver.strategies import StrategyConfig as AnyStrategy
else:
    AnyPrivacy = privacy.choice(privacy.MECHANISMS)
    AnyStrategy = strategies.choice(strategies.STRATEGIES)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[ipv6]:port``; ValueError if it is neither."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError("must be host:port, with a port from 0 to 65535")
    if not host or (":" in host and not bracketed):
        raise ValueError("must be host:port; 0.0.0.0 is every IPv4 address, [::1] an IPv6 one")
    return (host[1:-1] if bracketed else host), int(port)


def _address(value: str) -> str:
    try:
        split_address(value)
    except ValueError as error:
        raise PydanticCustomError("address", "{why}", {"why": str(error)}) from None
    return value


def _linger(value: object) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "forever" and not (number and 0 <= value < float("inf")):  # type: ignore[operator]
        raise PydanticCustomError("linger", "must be a number of 0 or more, or forever")
    return value


def _names(value: object) -> object:
    """A list of names; one text is taken apart at its commas."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(","))
    return tuple(value) if isinstance(value, list) else value


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("distinct", "names one metric twice")
    for reserved in ("emissions", "num-examples"):
        if reserved in names:
            raise PydanticCustomError(
                "reserved", "{name} is no training metric", {"name": reserved}
            )
    return names


def _database_url(value: str) -> str:
    scheme, colon, _ = value.partition("://")
    if not colon:
        raise PydanticCustomError("url", "must be a database URL such as sqlite:///telemetry.db")
    if scheme not in BACKENDS:
        raise PydanticCustomError(
            "scheme", "is no known kind of store; choices: {known}", {"known": ", ".join(BACKENDS)}
        )
    return value


def _service_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError:
        raise PydanticCustomError("service_url", "is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PydanticCustomError(
            "service_url", "must be an http:// or https:// URL, as in https://telemetry.example.org"
        )
    if "@" in parts.netloc:
        raise PydanticCustomError(
            "service_url", "must hold no user or password; the token is telemetry.service_token"
        )
    if parts.query or parts.fragment or any(c.isspace() for c in value):
        raise PydanticCustomError("service_url", "must end with the host, or a path")
    return value.rstrip("/")


Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(min_length=1, max_length=256)]
File = Annotated[Path, Field(strict=False)]  # strict would refuse the text that YAML gives
MetricNames = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=64)], ...],
    BeforeValidator(_names),
    AfterValidator(_distinct),
]


class Section(BaseModel):
    """Base of all sections: strict, immutable, no unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def _bad_token(path: str, text: str) -> ConfigError:
    return ConfigError([Problem(path, text, "")])


def _one_token(file: Path, path: str) -> str:
    """The one token that a file holds; ``path`` names the option. Raises `ConfigError`."""
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise _bad_token(path, f"{file} cannot be read: {why}") from None
    if not token or any(character.isspace() for character in token):
        raise _bad_token(path, f"{file} must hold one token and nothing else")
    return token


def _api_token(path: str, token: str) -> str:
    """A token that may be one of the service's; its value is in no message."""
    if token.startswith(auth.PREFIX):
        text = "holds a token of FL clients; the service has its own, of fedserver telemetry tokens"
        raise _bad_token(path, text)
    if not token.startswith(auth.API_PREFIX) or not (token.isascii() and token.isprintable()):
        text = f"holds no token of the service: those begin with {auth.API_PREFIX}"
        raise _bad_token(path, text)
    return token


class ClientsConfig(Section):
    """How many clients a round needs, and how long it waits for them."""

    min_fit: Count = 2
    min_evaluate: Count = 2
    min_available: Count = 2
    fraction_fit: Annotated[float, Field(gt=0, le=1)] = 1.0
    fraction_evaluate: Annotated[float, Field(ge=0, le=1)] = 1.0
    wait_timeout_s: Seconds | None = None
    max_failed_rounds: Count = 3

    @property
    def needed_to_train(self) -> int:
        """Connected clients from which a round can be trained: Flower takes the greater of both."""
        return max(self.min_available, self.min_fit)

    @property
    def trained_at_least(self) -> int:
        """Clients that a round trains, at least: more connected clients never make them fewer."""
        return max(self.min_fit, int(self.needed_to_train * self.fraction_fit))

    @property
    def needed_to_evaluate(self) -> int:
        """Connected clients from which a model can be evaluated; 0 where it never is."""
        return max(self.min_available, self.min_evaluate) if self.fraction_evaluate else 0


class ModelConfig(Section):
    """The model that training starts from, and where results go."""

    initial: File | None = None
    output_dir: File = Path("runs")


class TlsFiles(Section):
    """Files with the server's own certificate, in PEM form."""

    certificate: File
    key: File
    ca: File | None = None


BEHIND_PROXY: Final = "terminated-by-proxy"
TLS_STEPS: Final = ("files", "proxy")
"""Names that pydantic puts into the paths of what is wrong inside `Tls`."""


def _tls(value: object) -> object:
    if isinstance(value, Mapping | TlsFiles) or value in (None, BEHIND_PROXY):
        return value
    raise PydanticCustomError("tls", "must be {certificate, key, ca}, terminated-by-proxy or null")


Tls = Annotated[
    Annotated[TlsFiles, Tag("files")] | Annotated[Literal["terminated-by-proxy"], Tag("proxy")],
    Discriminator(lambda value: "proxy" if isinstance(value, str) else "files"),
]


class ServerSection(Section):
    """The gRPC endpoint that clients connect to."""

    address: Annotated[str, AfterValidator(_address)] = "127.0.0.1:5000"
    auth: Literal["none", "tokens"] = "none"
    allow_anonymous: bool = False
    tokens_store: File = Path("tokens.db")
    tokens_file: File | None = None
    tls: Annotated[Tls | None, BeforeValidator(_tls)] = None
    max_message_mb: Annotated[int, Field(ge=1, le=2047)] = 512  # gRPC's limit is 2 GiB - 1
    keepalive_s: Seconds = 30.0

    @property
    def behind_proxy(self) -> bool:
        """Whether a proxy ends TLS: connections then come from it, and say nothing of clients."""
        return self.tls == BEHIND_PROXY


class EmissionsConfig(Section):
    """How emissions are reckoned; read only where ``track_emissions`` is true."""

    country: Text | None = None
    region: Text | None = None
    carbon_intensity_g_per_kwh: Annotated[float, Field(ge=0, le=2000)] | None = None
    pue: Annotated[float, Field(ge=1, le=MOST_FACTOR)] = 1.0
    server_scope: ServerScope = "auto"
    loopback_clients: Literal["same_host", "separate"] = "same_host"
    network_kwh_per_gb: Annotated[float, Field(ge=0, le=MOST_FACTOR)] | None = None
    impute_missing: bool = False
    max_client_power_w: Annotated[float, Field(gt=0)] = 100_000.0
    value_metric: Text = "accuracy"
    budget_kg: Annotated[float, Field(gt=0)] | None = None
    on_budget: Literal["warn", "stop"] = "warn"


class HttpConfig(Section):
    """The small HTTP server for ``/metrics`` beside the FL server."""

    host: Text = "127.0.0.1"
    port: Port = 9464
    read_token_file: File | None = None
    allowed_hosts: Annotated[tuple[Text, ...], BeforeValidator(_names)] = ()
    linger_s: Annotated[float | Literal["forever"], BeforeValidator(_linger)] = 15.0

    def read_token(self) -> str | None:
        """The token that a scrape must show, from its file; None where none is asked for.

        Raises:
            ConfigError: the file cannot be read, is empty, or holds what can be guessed.
        """
        if self.read_token_file is None:
            return None
        path = "telemetry.http.read_token_file"
        token = _one_token(self.read_token_file, path)
        if len(token) < auth.MIN_CHARACTERS:
            text = f"{self.read_token_file} must hold a token of {auth.MIN_CHARACTERS} characters or more"
            raise _bad_token(path, text)
        return token


class TelemetryConfig(Section):
    """Where measurements are kept and shown."""

    database_url: Annotated[str, AfterValidator(_database_url)] = "sqlite:///telemetry.db"
    service_url: Annotated[Text, AfterValidator(_service_url)] | None = None
    service_token: SecretStr | None = None
    service_token_file: File | None = None
    http: HttpConfig = HttpConfig()
    metrics_rounds: Annotated[int, Field(ge=0)] = 200
    metrics_runs: Annotated[int, Field(ge=0)] = 5
    max_series: Count = 50_000
    client_rows: bool = True

    def write_token(self) -> str | None:
        """The token that is shown to the service, as it stands here or in its file; None without one.

        Raises:
            ConfigError: the file cannot be read, or what is there can be no token of the service.
        """
        if self.service_token is not None:
            return _api_token("telemetry.service_token", self.service_token.get_secret_value())
        if self.service_token_file is None:
            return None
        path = "telemetry.service_token_file"
        return _api_token(path, _one_token(self.service_token_file, path))


class ServerConfig(Section):
    """The whole configuration of a server."""

    run_name: Text = "digits"
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    rounds: Count = 5
    round_timeout_s: Seconds = 600.0
    clients: ClientsConfig = ClientsConfig()
    metrics: MetricNames = ("accuracy",)
    strategy: AnyStrategy = FedAvgConfig()
    privacy: AnyPrivacy | None = None
    model: ModelConfig = ModelConfig()
    server: ServerSection = ServerSection()
    track_emissions: bool = False
    emissions: EmissionsConfig = EmissionsConfig()
    telemetry: TelemetryConfig = TelemetryConfig()

    @property
    def cohort(self) -> ClientsConfig:
        """How clients are drawn: as configured, and as many as the noise of privacy is made for."""
        return self.clients if self.privacy is None else self.privacy.cohort(self.clients)


PATHS = (
    "model.initial",
    "model.output_dir",
    "server.tokens_store",
    "server.tokens_file",
    "server.tls.certificate",
    "server.tls.key",
    "server.tls.ca",
    "telemetry.service_token_file",
    "telemetry.http.read_token_file",
)
"""Options that name a file; one in a configuration file is relative to that file."""

SECRETS = frozenset({"telemetry.service_token"})
"""Options whose value is never shown."""
