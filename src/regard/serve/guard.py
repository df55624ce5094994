"""Who may ask: every request passes here before any route.

A page elsewhere can make a reader's browser ask this server, and a name of its own can be made to point here (DNS
rebinding). So the Host must be one of ours, an Origin must be the Host, and what a browser says of a request's source
is believed. Where others on the network could ask, a token is needed as well. Where it listens at every address of this
machine, it may be asked under any address, as rebinding needs a name; and under this machine's name.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["COOKIE", "Guard", "is_everywhere", "is_loopback"]

COOKIE = "regard_token"
_RETRY = b"2"  # seconds
_HERE = ("localhost", "127.0.0.1", "::1")
_POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:",
        "connect-src 'self'", "worker-src 'self' blob:", "base-uri 'none'", "form-action 'none'",
        "frame-ancestors 'none'",
    )
)  # fmt: skip
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    return host in _HERE or (host.startswith("127.") and host.replace(".", "").isdigit())


def is_everywhere(host: str) -> bool:
    """Tell whether to listen there is to listen at every address of this machine."""
    return host == "" or (_is_address(host) and ip_address(host).is_unspecified)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class _TooLargeError(Exception):
    pass


class Guard:
    """Let through what comes from this server's own page, and nothing else.

    Args:
        app: what answers.
        host: the address at which the server listens.
        hosts: further names under which it may be asked, without ports.
        token: what a client must know, as a cookie or `Authorization: Bearer`; None: nothing.
        most_body: bytes of a request's body.
        most_requests: requests that are answered at once; more are refused, but for those for /health.
        uploads: the path to which larger bodies may be put; its route counts them itself.
    """

    def __init__(
        self, app: ASGIApp, *, host: str = "127.0.0.1", hosts: Iterable[str] = (), token: str | None = None,
        most_body: int = 16 * 2**20, most_requests: int = 512, uploads: str = "/api/files",
    ) -> None:  # fmt: skip
        self.app = app
        self.everywhere = is_everywhere(host)
        names = (*_HERE, host, *hosts, *([socket.gethostname()] if self.everywhere else []))
        self.hosts = {name.strip("[]").lower() for name in names}
        self.token, self.most_body, self.uploads = token, most_body, uploads
        self.most_requests, self.requests = most_requests, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)

        async def safe_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                changed = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    changed[name] = value
                if "cache-control" not in changed:
                    changed["cache-control"] = "no-store"
            await send(message)

        why = self._foreign(scope, headers)
        if why:
            await _refuse(safe_send, 403, why)
            return
        is_open = self.token is None or scope["path"] == "/health"
        if not is_open and await self._signed_in(scope, headers, safe_send):
            return
        if scope["path"] != "/health" and self.requests >= self.most_requests:
            await _refuse(safe_send, 503, "the server is busy; try again soon.", (b"retry-after", _RETRY))
            return
        self.requests += 1
        try:
            await self._answer(scope, headers, receive, safe_send)
        finally:
            self.requests -= 1

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Let the application answer, unless the body is too large; whatever it makes of a body that was cut."""
        is_upload = scope["method"] == "PUT" and scope["path"] == self.uploads
        body = _Body(receive, None if is_upload else self.most_body)
        if not is_upload and not _is_within(headers.get("content-length", "0"), self.most_body):
            await self._too_large(send)
            return
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            if has_begun or not body.is_too_large:
                has_begun = True
                await send(message)

        try:
            await self.app(scope, body, watched)
        except Exception:
            if not body.is_too_large:
                raise
        if body.is_too_large and not has_begun:
            await self._too_large(send)

    async def _too_large(self, send: Send) -> None:
        # The rest of the body is not read, so the connection can't serve another request.
        why = f"the request is larger than {self.most_body:,} bytes."
        await _refuse(send, 413, why, (b"connection", b"close"))

    def _foreign(self, scope: Scope, headers: Headers) -> str:
        """Say what is wrong with where a request comes from; nothing where it is right."""
        given = headers.getlist("host")
        name = _host(given[0]) if len(given) == 1 else None
        if name is None or not (name in self.hosts or (self.everywhere and _is_address(name))):
            return "this server answers under its own name only; start it with --allow-host NAME for another."
        origins = headers.getlist("origin")
        if origins and (len(origins) != 1 or not _same(origins[0], given[0])):
            return "requests of other pages are refused."
        site = headers.get("sec-fetch-site", "none")
        is_link = scope["method"] in ("GET", "HEAD") and scope["path"] == "/"
        if site not in ("same-origin", "none") and not is_link:
            return "requests of other pages are refused."
        return ""

    async def _signed_in(self, scope: Scope, headers: Headers, send: Send) -> bool:
        """Answer here where the token is missing, or has just been brought along in the address; tell whether so."""
        assert self.token is not None
        bearer = headers.get("authorization", "")
        known = [bearer[7:]] if bearer.lower().startswith("bearer ") else []
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        known += [cookie.value] if cookie else []
        if any(secrets.compare_digest(one.encode(), self.token.encode()) for one in known):
            return False
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and secrets.compare_digest(asked.encode(), self.token.encode()):
            cookie_text = f"{COOKIE}={self.token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000"
            start = [(b"location", b"/"), (b"set-cookie", cookie_text.encode()), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 303, "headers": start})
            await send({"type": "http.response.body", "body": b""})
            return True
        await _refuse(send, 401, "open the address with its token, as the server printed it.")
        return True


class _Body:
    """Give a request's body up to a limit, and remember whether it went beyond: who reads it may hide the error."""

    def __init__(self, receive: Receive, most: int | None) -> None:
        self.receive, self.most = receive, most
        self.seen = 0
        self.is_too_large = False

    async def __call__(self) -> Message:
        """Receive the next part."""
        message = await self.receive()
        if message["type"] == "http.request" and self.most is not None:
            self.seen += len(message.get("body", b""))
            if self.seen > self.most:
                self.is_too_large = True
                raise _TooLargeError
        return message


def _is_within(length: str, most: int) -> bool:
    return length.isascii() and length.isdigit() and int(length[:20]) <= most


async def _refuse(send: Send, status: int, why: str, *more: tuple[bytes, bytes]) -> None:
    body = json.dumps({"error": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _host(given: str) -> str | None:
    """Give the name in a Host header, without its port; None where it is none."""
    try:
        parts = urlsplit(f"//{given}")
        _ = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or "@" in given or not parts.hostname:
        return None
    return parts.hostname.lower().rstrip(".")


def _same(origin: str, host: str) -> bool:
    """Tell whether an origin is the host that was asked."""
    scheme, _, place = origin.partition("://")
    return scheme in ("http", "https") and place.lower() == host.lower()
