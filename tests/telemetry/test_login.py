"""The way in to the pages for people, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry

from telemetry.service.sessions import COOKIE, LIFETIME_S, MAX_SESSIONS, Sessions
from telemetry.store.memory import InMemoryStore
from telemetry.testing import ManualClock
from tests.telemetry.pages import Shown, refusals, served, two_rounds
from tests.telemetry.test_http import TOKEN, assert_problem


@pytest.fixture
def store() -> InMemoryStore:
    """A run with two rounds."""
    return two_rounds()


@pytest.fixture
def guarded(store: InMemoryStore) -> Iterator[tuple[httpx.Client, CollectorRegistry]]:
    """A server with a read token."""
    with served(store, read_token=TOKEN) as found:
        yield found


def test_login(guarded: tuple[httpx.Client, CollectorRegistry]) -> None:
    """To the form, with the token to the page, and from then on by a cookie that is not the token."""
    client, registry = guarded
    sent = client.get("/")
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")
    form = Shown(client.get("/login").text)
    fields = [found for tag, found in form.tags if tag == "input"]
    assert [(found["type"], found["name"]) for found in fields] == [("password", "token")]
    assert ("form", {"method": "post", "action": "/login"}) in form.tags
    answer = client.post("/login", data={"token": f" {TOKEN}\n"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    value, *flags = answer.headers["set-cookie"].split("; ")
    assert value.startswith(f"{COOKIE}=")
    assert len(value) > 40
    assert TOKEN not in value
    assert {flag.lower() for flag in flags} == {
        "httponly", "samesite=strict", "path=/", f"max-age={LIFETIME_S}",
    }  # fmt: skip
    assert client.get("/").status_code == 200
    assert client.get("/metrics").status_code == 200
    assert client.get("/login").headers["location"] == "/"
    assert refusals(registry) == 0


@pytest.mark.parametrize(
    ("forwarded", "secure"), [("https", True), ("HTTPS, http", True), ("http", False), ("", False)]
)
def test_the_cookie_of_an_https_page_stays_on_https(
    guarded: tuple[httpx.Client, CollectorRegistry], forwarded: str, secure: bool
) -> None:
    """As the proxy before the server says."""
    headers = {"X-Forwarded-Proto": forwarded}
    answer = guarded[0].post("/login", data={"token": TOKEN}, headers=headers)
    assert answer.status_code == 303
    assert ("; Secure" in answer.headers["set-cookie"]) is secure


@pytest.mark.parametrize(
    "body", [f"token={TOKEN}x", f"token={TOKEN[:-1]}", "token=", "", f"other={TOKEN}", "token=%ff"]
)
def test_a_wrong_token_is_the_form_again(
    guarded: tuple[httpx.Client, CollectorRegistry], body: str
) -> None:
    """401, no cookie, counted with the other refusals, and nothing of the input comes back."""
    client, registry = guarded
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/login", content=body, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "set-cookie" not in answer.headers
    assert "not the read token" in answer.text
    assert TOKEN[:-1] not in answer.text
    assert refusals(registry) == 1
    assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (f"token={TOKEN}&x=" + 4096 * "y", "application/x-www-form-urlencoded", 413),
        (f'{{"token": "{TOKEN}"}}', "application/json", 415),
        ("&".join(f"a{n}=b" for n in range(20)), "application/x-www-form-urlencoded", 400),
        ("token=é", "application/x-www-form-urlencoded", 400),
    ],
)
def test_other_bodies_are_refused(
    guarded: tuple[httpx.Client, CollectorRegistry], content: str, kind: str, status: int
) -> None:
    """Too long, no form, too many fields, or not ASCII: a problem document and no cookie."""
    client, _ = guarded
    headers = {"Content-Type": kind}
    answer = client.post("/login", content=content.encode(), headers=headers)
    assert_problem(answer, status)
    chunked = client.post("/login", content=iter([content.encode()]), headers=headers)
    assert_problem(chunked, status)
    assert not client.cookies


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/login"), ("POST", "/login")])
def test_a_token_in_an_address_is_refused(
    guarded: tuple[httpx.Client, CollectorRegistry], method: str, path: str
) -> None:
    """The right token in the address opens nothing, and the answer says where it belongs."""
    client, registry = guarded
    answer = client.request(method, path, params={"token": TOKEN})
    assert "Authorization" in str(assert_problem(answer, 400)["detail"])
    assert TOKEN not in answer.text
    assert refusals(registry) == 1


@pytest.mark.parametrize(
    "headers",
    [{"Accept": "*/*"}, {"Authorization": "Bearer wrong"}, {"Accept": "application/json"}],
)
def test_programs_are_told_what_is_needed(
    guarded: tuple[httpx.Client, CollectorRegistry], headers: dict[str, str]
) -> None:
    """Who is no browser, or shows a wrong token, gets the problem and no form."""
    client, registry = guarded
    assert_problem(client.get("/", headers=headers), 401)
    assert refusals(registry) == 1
    right = client.get("/", headers={"Authorization": f"Bearer {TOKEN}"})
    assert right.status_code == 200


def test_a_made_up_cookie_opens_nothing(guarded: tuple[httpx.Client, CollectorRegistry]) -> None:
    """Neither a guess nor the token itself is a session."""
    client, _ = guarded
    for value in ("guess", TOKEN, ""):
        cookie = {"Cookie": f"{COOKIE}={value}"}
        assert client.get("/", headers=cookie).status_code == 303
        assert client.get("/metrics", headers=cookie).status_code == 401


def test_without_a_token_there_is_nothing_to_log_in_to(store: InMemoryStore) -> None:
    """The page is open on this machine, and both ways to log in lead to it."""
    with served(store) as (client, _):
        assert client.get("/").status_code == 200
        for answer in (client.get("/login"), client.post("/login", data={"token": "x"})):
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
            assert "set-cookie" not in answer.headers


def test_a_session_ends_after_twelve_hours() -> None:
    """Its id opens nothing from then on, and no more than so many are kept."""
    clock = ManualClock()
    sessions = Sessions(clock.time)
    first = sessions.open()
    clock.advance(LIFETIME_S - 1)
    assert sessions.holds(first)
    clock.advance(1)
    assert not sessions.holds(first)
    assert not sessions.holds(None)
    second, *others = [sessions.open() for _ in range(MAX_SESSIONS + 1)]
    assert not sessions.holds(second)
    assert all(map(sessions.holds, others))
