"""The host rule: server and clients together never exceed what one meter per host would show.

Pure: from the accepted reports, what the server's meter says of its machine and who is on it, to what
each report counts for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, Final

from telemetry.accounting.judged import Accepted
from telemetry.domain import (
    GRAMS_PER_KG,
    Factors,
    Lap,
    ReportRecord,
    Scope,
    emissions_kg,
    metered_part,
    sum_known,
)

_SERVER: Final = "server"
_PARTIAL_SCOPES: Final = ("process", "allocation")
"""Scopes of a report that is no whole machine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMachine:
    """What the server's meter says about the machine that the server runs on, kWh."""

    whole_kwh: float
    """The machine's energy in the metered part of the round."""
    server_kwh: float
    """What of it is the server's: all of it in machine scope, before clients are split off."""
    metered: float
    """That part, as a share of the round."""
    scope: Scope
    """``machine``: clients on this machine are parts of the server's figure. ``allocation``: those in
    its container are. ``process``: none is."""

    @classmethod
    def of(cls, laps: Sequence[Lap], scope: Scope, duration_s: float) -> ServerMachine | None:
        """None where nothing is known of the whole machine."""
        whole = sum_known(lap.energy_kwh if scope == "machine" else lap.machine_kwh for lap in laps)
        own = sum_known(lap.energy_kwh for lap in laps)
        if whole is None or own is None:
            return None
        metered = metered_part(laps, duration_s)
        return cls(whole_kwh=whole, server_kwh=own, metered=metered, scope=scope)

    @property
    def share(self) -> float:
        """The server's part of the machine."""
        return min(1.0, self.server_kwh / self.whole_kwh) if self.whole_kwh > 0 else 1.0

    @property
    def most_inside_kwh(self) -> float:
        """What clients in the server's figure can have used in the whole round, at most.

        Their windows reach over the round, the meter saw a part of it: the machine is taken to have
        drawn as much in the rest.
        """
        return self.server_kwh / self.metered

    @property
    def most_beside_kwh(self) -> float:
        """The same of clients on this machine that are not in the server's figure."""
        return max(0.0, self.whole_kwh - self.server_kwh) / self.metered

    def holds(self, each: Accepted) -> bool:
        """Whether the server's figure holds what this client on the server's machine used.

        A loopback address is of the same network namespace: of the same container.
        """
        inside = self.scope == "allocation" and bool(each.received.loopback)
        return self.scope == "machine" or inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhood:
    """What tells which reports are of the server's own machine, and what they cost there."""

    server: ServerMachine | None
    """None where nothing is known of the machine: then it is a host like any other."""
    factors: Factors
    """The server's: a client that is split off its figure is converted as the server is."""
    server_host_id: str | None
    loopback_on_server_host: bool

    def host_of(self, each: Accepted) -> str | None:
        """The report's host; None where nobody knows which machine it is of."""
        host_id: str | None = each.raw["host_id"]
        if host_id is not None:
            return _SERVER if host_id == self.server_host_id else host_id
        if each.received.loopback and self.loopback_on_server_host:
            return _SERVER
        return None


def apply_host_rule(reports: Iterable[Accepted], around: Neighbourhood) -> list[ReportRecord]:
    """Each report with what it counts for, so that no host counts twice; in no particular order."""
    hosts: dict[str | None, list[Accepted]] = defaultdict(list)
    for each in reports:
        hosts[around.host_of(each)].append(each)
    server, factors = around.server, around.factors
    rows: list[ReportRecord] = []
    for host, members in hosts.items():
        if host is None:  # nobody knows which machine: each is counted in full
            rows += [_scaled(each, 1.0) for each in members]
        elif host == _SERVER and server is not None:
            inside = [each for each in members if server.holds(each)]
            beside = [each for each in members if not server.holds(each)]
            rows += _split_off(inside, server, factors) if inside else []
            rows += _beside(beside, server.most_beside_kwh, factors) if beside else []
        else:
            rows += _shared_host(members)
    return rows


def overlap_factor(windows: Sequence[tuple[float, float]]) -> float:
    """Union of the windows ÷ their sum: what machine-wide meters that ran side by side overstate by.

    1 for disjoint windows, 1/n for n equal ones (of no length, too).
    """
    if len(windows) == 1:
        return 1.0
    by_start = sorted(windows)  # also: the sums below do not depend on who replied first
    total_s = union_s = 0.0
    start, end = by_start[0]
    for window_start, window_end in by_start:
        total_s += window_end - window_start
        if window_start > end:
            union_s += end - start
            start, end = window_start, window_end
        elif window_end > end:
            end = window_end
    union_s += end - start
    return 1.0 / len(windows) if total_s <= 0 else min(1.0, union_s / total_s)


# --- one host ------------------------------------------------------------------------------------


def _overlap(members: Sequence[Accepted]) -> float:
    """What reports of one host are scaled by, each taken for its whole machine's.

    Not where all of them say that they are parts of it (``process``, ``allocation``): parts add up.
    A report of nothing claims no energy, so it has no overlap with anybody's.
    """
    if all(each.raw["scope"] in _PARTIAL_SCOPES for each in members):
        return 1.0
    claims = [m.window for m in members if m.raw["emissions_kg"] > 0 or m.raw["energy_kwh"]]
    return overlap_factor(claims) if claims else 1.0


def _shared_host(members: Sequence[Accepted]) -> list[ReportRecord]:
    """Reports from one host that is not the server's, or whose own meter is unknown."""
    factor = _overlap(members)
    return [_scaled(each, factor) for each in members]


def _scaled(each: Accepted, factor: float) -> ReportRecord:
    energy_kwh = each.raw["energy_kwh"]
    counted_kwh = None if energy_kwh is None else energy_kwh * factor
    return each.counting(counted_kwh, each.raw["emissions_kg"] * factor)


def _split_off(
    members: Sequence[Accepted], server: ServerMachine, factors: Factors
) -> list[ReportRecord]:
    """Reports that the server's own figure holds: parts of it, not additions to it.

    They are of the whole machine; where the server's figure is a share of it, so is theirs.
    """
    factor = _overlap(members) * server.share
    most_kwh = server.most_inside_kwh
    energies = [_energy_kwh(each.raw, factors) * factor for each in members]
    claimed = fsum(energies)
    scale = min(1.0, most_kwh / claimed) if claimed > 0 else 0.0
    return [
        each.counting(energy * scale, emissions_kg(energy * scale, factors), True)
        for each, energy in zip(members, energies, strict=True)
    ]


def _beside(members: Sequence[Accepted], most_kwh: float, factors: Factors) -> list[ReportRecord]:
    """Reports from the server's own host where the server's figure is a share of the machine's.

    They are added to it, but together they are no more than what the share leaves of the machine.
    """
    factor = _overlap(members)
    claimed = fsum(_energy_kwh(each.raw, factors) * factor for each in members)
    if claimed > most_kwh:
        factor *= most_kwh / claimed
    return [_scaled(each, factor) for each in members]


def _energy_kwh(raw: Mapping[str, Any], factors: Factors) -> float:
    """A report's energy; where it states none, converted from its emissions."""
    energy_kwh: float | None = raw["energy_kwh"]
    if energy_kwh is not None:
        return energy_kwh
    intensity: float = (
        raw["carbon_intensity_g_per_kwh"] or factors.server_carbon_intensity_g_per_kwh
    )
    said_kg: float = raw["emissions_kg"]
    return said_kg * GRAMS_PER_KG / intensity if intensity > 0 else 0.0
