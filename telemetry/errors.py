"""Everything this package raises.

TelemetryError
├─ RunNotFound(LookupError)      no run by that name; carries the candidates
│  └─ RunDeleted                a run of that id was deleted; carries when
├─ RunIsLive(ValueError)         a run that goes on cannot be deleted
├─ RowsNotKept(LookupError)      the run keeps no rows of clients; its sums are there
├─ RunExists(ValueError)         a run of that id is stored already, with other facts
├─ RunNotResumable(ValueError)  a run that goes on, or is complete, cannot be taken up again
├─ RoundConflict(ValueError)     a closed round was written again with other content
├─ EndConflict(ValueError)       a completed run was ended again otherwise
├─ RunPruned(ValueError)         of the run only its totals are kept; it takes no more rounds
├─ BadTokenFact(ValueError)      a label, scope or text that no token of the HTTP interface can have
├─ InvalidFactor(ValueError)     a number that no intensity, PUE or network factor can be
├─ HttpAddressError(OSError)     the HTTP address cannot be used; says why
├─ OpenAddress(ValueError)       an HTTP address that others can reach needs a read token
├─ ServiceAway                   the service does not answer as it should; a later try may help
├─ DeliveryRefused               the service will not have what was delivered; no other try will help
└─ StoreError                    the store could not be read or written
   ├─ ValueRefused               a value that the database cannot keep; no other try will help
   ├─ SchemaOutdated             an older schema; names the command to run
   └─ SchemaUnknown              a newer or foreign schema; never touched
"""

from __future__ import annotations

from datetime import datetime


class TelemetryError(Exception):
    """Base of every error raised by ``telemetry`` and ``fedserver_hooks``."""


class RunNotFound(TelemetryError, LookupError):
    """No stored run answers to ``wanted``; ``candidates`` are near misses."""

    def __init__(self, wanted: str, candidates: tuple[str, ...], where: str) -> None:
        self.wanted = wanted
        self.candidates = candidates
        self.where = where
        near = f"; runs there: {', '.join(candidates)}" if candidates else "; it holds no runs"
        super().__init__(f"no run {wanted!r} in {where}{near}")


class RunDeleted(RunNotFound):
    """A run of this id was deleted on purpose; it cannot be stored again."""

    def __init__(self, run_id: str, deleted_at: datetime, where: str) -> None:
        super().__init__(run_id, (), where)
        self.deleted_at = deleted_at
        self.args = (f"run {run_id} was deleted from {where} on {deleted_at:%Y-%m-%d %H:%M} UTC",)


class RunIsLive(TelemetryError, ValueError):
    """A server is at work on the run; it has to end before it can be deleted."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id} is running: end it before it is deleted")


class RowsNotKept(TelemetryError, LookupError):
    """Only sums and distributions of the run's clients are kept (``telemetry.client_rows: false``)."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id} keeps no rows of its clients, only sums")


class RunExists(TelemetryError, ValueError):
    """A run with this id is stored already and its facts differ."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id} is stored already, with other facts")


class RunNotResumable(TelemetryError, ValueError):
    """Only a run that ended before its time can be taken up again."""

    def __init__(self, run_id: str, status: str) -> None:
        self.run_id = run_id
        self.status = status
        why = "another server is at it" if status == "running" else "nothing is left to do"
        super().__init__(f"run {run_id} is {status}: {why}")


class RoundConflict(TelemetryError, ValueError):
    """A closed round never changes; this write would have changed it."""

    def __init__(self, run_id: str, round_number: int, attempt: int) -> None:
        self.run_id = run_id
        self.round_number = round_number
        self.attempt = attempt
        super().__init__(
            f"round {round_number} (attempt {attempt}) of run {run_id} is closed "
            "and was written again with other content"
        )


class EndConflict(TelemetryError, ValueError):
    """A completed run stays completed; this word would have ended it otherwise."""

    def __init__(self, run_id: str, status: str) -> None:
        self.run_id = run_id
        self.status = status
        super().__init__(f"run {run_id} is {status} and was ended again otherwise")


class RunPruned(TelemetryError, ValueError):
    """The run's rounds were deleted on purpose, so none can be compared or added."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id} was pruned: only its totals are kept")


class BadTokenFact(TelemetryError, ValueError):
    """What was asked for cannot be a token of the HTTP interface; the text says why."""


class InvalidFactor(TelemetryError, ValueError):
    """A number that cannot be the factor ``name``; it has to be from ``least`` to ``most``."""

    def __init__(self, name: str, value: object, least: float, most: float, meaning: str) -> None:
        self.name = name
        self.value = value
        self.least = least
        self.most = most
        self.problem = f"{value} is not possible; choose from {least:g} to {most:g} ({meaning})"
        super().__init__(f"{name}: {self.problem}")


class HttpAddressError(TelemetryError, OSError):
    """The HTTP address cannot be listened on: in use, not ours, or not to be resolved."""

    def __init__(self, host: str, port: int, problem: str) -> None:
        self.host = host
        self.port = port
        self.problem = problem
        super().__init__(f"cannot serve HTTP on {host} port {port}: {problem}")


class OpenAddress(TelemetryError, ValueError):
    """Other machines could read what is served on ``host``, and no token protects it."""

    def __init__(self, host: str, remedy: str = "set a read token") -> None:
        self.host = host
        super().__init__(f"HTTP on {host} can be reached from other machines: {remedy}")


class ServiceAway(TelemetryError):
    """The telemetry service cannot be reached, or does not answer as one; try again later.

    ``retry_after_s`` is what it asked for, seconds; None where it did not.
    """

    def __init__(self, problem: str, *, retry_after_s: float | None = None) -> None:
        self.problem = problem
        self.retry_after_s = retry_after_s
        super().__init__(problem)


class ServiceFault(ServiceAway):
    """The telemetry service says that it failed (500), perhaps at what was delivered alone."""


class DeliveryRefused(TelemetryError):
    """The telemetry service answered with a 4xx ``status``: the same again would be refused again."""

    def __init__(self, status: int, problem: str) -> None:
        self.status = status
        self.problem = problem
        super().__init__(f"the service answered {status}: {problem}")


class StoreError(TelemetryError):
    """The store could not be opened, read or written; ``url`` carries no password."""

    def __init__(self, url: str, problem: str) -> None:
        self.url = url
        self.problem = problem
        super().__init__(f"telemetry store {url}: {problem}")


class ValueRefused(StoreError):
    """The database cannot keep a value, such as a sum beyond 64 bits."""


class SchemaOutdated(StoreError):
    """The database has an older schema than this program."""


class SchemaUnknown(StoreError):
    """The database has a schema that this program does not know."""
