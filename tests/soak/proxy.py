"""What stands before a telemetry service and may do wrong with what it is to pass on."""

from __future__ import annotations

from email.message import Message

import httpx

from tests.service_double import Refused, ServiceDouble

PASSED_ON = ("Content-Type", "Authorization", "X-Request-ID")


class FaultyProxy(ServiceDouble):
    """Passes deliveries on to a service, unless ``always`` says what to do wrong."""

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.upstream = upstream
        self._to_service = httpx.Client(trust_env=False, timeout=30)

    def take(self, method: str, path: str, headers: Message, body: bytes) -> tuple[int, bytes]:
        """The service's own answer; 502 where it is away."""
        told = {name: headers[name] for name in PASSED_ON if name in headers}
        try:
            answer = self._to_service.request(
                method, f"{self.upstream}{path}", content=body, headers=told
            )
        except httpx.HTTPError as error:
            raise Refused(502, type(error).__name__) from error
        if answer.is_error:
            raise Refused(answer.status_code, answer.json().get("detail", ""))
        return answer.status_code, answer.content
