"""`davy up`: one process that starts the log's keeper, the gateway, the release controller and the workers, and keeps them alive.

It holds the listening sockets, so that while a dead gateway or worker is replaced, connections wait instead of being
refused. It imports nothing heavy and opens no data.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from davy.auth.local import certificate_of, check_server
from davy.core.time import format_time
from davy.errors import Conflict, InvalidInput, Unavailable
from davy.server.process import Child
from davy.serving.fleet import Order, control_path, workers_folder
from davy.serving.sockets import listen

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

    from davy.home import Home

READY_SECONDS = 120.0
MOST_ENDS = 3
BACKLOG = 1024
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Up(msgspec.Struct, frozen=True):
    """What a running server leaves in `run/up.json`, for clients on this machine."""

    address: str
    pid: int


def serve(home: Home, *, host: str | None = None, port: int | None = None, tracking_alone: bool = False, ready: Callable[[str], None]) -> None:
    """Run everything until SIGTERM or SIGINT.

    Args:
        tracking_alone: runs and models only: no log, no gateway, no releases, no monitor.
        port: 0 picks a free one.
        ready: called once with the address, when `GET /health` answers 200.

    Raises:
        ConfigError: a host beyond this machine without a login set up. Conflict: this home is served already, or the port is taken.
        Unavailable: a part does not come up; says what its log says.
    """
    host = home.config.serving.host if host is None else host
    port = home.config.serving.port if port is None else port
    check_server(home, host)
    home.close()  # what it has looked at is not needed again
    lock = hold(home)
    try:
        with _bind(host, port) as listener:
            asyncio.run(_Supervisor(home, listener, ready, tracking_alone=tracking_alone).run())
    finally:
        home.place("run", "up.json").unlink(missing_ok=True)
        os.close(lock)


def running(home: Home) -> Up | None:
    """The server of this home, if there is one."""
    path = home.place("run", "up.json")
    with suppress(FileNotFoundError, msgspec.DecodeError):
        found = msgspec.json.decode(path.read_bytes(), type=Up)
        if _is_locked(home):
            return found
    return None


class _Supervisor:
    def __init__(self, home: Home, listener: socket.socket, ready: Callable[[str], None], *, tracking_alone: bool = False) -> None:
        self._home, self._listener, self._ready, self._tracking_alone = home, listener, ready, tracking_alone
        host, port = listener.getsockname()[:2]
        self._host, self._port = host, port
        self._encrypted = _unverified() if certificate_of(home) else None
        self._log_path = home.place("run", "up.log")
        self._output = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        self._workers: dict[str, tuple[Child, socket.socket]] = {}
        self._stopping: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await (self._track(stop) if self._tracking_alone else self._serve(stop))
        os.close(self._output)

    async def _track(self, stop: asyncio.Event) -> None:
        child = self._listening("tracking", "davy.server.tracking")
        try:
            if await _unless(stop, self._healthy(child)):
                self._announce()
                await stop.wait()
        finally:
            await child.stop(10)

    async def _serve(self, stop: asyncio.Event) -> None:
        workers_folder(self._home).mkdir(parents=True, exist_ok=True)
        with listen(control_path(self._home)) as control:
            server = await asyncio.start_unix_server(self._take_orders, sock=control)
            keeper = self._child("keeper", ["-m", "davy.events.keeper", *self._where()])
            gateway = self._listening("gateway", "davy.server.gateway")
            controller = self._child("release controller", ["-m", "davy.release.controller", *self._where()])
            monitor = self._child("monitor", ["-m", "davy.server.monitor", *self._where()], environment=_ONE_THREAD)
            try:
                if await _unless(stop, self._healthy(gateway, keeper)):
                    self._announce()
                    await stop.wait()
            finally:
                server.close()
                await self._end(gateway, keeper, controller, monitor)

    def _listening(self, name: str, module: str) -> Child:
        descriptor = self._listener.fileno()
        return self._child(name, ["-m", module, *self._where(), "--descriptor", str(descriptor)], descriptors=[descriptor])

    def _announce(self) -> None:
        """Clients on this machine find the address in a file; where any address is listened on, theirs is loopback."""
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        self._home.place("run", "up.json").write_bytes(msgspec.json.encode(Up(self._address(here), os.getpid())))
        self._ready(self._address(self._host if here == self._host else socket.gethostname()))

    def _address(self, host: str) -> str:
        return f"http{'s' if self._encrypted else ''}://{f'[{host}]' if ':' in host else host}:{self._port}"

    async def _healthy(self, *children: Child) -> None:
        deadline = time.perf_counter() + READY_SECONDS
        while await self._health() != 200:
            self._check(children, deadline)
            await asyncio.sleep(0.03)

    def _check(self, children: tuple[Child, ...], deadline: float) -> None:
        for child in children:
            if child.ends >= MOST_ENDS or time.perf_counter() > deadline:
                raise Unavailable(f"The {child.name} does not come up.\n{self._tail()}", f"Its log is {self._log_path}.", "Mend what it says, then: davy up")

    def _tail(self) -> str:
        lines = [line for line in self._log_path.read_text(errors="replace").splitlines() if line.strip()]
        return "\n".join(f"  {line}" for line in lines[-8:])

    async def _health(self) -> int:
        """The status of GET /health, 0 when nobody answers."""
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(self._host, self._port, ssl=self._encrypted), 2)
            host = f"[{self._host}]" if ":" in self._host else self._host
            writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            line = await asyncio.wait_for(reader.readline(), 2)
            writer.close()
            return int(line.split()[1]) if line else 0
        except (OSError, TimeoutError, ValueError, IndexError):
            return 0

    async def _take_orders(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one gateway. When it goes, its workers stay for the next."""
        with suppress(ConnectionError):
            while line := await reader.readline():
                order = msgspec.json.decode(line, type=Order)
                if order.restart in self._workers:
                    self._tell(f"worker {order.restart} hangs and is killed")
                    self._workers[order.restart][0].kill()
                if order.want is not None:
                    self._want(order.want)
        writer.close()

    def _want(self, names: tuple[str, ...]) -> None:
        folder = workers_folder(self._home)
        for name in names:
            if name not in self._workers:
                listener = listen(folder / f"{name}.sock")
                arguments = ["-m", "davy.serving.worker", str(folder / f"{name}.json"), str(listener.fileno()), str(os.getpid())]
                child = self._child(f"worker {name}", arguments, descriptors=[listener.fileno()], farewell=signal.SIGKILL, environment=_ONE_THREAD)
                self._workers[name] = child, listener
        for name in [name for name in self._workers if name not in names]:
            child, listener = self._workers.pop(name)
            (folder / f"{name}.sock").unlink(missing_ok=True)
            listener.close()
            self._stopping.append(asyncio.create_task(child.stop(5)))

    async def _end(self, gateway: Child, keeper: Child, *watching: Child) -> None:
        """What watches and moves traffic ends first, then what answers, and the log last, so that all that was taken finds its place."""
        await asyncio.gather(*(child.stop(5) for child in watching))
        await gateway.stop(10)
        self._want(())
        await asyncio.gather(*self._stopping)
        await keeper.stop(15)

    def _child(self, name: str, arguments: list[str], *, descriptors: list[int] | None = None, farewell: int = signal.SIGTERM,
               environment: dict[str, str] | None = None) -> Child:
        return Child(name, arguments, folder=self._home.root, output=self._output, descriptors=descriptors or [], farewell=farewell, environment=environment,
                     tell=self._tell)

    def _where(self) -> list[str]:
        return ["--project", str(self._home.root), "--home", str(self._home.path)]

    def _tell(self, text: str) -> None:
        os.write(self._output, f"{format_time(self._home.clock.now())} {text}\n".encode())


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether the work was done before anybody asked to stop; what it raises is raised."""
    doing, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait([doing, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if doing.done():
        doing.result()
        return True
    doing.cancel()
    return False


def _unverified() -> ssl.SSLContext:
    """For asking one's own process, which has whatever certificate it was given."""
    import ssl

    found = ssl.create_default_context()
    found.check_hostname, found.verify_mode = False, ssl.CERT_NONE
    return found


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise InvalidInput(f"{port} is not a port.", "A port is 0 (pick a free one) to 65535.", "davy up --port 0")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Conflict(f"The port {port} of {host} can't be had: {error.strerror}.", "", "Take another, or any: davy up --port 0") from error
    listener.listen(BACKLOG)
    return listener


def hold(home: Home) -> int:
    """Be the one process that works on this home, for as long as it lives; a dead one's hold is free again.

    Raises:
        Conflict: it is served.
    """
    descriptor = os.open(home.place("run", "up.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        found = running(home)
        raise Conflict(f"{home.path} is served already{f' at {found.address}, by process {found.pid}' if found else ''}.", "One server works on a home.",
                       "Use that one, or stop it first.") from error
    return descriptor


def _is_locked(home: Home) -> bool:
    descriptor = os.open(home.place("run", "up.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def main() -> None:
    """`python -m davy.server.supervisor PROJECT [PORT]`, for whoever has no command line."""
    from davy.home import Home

    home = Home.open(Path(sys.argv[1]))
    serve(home, port=int(sys.argv[2]) if len(sys.argv) > 2 else None, ready=lambda at: print(f"Davy is up at {at}", flush=True))


if __name__ == "__main__":
    main()
