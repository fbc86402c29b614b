"""Who may come in to a serving process: what its address and davy.toml ask for."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from davy.auth.local import certificate_of, needs_login
from davy.auth.origin import Origins
from davy.auth.permissions import Identity

if TYPE_CHECKING:
    from davy.auth.guard import Guard
    from davy.home import Home


class Door:
    """What a request passes first.

    Args:
        descriptor: the listening socket.

    Attributes:
        origins: by which names, and from whose pages, the server is asked.
        guard: asks who is there; None where everybody is this machine's own user.
        local: that user.
        certificate: the files of the certificate and its key, if it speaks TLS itself.
    """

    def __init__(self, home: Home, descriptor: int) -> None:
        with socket.socket(fileno=os.dup(descriptor)) as listener:
            host = str(listener.getsockname()[0])
        self.origins = Origins(host, home.config.server.hosts)
        self.local = Identity(home.actor, "admin")
        self.certificate = certificate_of(home)
        self.guard: Guard | None = None
        if needs_login(home.config, host):
            from davy.auth.guard import Guard

            self.guard = Guard(home)

    def close(self) -> None:
        """Note what was used, and let go."""
        if self.guard is not None:
            self.guard.close()
