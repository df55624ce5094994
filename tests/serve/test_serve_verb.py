"""`regard serve` itself: it says where it is, answers, and ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from regard.cli import main
from regard.cli.serve import _own_address

# Whatever address is named, a test listens here alone.
HERE_ALONE = """
import sys
from regard.cli import main, serve
listen = serve._listen
serve._listen = lambda host, port: listen("127.0.0.1", port)
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start it in a folder, and give the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", HERE_ALONE, "serve", "--no-browser", "--port", "0", *words], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + process.stdout.read()
        yield found[0], process
    finally:
        process.kill()
        process.communicate()


def fetch(address: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Ask once it listens; give status and JSON."""
    for _ in range(200):
        try:
            with urllib.request.urlopen(
                urllib.request.Request(address, headers=headers or {}), timeout=20
            ) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except urllib.error.URLError:
            time.sleep(0.05)
    raise AssertionError("it doesn't answer")


def test_it_answers_and_ends_when_it_is_interrupted(tmp_path: Path) -> None:
    with serving(tmp_path) as (address, process):
        assert address.startswith("http://127.0.0.1:")
        assert fetch(f"{address}health")[0] == 200
        assert fetch(f"{address}api/models") == (200, {"models": [], "default": None})
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()
    assert (tmp_path / "runs" / ".serve" / "page.sqlite").is_file()


def test_an_open_stream_does_not_hold_its_end_up(tmp_path: Path) -> None:
    with serving(tmp_path) as (address, process):
        fetch(f"{address}health")
        port = int(address.rstrip("/").rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST /api/views HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n{")
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def test_idle_connections_refuse_nobody(tmp_path: Path) -> None:
    with serving(tmp_path) as (address, _), ExitStack() as open_ones:
        fetch(f"{address}health")
        port = int(address.rstrip("/").rsplit(":", 1)[1])
        for _ in range(560):
            open_ones.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert fetch(f"{address}health")[0] == 200
        assert fetch(f"{address}api/models")[0] == 200


def test_elsewhere_than_here_it_wants_its_token(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0") as (address, _):
        place, token = address.split("?token=")
        assert len(token) > 20
        named = place.removeprefix("http://").rstrip("/")
        assert not named.startswith(("127.", "0.0.0.0"))
        here = f"http://127.0.0.1:{named.rsplit(':', 1)[1]}/"  # asked here, under the name that was printed
        assert fetch(f"{here}health", {"Host": named})[0] == 200
        assert fetch(f"{here}api/models", {"Host": named})[0] == 401
        signed = {"Host": named, "Authorization": f"Bearer {token}"}
        assert fetch(f"{here}api/models", signed)[0] == 200
        assert fetch(f"{here}api/models", {**signed, "Host": "evil.example"})[0] == 403


@pytest.mark.parametrize(
    ("host", "found", "shown"),
    [
        ("0.0.0.0", "192.168.0.4", "192.168.0.4"), ("::", "fd00::4", "fd00::4"), ("", "10.0.0.4", "10.0.0.4"),
        ("0.0.0.0", "127.0.0.1", "box"), ("0.0.0.0", None, "box"),
    ],
)  # fmt: skip
def test_the_address_that_is_printed_is_one_that_others_can_use(
    monkeypatch: pytest.MonkeyPatch, host: str, found: str | None, shown: str
) -> None:
    class Asking:
        def __init__(self, family: int, kind: int) -> None:
            assert kind == socket.SOCK_DGRAM and family == (
                socket.AF_INET6 if ":" in host else socket.AF_INET
            )

        def __enter__(self) -> Asking:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def connect(self, place: tuple[str, int]) -> None:
            if found is None:
                raise OSError("no way there")

        def getsockname(self) -> tuple[str | None, int]:
            return found, 5

    monkeypatch.setattr("regard.cli.serve.socket.socket", Asking)
    monkeypatch.setattr("regard.cli.serve.socket.gethostname", lambda: "box")
    assert _own_address(host) == shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--port", "70000"], "port"),
        (["--port", "x"], "x is not a whole number"),
        (["--host", "203.0.113.9"], "203.0.113.9"),
        (["no/such/model"], "no/such/model"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_what_can_not_be_is_one_sentence(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "--no-browser", *words]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert said in shown


def test_a_port_that_is_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert main(["serve", "--no-browser", "--port", str(number), "--runs", str(tmp_path)]) == 2
    assert str(number) in capsys.readouterr().err


def test_a_home_that_can_not_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = ["--port", "0", "--runs", str(tmp_path), "--home", str(tmp_path / "file" / "home")]
    assert main(["serve", "--no-browser", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
