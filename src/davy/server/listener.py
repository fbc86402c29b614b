"""A process that answers: Granian's embedded server on a socket that is listening already, because the supervisor holds it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from granian._granian import SocketHolder
from granian.constants import Interfaces, SSLProtocols
from granian.log import LogLevels
from granian.server.embed import Server

from davy.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

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


def start(run: Callable[[Home, int], Coroutine[Any, Any, None]]) -> None:
    """What the supervisor starts as `python -m davy.server.NAME --project DIR --home DIR --descriptor N`: run this on that socket until it returns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--descriptor", type=int, required=True)
    given = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    home = Home(given.project, path=given.home)
    gc.freeze()
    try:
        asyncio.run(run(home, given.descriptor))
    finally:
        home.close()
