"""Puts a recorder together from plain values: what `EmissionsStrategy.wrap` and servers share."""

from __future__ import annotations

import logging
import platform
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from fedserver_hooks.allocation import AllocatedMeter, ServerScope, choose
from fedserver_hooks.allocation.scope import in_words
from fedserver_hooks.clock import Clock
from fedserver_hooks.events import Watch
from fedserver_hooks.host import host_id
from fedserver_hooks.intensity import Intensity, IntensityTablesMissing, lookup
from fedserver_hooks.meter import CodeCarbonMeter, Meter, NullMeter
from fedserver_hooks.recorder import RoundRecorder
from telemetry.accounting import Rules
from telemetry.domain import Factors, OnBudget, RoundRecord, RunInfo, utc_now

if TYPE_CHECKING:
    from telemetry.store import Store

logger = logging.getLogger(__name__)

WORLD_AVERAGE_WITHOUT_TABLES = Intensity(
    g_per_kwh=475.0,
    source="world average (IEA 2019); codecarbon, which has the country tables, is not installed",
    year=2019,
    country=None,
    country_name=None,
)
_PACKAGES = ("fedserver-telemetry", "flwr", "codecarbon", "numpy")


def new_run_id(now: datetime | None = None) -> str:
    """``YYYYMMDD-HHMMSS-xxxxxx``: UTC start and six random hex digits."""
    return f"{now or utc_now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def software_versions() -> dict[str, str]:
    """Versions of what had a part in the figures, as far as it is installed, and of the system."""
    found = {"python": platform.python_version(), "os": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def factors_for(
    country: str | None,
    region: str | None = None,
    intensity_g_per_kwh: float | None = None,
    pue: float = 1.0,
    *,
    network_kwh_per_gb: float | None = None,
    impute_missing: bool = False,
) -> Factors:
    """The server's factors; raises `UnknownCountry` or `UnknownRegion` for one that nobody knows.

    Without codecarbon there are no tables to look into: the world average stands in, and is called
    so, for a missing package must not keep anybody from training.
    """
    try:
        intensity = lookup(country, region, intensity_g_per_kwh)
    except IntensityTablesMissing:
        intensity = WORLD_AVERAGE_WITHOUT_TABLES
    return Factors(
        server_carbon_intensity_g_per_kwh=intensity.g_per_kwh,
        intensity_source=intensity.source,
        intensity_year=intensity.year,
        country=intensity.country,
        pue=pue,
        network_kwh_per_gb=network_kwh_per_gb,
        impute_missing=impute_missing,
    )


def server_meter(
    country: str | None = None, region: str | None = None, scope: ServerScope = "auto"
) -> Meter:
    """codecarbon as the server's meter, of the whole machine or of our share of it; says which.

    Raises `ScopeUnavailable` where the share that ``scope`` asks for cannot be known here.
    """
    shares = choose(scope)
    logger.info("the server's figure is of: %s (server_scope: %s)", in_words(scope, shares), scope)
    machine = CodeCarbonMeter(country=country, region=region)
    return machine if shares is None else AllocatedMeter(machine, shares)


def resumed_recorder(
    store: Store,
    run_id: str,
    *,
    rules: Rules | None = None,
    meter: Meter,
    clock: Clock | None = None,
    on_round_closed: Callable[[RoundRecord], None] | None = None,
    watch: Watch | None = None,
) -> RoundRecorder:
    """A recorder that continues a stored run. Raises `RunNotFound` and `StoreError`."""
    attempts: dict[int, int] = {}
    rounds_before = 0
    for place, row in enumerate(store.rounds(run_id, closed_only=False), start=1):
        attempts[row.round] = max(attempts.get(row.round, 1), row.attempt + 1)
        rounds_before = max(rounds_before, place, row.sequence or 0)
    # Reports are matched to this machine as it is now: it may have been started again meanwhile.
    run = store.run(run_id).info.model_copy(update={"server_host_id": host_id(run_id)})
    return RoundRecorder(
        run,
        store,
        meter,
        rules=rules,
        clock=clock,
        on_round_closed=on_round_closed,
        attempts=attempts,
        rounds_before=rounds_before,
        watch=watch,
    )


def new_recorder(
    store: str | Store,
    *,
    strategy: str,
    run_name: str,
    run_id: str | None = None,
    privacy: str = "none",
    tracked: bool = True,
    country: str | None = None,
    factors: Factors | None = None,
    rounds_planned: int | None = None,
    metric_names: tuple[str, ...] = (),
    value_metric: str = "accuracy",
    budget_kg: float | None = None,
    on_budget: OnBudget = "warn",
    client_rows: bool = True,
    rules: Rules | None = None,
    meter: Meter | None = None,
    server_scope: ServerScope = "auto",
    clock: Clock | None = None,
    on_round_closed: Callable[[RoundRecord], None] | None = None,
    watch: Watch | None = None,
    software: Mapping[str, str] | None = None,
) -> RoundRecorder:
    """A recorder for a new run; opens the store when it is given as a URL.

    ``server_scope`` is what codecarbon's figure is to be of; a ``meter`` of one's own has its own.
    """
    factors = factors or factors_for(country)
    if meter is None:  # before the store: a scope that cannot be had leaves none open
        meter = server_meter(factors.country, scope=server_scope) if tracked else NullMeter()
    if isinstance(store, str):
        from telemetry.store import open_store  # only here: the hooks load no database layer

        store = open_store(store)
    started_at = utc_now()
    run_id = run_id or new_run_id(started_at)
    run = RunInfo(
        run_id=run_id,
        run_name=run_name,
        started_at=started_at,
        rounds_planned=rounds_planned,
        strategy=strategy,
        privacy=privacy,
        tracked=tracked,
        factors=factors,
        server_host_id=host_id(run_id),
        value_metric=value_metric,
        budget_kg=budget_kg,
        on_budget=on_budget,
        client_rows=client_rows,
        metric_names=metric_names,
        software=dict(software or software_versions()),
    )
    return RoundRecorder(
        run,
        store,
        meter,
        rules=rules,
        clock=clock,
        on_round_closed=on_round_closed,
        watch=watch,
    )
