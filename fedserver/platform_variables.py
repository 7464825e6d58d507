"""The variables that the platform's deployment form sets, as a layer of configuration.

A pure mapping: variables in, options out. All values arrive as text. A variable that is empty or not
there has the form's own default; one outside its range is a problem that names the variable, the
value and the choices.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from fedserver.errors import Problem
from fedserver.sources import Layer

DEFAULT: Final = "the platform's default"
"""Source of an option that no variable names."""
READ_TOKEN_FILE: Final = "read-token"  # noqa: S105 - the name of the file
"""Where `fedserver.server` keeps the token for ``/metrics``, in the working directory."""

STRATEGIES: Final[Mapping[str, str]] = {
    "Federated Averaging (FedAvg)": "FedAvg",
    "FedProx strategy (FedProx)": "FedProx",
    "Federated Optimization with Adam (FedAdam)": "FedAdam",
    "Federated Median (FedMedian)": "FedMedian",
    "Federated Averaging with Momentum (FedAvgM)": "FedAvgM",
    # The form and the server before this one spell these two differently.
    "Adaptive Federated Optimization (FedOpt)": "FedOpt",
    "Federated Optimization (FedOpt)": "FedOpt",
    "Adaptive Federated Optimization using Yogi (FedYogi)": "FedYogi",
    "Federated Optimization using Yogi (FedYogi)": "FedYogi",
    "Federated Adaptive Optimization using Yogi (FedYogi)": "FedYogi",
    "FedAvgOpt": "FedAvgOpt",
}
"""The form's names of strategies, and ours."""
COUNTRIES: Final[Mapping[str, str]] = {"iisas-ai4eosc": "SVK", "psnc-ai4eosc": "POL"}
"""Country of each data centre that is not in Spain."""
SPAIN: Final = "ESP"


@dataclass(slots=True)
class _Reader:
    """Reads variables one by one and keeps what is wrong with them."""

    environ: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)

    def given(self, name: str) -> str | None:
        """The text of a variable, None where it is empty or not there."""
        return self.environ.get(name, "").strip() or None

    def read(self, name: str, default: Any, parse: Callable[[str], Any], wanted: str) -> Any:
        """A variable's value by ``parse``, which raises ValueError for what is not ``wanted``."""
        text = self.given(name)
        if text is None:
            return default
        try:
            return parse(text)
        except (ValueError, SyntaxError):
            shown = text if len(text) <= 60 else f"{text[:60]}…"
            self.problems.append(Problem(name, f"{shown!r} must be {wanted}", "the platform"))
            return default

    def whole(self, name: str, default: int, least: int) -> int:
        """A whole number from ``least`` on."""

        def parse(text: str) -> int:
            if not (text.isascii() and text.isdecimal()) or int(text) < least:
                raise ValueError
            return int(text)

        return int(self.read(name, default, parse, f"a whole number of {least} or more"))

    def number(self, name: str, default: float, least: float) -> float:
        """A finite number from ``least`` on."""

        def parse(text: str) -> float:
            value = float(text)
            if not math.isfinite(value) or value < least:
                raise ValueError
            return value

        return float(self.read(name, default, parse, f"a number of {least:g} or more"))

    def flag(self, name: str) -> bool:
        """True or False; no other word counts as either."""
        words = {"True": True, "true": True, "False": False, "false": False}

        def parse(text: str) -> bool:
            if text not in words:
                raise ValueError
            return words[text]

        return bool(self.read(name, False, parse, "True or False"))


@dataclass(frozen=True, slots=True)
class Platform:
    """What the platform says: a layer, and what in it may not work as it reads."""

    layer: Layer
    notes: tuple[str, ...] = ()


def from_platform(environ: Mapping[str, str]) -> Platform:
    """The options that the form's variables stand for; those that none names are not in it."""
    reader = _Reader(environ)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def put(path: str, value: Any, variable: str) -> None:
        *sections, name = path.split(".")
        at = values
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = value
        sources[path] = variable if reader.given(variable) is not None else DEFAULT

    for path, variable, value in (
        ("rounds", "FEDERATED_ROUNDS", reader.whole("FEDERATED_ROUNDS", 5, 1)),
        ("metrics", "FEDERATED_METRIC", _metrics(reader)),
        ("clients.min_fit", "FEDERATED_MIN_FIT_CLIENTS",
         reader.whole("FEDERATED_MIN_FIT_CLIENTS", 2, 2)),
        ("clients.min_available", "FEDERATED_MIN_AVAILABLE_CLIENTS",
         reader.whole("FEDERATED_MIN_AVAILABLE_CLIENTS", 2, 2)),
        ("track_emissions", "CODE_CARBON", reader.flag("CODE_CARBON")),
    ):  # fmt: skip
        if reader.given(variable) is not None:
            put(path, value, variable)
    centre = reader.given("NOMAD_DC")
    if centre is not None:
        put("emissions.country", COUNTRIES.get(centre, SPAIN), "NOMAD_DC")
    _strategy(reader, put)
    notes = _privacy(reader, put)
    return Platform(Layer(values, sources, tuple(reader.problems)), tuple(notes))


def _metrics(reader: _Reader) -> list[str]:
    """A name, or a Python list literal of names."""

    def parse(text: str) -> list[str]:
        names = ast.literal_eval(text) if text[0] in "[(" else text.split(",")
        if not isinstance(names, list | tuple) or not names:
            raise ValueError
        if not all(isinstance(name, str) and name.strip() for name in names):
            raise ValueError
        return [name.strip() for name in names]

    wanted = "the name of a metric, or a list of names such as ['accuracy', 'f1']"
    names: list[str] = reader.read("FEDERATED_METRIC", ["accuracy"], parse, wanted)
    return names


def _strategy(reader: _Reader, put: Callable[[str, Any, str], None]) -> None:
    """The strategy, and the options of the two that the form has fields for."""
    short = sorted(set(STRATEGIES.values()))

    def parse(text: str) -> str:
        if text in STRATEGIES:
            return STRATEGIES[text]
        bracketed = text.rpartition("(")[2].rstrip(")").strip()
        if bracketed in short:  # whatever the words before it
            return bracketed
        raise ValueError

    near = get_close_matches(reader.given("FEDERATED_STRATEGY") or "", STRATEGIES, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    wanted = f"one of {', '.join(repr(name) for name in STRATEGIES)} or {', '.join(short)}{hint}"
    name = reader.read("FEDERATED_STRATEGY", None, parse, wanted)
    mu = reader.number("MU_FEDPROX", 1.0, 0.0)
    rate = reader.number("FEDAVGM_SERVER_FL", 1.0, 0.0)
    momentum = reader.number("FEDAVGM_SERVER_MOMENTUM", 0.0, 0.0)
    if name is not None:
        put("strategy.name", name, "FEDERATED_STRATEGY")
    if name == "FedProx":
        put("strategy.proximal_mu", mu, "MU_FEDPROX")
    if name == "FedAvgM":
        put("strategy.server_learning_rate", rate, "FEDAVGM_SERVER_FL")
        put("strategy.server_momentum", momentum, "FEDAVGM_SERVER_MOMENTUM")


def _privacy(reader: _Reader, put: Callable[[str, Any, str], None]) -> list[str]:
    """The privacy mechanism; returns what is to be noted."""
    private, by_metric = reader.flag("DP"), reader.flag("METRIC_PRIVACY")
    noise = reader.number("NOISE_MULT", 1.0, 0.00001)
    sampled = reader.whole("SAMPLED_CLIENTS", 2, 2)
    clip = reader.number("CLIP_NORM", 0.1, 0.1)
    if private:
        mechanism = "metric-privacy" if by_metric else "central-dp"
        put("privacy.mechanism", mechanism, "METRIC_PRIVACY" if by_metric else "DP")
        put("privacy.noise_multiplier", noise, "NOISE_MULT")
        put("privacy.clipping_norm", clip, "CLIP_NORM")
        put("privacy.num_sampled_clients", sampled, "SAMPLED_CLIENTS")
    elif by_metric:
        return ["METRIC_PRIVACY is True and DP is not: nothing is made private; set DP to True"]
    return []


def below(platform: Layer, upper: Layer) -> Layer:
    """The platform's layer under ``upper``, without what would mix with a choice made there.

    Another strategy or mechanism does not take the options of the one that the form chose.
    """
    values = dict(platform.values)
    strategy = upper.values.get("strategy")
    own = values.get("strategy", {})
    if isinstance(strategy, Mapping) and strategy.get("name", own.get("name")) != own.get("name"):
        values.pop("strategy", None)
    if "privacy" in upper.values:
        values.pop("privacy", None)
    kept = {p: s for p, s in platform.sources.items() if p.partition(".")[0] in values}
    return Layer(values, kept, platform.problems)


def deployment(directory: Path) -> Layer:
    """How a server stands inside a deployment: its ports, open to the ingress.

    Lower than everything else. Port 5000 takes anybody, as it does there today, with a warning, and
    speaks plain HTTP/2 behind the ingress, which ends TLS;
    port 6006 wants the token in `READ_TOKEN_FILE`, whatever name the ingress asks for.
    """
    values = {
        "server": {
            "address": "0.0.0.0:5000",
            "allow_anonymous": True,
            "tls": "terminated-by-proxy",
        },
        "telemetry": {
            "http": {
                "host": "0.0.0.0",  # noqa: S104 - the ingress comes from outside, with a token
                "port": 6006,
                "read_token_file": str(directory / READ_TOKEN_FILE),
                "allowed_hosts": ["*"],
            }
        },
    }
    http = "telemetry.http."
    paths = ("server.address", "server.allow_anonymous", "server.tls", http + "host", http + "port",
             http + "read_token_file", http + "allowed_hosts")  # fmt: skip
    return Layer(values, dict.fromkeys(paths, DEFAULT))
