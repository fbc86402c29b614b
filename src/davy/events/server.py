"""Serves the log to other processes of this machine, one thread per connection, so that their pushes share syncs."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from davy.events.wire import receive, send

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE = 10.0


class Server:
    """Listens from construction to `close`.

    Args:
        path: of the Unix socket; whatever lies there is replaced, as the caller holds the log.
        answer: the reply to a request.
    """

    def __init__(self, path: Path, answer: Callable[[bytes], bytes]) -> None:
        self._path, self._answer = path, answer
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(128)
        self._connections: set[socket.socket] = set()
        self._busy = 0
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="davy-log-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more requests; those being answered are answered first."""
        with self._change:
            self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        with self._change:
            self._change.wait_for(lambda: self._busy == 0, PATIENCE)
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="davy-log-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._change:
            self._connections.add(connection)
        try:
            while (data := receive(connection)) is not None:
                with self._change:
                    if self._closed:
                        return
                    self._busy += 1
                try:
                    send(connection, self._answer(data))
                finally:
                    with self._change:
                        self._busy -= 1
                        self._change.notify_all()
        except OSError:
            return
        finally:
            with self._change:
                self._connections.discard(connection)
            connection.close()
