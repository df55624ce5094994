"""Who may ask the server: Host, Origin, token, and how much."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.serve.looking import aside

from regard.serve.guard import Guard, is_loopback


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Read the whole body, and answer with its length."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


Answer = tuple[int, dict[str, str], bytes]


def ask(guard: Guard, **given: Any) -> Answer:
    """Ask a guard as a client would, from outside of any loop."""
    return aside(lambda: asked(guard, **given))


async def asked(
    guard: Guard, *, path: str = "/api/models", method: str = "GET", headers: list[tuple[str, str]] | None = None,
    body: tuple[bytes, ...] = (b"",), query: str = "", kind: str = "http",
) -> Answer:  # fmt: skip
    """Ask a guard as a client would; give status, headers and body."""
    given = [("host", "127.0.0.1:8000")] if headers is None else headers
    scope = {
        "type": kind, "method": method, "path": path, "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given],
    }  # fmt: skip
    parts = [{"type": "http.request", "body": b, "more_body": k + 1 < len(body)} for k, b in enumerate(body)]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await guard(scope, receive, send)
    if sent[0]["type"] == "websocket.close":
        return sent[0]["code"], {}, b""
    named = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], named, b"".join(part.get("body", b"") for part in sent[1:])


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "box.lan:80", "localhost."]
)
def test_the_servers_own_names_are_let_through(host: str) -> None:
    status, _, _ = ask(Guard(_echo, hosts=["box.lan"]), headers=[("host", host)])
    assert status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "127.0.0.1.evil.example", "evil.example:8000", "127.0.0.1@evil.example", "", "127.0.0.1/..",
        "localhost:x", "localhost evil.example", "[::1", "0.0.0.0",
    ],
)  # fmt: skip
def test_a_foreign_host_is_refused(host: str) -> None:
    status, _, body = ask(Guard(_echo, hosts=["box.lan"]), headers=[("host", host)])
    assert status == 403
    assert b"own name" in body


@pytest.mark.parametrize("listening", ["0.0.0.0", "::", ""])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("192.168.0.4:8000", 200), ("[fd00::4]:8000", 200), ("0.0.0.0:8000", 200), ("localhost", 200), ("Box:80", 200),
        ("box.lan", 200), ("evil.example", 403), ("192.168.0.4.evil.example", 403), ("192.168.0.4@evil.example", 403),
        ("3232235524", 403), ("box.evil.example", 403),
    ],
)  # fmt: skip
def test_at_every_address_any_address_is_let_through_and_no_foreign_name(
    monkeypatch: pytest.MonkeyPatch, listening: str, host: str, status: int
) -> None:
    monkeypatch.setattr("regard.serve.guard.socket.gethostname", lambda: "Box")
    guard = Guard(_echo, host=listening, hosts=["box.lan"], token="s3cret")
    signed = ("authorization", "Bearer s3cret")
    assert ask(guard, headers=[("host", host), signed])[0] == status
    assert ask(guard, headers=[("host", host), signed, ("origin", f"http://{host}")])[0] == status
    assert ask(guard, headers=[("host", host), signed, ("origin", "http://192.168.0.9")])[0] == 403
    assert ask(guard, headers=[("host", host)])[0] == (401 if status == 200 else 403)


@pytest.mark.parametrize("listening", ["127.0.0.1", "localhost", "::1", "192.168.0.4"])
def test_at_one_address_no_other_is_let_through(monkeypatch: pytest.MonkeyPatch, listening: str) -> None:
    monkeypatch.setattr("regard.serve.guard.socket.gethostname", lambda: "box")
    guard = Guard(_echo, host=listening)
    for host in ("10.0.0.4:8000", "[fd00::4]", "0.0.0.0", "box"):
        assert ask(guard, headers=[("host", host)])[0] == 403


def test_no_host_and_two_hosts_are_refused() -> None:
    guard = Guard(_echo, hosts=[])
    assert ask(guard, headers=[])[0] == 403
    assert ask(guard, headers=[("host", "localhost"), ("host", "evil.example")])[0] == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:9999",
        "http://localhost.evil.example",
        "file://",
        "",
        "localhost",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_a_foreign_origin_is_refused(origin: str, method: str) -> None:
    headers = [("host", "localhost:8000"), ("origin", origin)]
    assert ask(Guard(_echo, hosts=[]), headers=headers, method=method)[0] == 403


def test_the_pages_own_origin_is_let_through() -> None:
    headers = [
        ("host", "localhost:8000"),
        ("origin", "http://localhost:8000"),
        ("sec-fetch-site", "same-origin"),
    ]
    assert ask(Guard(_echo, hosts=[]), headers=headers, method="POST")[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "rubbish"])
def test_what_another_page_makes_a_browser_fetch_is_refused_but_a_link_to_the_page_works(site: str) -> None:
    guard = Guard(_echo, hosts=[])
    headers = [("host", "localhost:8000"), ("sec-fetch-site", site)]
    assert ask(guard, headers=headers)[0] == 403
    assert ask(guard, headers=headers, path="/")[0] == 200
    assert ask(guard, headers=headers, path="/", method="POST")[0] == 403


def test_a_web_socket_is_closed() -> None:
    assert ask(Guard(_echo, hosts=[]), kind="websocket")[0] == 1008


def test_every_answer_carries_the_policy_refusals_too() -> None:
    guard = Guard(_echo, hosts=[])
    for status, headers, _ in (ask(guard), ask(guard, headers=[("host", "evil.example")])):
        assert status in (200, 403)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_with_a_token_nothing_but_health_is_answered_without_it() -> None:
    guard = Guard(_echo, hosts=[], token="s3cret")
    host = ("host", "localhost")
    assert ask(guard, headers=[host])[0] == 401
    assert ask(guard, headers=[host, ("authorization", "Bearer wrong")])[0] == 401
    assert ask(guard, headers=[host, ("cookie", "regard_token=s3crét")])[0] == 401
    assert ask(guard, headers=[host, ("cookie", "\x01;;=")])[0] == 401
    assert ask(guard, headers=[host, ("authorization", "Bearer s3cret")])[0] == 200
    assert ask(guard, headers=[host, ("cookie", "a=b; regard_token=s3cret")])[0] == 200
    assert ask(guard, headers=[host], path="/health")[0] == 200
    assert ask(guard, headers=[host], path="/api/models", query="token=s3cret")[0] == 401


def test_the_printed_address_signs_a_browser_in_and_leaves_no_token_in_its_bar() -> None:
    guard = Guard(_echo, hosts=[], token="s3cret")
    status, headers, _ = ask(guard, path="/", query="token=s3cret", headers=[("host", "localhost")])
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=Strict" in headers["set-cookie"]
    assert ask(guard, path="/", query="token=wrong", headers=[("host", "localhost")])[0] == 401


def test_a_body_that_is_too_large_is_refused_told_or_not() -> None:
    guard = Guard(_echo, hosts=[], most_body=100)
    host = ("host", "localhost")
    assert ask(guard, method="POST", headers=[host, ("content-length", "101")], body=(b"x" * 101,))[0] == 413
    assert ask(guard, method="POST", headers=[host], body=(b"x" * 60, b"x" * 60))[0] == 413
    assert ask(guard, method="POST", headers=[host, ("content-length", "-1")])[0] == 413
    assert ask(guard, method="POST", headers=[host, ("content-length", "9" * 400)])[0] == 413
    assert ask(guard, method="POST", headers=[host], body=(b"x" * 60, b"x" * 40))[2] == b"100"


def test_a_body_that_is_too_large_is_refused_however_its_reader_takes_it() -> None:
    async def hiding(scope: Any, receive: Any, send: Any) -> None:
        try:
            await _echo(scope, receive, send)
        except Exception:
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"what?"})

    status, headers, body = ask(Guard(hiding, most_body=100), method="POST", body=(b"x" * 60, b"x" * 60))
    assert (status, headers["connection"]) == (413, "close")
    assert b"larger than 100 bytes" in body and b"what?" not in body
    assert ask(Guard(hiding, most_body=120), method="POST", body=(b"x" * 60, b"x" * 60))[2] == b"120"


def test_too_many_requests_at_once_are_refused_but_health_is_answered() -> None:
    async def go() -> None:
        release, begun = asyncio.Event(), asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] != "/health":
                begun.set()
                await release.wait()
            await _echo(scope, receive, send)

        guard = Guard(slow, most_requests=1)
        first = asyncio.ensure_future(asked(guard))
        await begun.wait()
        status, headers, body = await asked(guard)
        assert (status, headers["retry-after"], headers["content-type"]) == (503, "2", "application/json")
        assert headers["x-frame-options"] == "DENY" and b"busy" in body
        assert (await asked(guard, path="/health"))[0] == 200
        release.set()
        assert (await first)[0] == 200
        assert (await asked(guard))[0] == 200

    aside(go)


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True), ("0.0.0.0", False),
     ("192.168.0.4", False), ("127.evil.example", False), ("", False)],
)  # fmt: skip
def test_which_addresses_only_this_machine_can_reach(host: str, here: bool) -> None:
    assert is_loopback(host) is here
