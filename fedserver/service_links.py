"""The variables that Kubernetes sets in a pod for each service, in the form of Docker's links.

A service called ``fedserver`` (or ``fedserver-…``) makes variables that begin like ours:
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final

_SERVICE: Final = r"FEDSERVER(?:_[A-Z0-9]+)*"  # never two underscores: those are our nesting
_PORT: Final = r"_PORT_(?P<port>\d{1,5})_(?P<protocol>TCP|UDP|SCTP)"
_URL: Final = re.compile(r"(?P<protocol>tcp|udp|sctp)://(?P<address>[^/@]+):(?P<port>\d{1,5})")


def _is_address(_: re.Match[str], value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(_: re.Match[str], value: str) -> bool:
    return re.fullmatch(r"\d{1,5}", value, re.ASCII) is not None and 0 < int(value) < 2**16


def _is_url(name: re.Match[str], value: str) -> bool:
    url = _URL.fullmatch(value)
    if url is None or not _is_address(name, url["address"].strip("[]")):
        return False
    said = name.groupdict()  # ``…_PORT`` alone says neither
    return said.get("port") in (None, url["port"]) and (
        said.get("protocol", "").lower() in ("", url["protocol"])
    )


def _is_same_port(name: re.Match[str], value: str) -> bool:
    return value == name["port"]


def _is_same_protocol(name: re.Match[str], value: str) -> bool:
    return value == name["protocol"].lower()


_FORMS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str], bool]], ...]] = tuple(
    (re.compile(_SERVICE + rest, re.ASCII), fits)
    for rest, fits in (
        ("_SERVICE_HOST", _is_address),
        (r"_SERVICE_PORT(?:_[A-Z0-9]+)*", _is_port),
        ("_PORT", _is_url),
        (_PORT, _is_url),
        (f"{_PORT}_PROTO", _is_same_protocol),
        (f"{_PORT}_PORT", _is_same_port),
        (f"{_PORT}_ADDR", _is_address),
    )
)


def is_service_link(name: str, value: str) -> bool:
    """Whether a variable is Kubernetes' own: one of its names, with a value as it writes them."""
    return any(
        (match := form.fullmatch(name)) is not None and fits(match, value) for form, fits in _FORMS
    )
