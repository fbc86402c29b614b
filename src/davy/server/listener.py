"""Granian's embedded server on a socket that is listening already, because the supervisor holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from granian._granian import SocketHolder
from granian.constants import Interfaces, SSLProtocols
from granian.log import LogLevels
from granian.server.embed import Server

if TYPE_CHECKING:
    from pathlib import Path

    from davy.server.app import App

DRAIN_SECONDS = 8.0
BACKLOG = 1024
_holder: Any = SocketHolder  # its stub lacks the constructor


class InheritedServer(Server):
    """Serves the application until `finish`.

    Args:
        certificate: the files of the certificate and its key, to speak TLS.
    """

    def __init__(self, application: App, descriptor: int, certificate: tuple[Path, Path] | None = None) -> None:
        certificate_file, key = certificate or (None, None)
        super().__init__(application, interface=Interfaces.RSGI, websockets=False, log_level=LogLevels.error, log_enabled=False,
                         ssl_cert=certificate_file, ssl_key=key, ssl_protocol_min=SSLProtocols.tls12)
        self._descriptor = descriptor
        self.workers_kill_timeout = int(DRAIN_SECONDS)

    def _init_shared_socket(self) -> None:
        self._shd: Any = _holder(self._descriptor, False, BACKLOG)
        self._sfd: Any = self._descriptor

    def finish(self) -> None:
        """Take no more, answer what has come, then return from `serve`."""
        self.interrupt_signal = True
        self.main_loop_interrupt.set()
