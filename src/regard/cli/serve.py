"""`regard serve`: the page."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
import webbrowser
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output
from regard.errors import ConfigError, DependencyError

_FIRST = 8000  # the port that is tried first, and those after it
_CONNECTIONS = 10_000  # idle ones too; how many requests are answered at once, the guard says
_SEVERAL = Parameter(consume_multiple=True, negative=())


def command(
    models: list[str] | None = None,
    /,
    *,
    host: str = "127.0.0.1",
    port: OptionalCount = None,
    runs: Path = Path("runs"),
    data: Path | None = None,
    home: Path | None = None,
    allow_host: Annotated[list[str] | None, _SEVERAL] = None,
    device: str = "auto",
    no_browser: bool = False,
) -> None:
    """Open the page: look inside models, translate, generate, read, train and compare, in a browser.

    The page and its server stay on this machine. With another --host, others on the network can open it too, with the
    token in the address that is printed.

    Parameters
    ----------
    models
        Folders or hub ids to offer, beside the runs.
    host
        The address to listen at.
    port
        Unset: 8000, or the next one that is free; 0: any.
    runs
        The folder of runs: those there are offered, new ones begin there.
    data
        A folder whose files may be trained on; unset: uploads alone.
    home
        Where uploads, history and saved views are kept; unset: .serve in the folder of runs.
    allow_host
        More names under which the server may be asked, behind a proxy for instance.
    device
        cpu, cuda, cuda:1, mps or auto.
    no_browser
        Print the address, and open nothing.
    """
    output = Output()
    if data is not None and not data.is_dir():
        raise ConfigError(f"--data {data} is no folder.")
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise DependencyError(f"the page needs {error.name}; run: pip install {error.name}") from None
    from regard.checkpoints.hub import locate
    from regard.serve.app import make_app
    from regard.serve.guard import is_everywhere, is_loopback
    from regard.serve.house import Settings
    from regard.training.precision import choose_device

    for name in models or ():
        locate(name)
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    settings = Settings(
        tuple(models or ()), runs, data, home or runs / ".serve", host, tuple(allow_host or ()), token,
        str(choose_device(device)),
    )  # fmt: skip
    listening = _listen(host, port)
    try:
        app = make_app(settings)
        number = listening.getsockname()[1]
        shown = _own_address(host) if is_everywhere(host) else host
        shown = f"[{shown}]" if ":" in shown else shown
        address = f"http://{shown}:{number}/" + ("" if token is None else f"?token={token}")
        output.line(f"Regard's page: {address}")
        output.note("Ctrl-C ends it; trainings that were started from it go on.")

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                app.state.house.work.close(0)  # answers that are being written end here, and are waited for
                await super().shutdown(sockets)

        server = Server(
            uvicorn.Config(
                app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, server_header=False,
                date_header=False, h11_max_incomplete_event_size=64 * 2**10, limit_concurrency=_CONNECTIONS,
            )
        )  # fmt: skip
        if not no_browser:
            threading.Thread(target=_open, args=(server, address), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        listening.close()


def _listen(host: str, port: int | None) -> socket.socket:
    """Take the port that was asked for, or the first that is free.

    Raises:
        ConfigError: it is taken, or the address isn't this machine's.
    """
    if port is not None and not 0 <= port < 65_536:
        raise ConfigError(f"--port {port} is no port: a number from 0, which is any, to 65535.")
    last: OSError | None = None
    for number in range(_FIRST, _FIRST + 20) if port is None else [port]:
        try:
            return socket.create_server(
                (host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET
            )
        except OSError as error:
            last = error
    where = f"{host}, port {port}" if port is not None else f"{host}, ports {_FIRST} to {_FIRST + 19}"
    raise ConfigError(f"can't listen at {where} ({last and (last.strerror or last)}); choose another --port.")


def _own_address(host: str) -> str:
    """Give an address of this machine that others can use, of the kind that is listened at; or else its name."""
    six = ":" in host
    try:
        with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as asking:
            # Addresses for documentation. To connect a datagram socket sends nothing: it only looks for the way.
            asking.connect(("2001:db8::1" if six else "192.0.2.1", 9))
            found: str = asking.getsockname()[0]
    except OSError:
        return socket.gethostname()
    return socket.gethostname() if ip_address(found).is_loopback else found


def _open(server: object, address: str) -> None:
    """Open the browser as soon as somebody answers."""
    deadline = time.monotonic() + 20
    while not getattr(server, "started", False) and time.monotonic() < deadline:
        time.sleep(0.05)
    webbrowser.open(address)
