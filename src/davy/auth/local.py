"""When a login is needed, and who acts on the command line.

Whoever can write a home's files can do everything to it, and no check here changes that. Where `auth.required` is set,
the command line still asks for a token, so that roles keep colleagues from accidents and the journal has their names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from davy.auth.origin import is_loopback
from davy.auth.permissions import Identity, action_of_verb, lesser, require
from davy.auth.secrets import digest_of
from davy.core.time import parse_duration
from davy.errors import ConfigError, InvalidInput, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa

    from davy.config import Config
    from davy.home import Home

TOKEN = "DAVY_TOKEN"
_NOBODY = ("there is nobody who could log in", "Where others can reach it, everybody says who they are.",
           "Make the first user: davy user add NAME --role admin")
_CLEAR = ("in the clear, passwords and tokens could be read on the way", "Beyond this machine it wants a certificate, or a proxy in front that has one.",
          ("Set server.certificate and server.key in davy.toml; or leave the host at 127.0.0.1 and put the name that people type into "
           "server.hosts; or, in a network that you trust, set auth.insecure = true."))


def needs_login(config: Config, host: str) -> bool:
    """Whether a server on this address asks who is there: wherever others can reach it, and on this machine if `auth.required` is set.

    Names and proxies are set for others to come by.
    """
    return config.auth.required or bool(config.server.hosts or config.server.proxies) or not is_loopback(host)


def check_server(home: Home, host: str) -> None:
    """Refuse to serve others without a login, or their passwords in the clear.

    Raises:
        ConfigError: says what to type.
    """
    config = home.config
    _check_certificate(home)
    for name in ("session", "idle"):
        _check_duration(name, getattr(config.auth, name))
    if not needs_login(config, host):
        return
    from davy.auth.users import has_admin

    missing = []
    with home.database.read() as connection:
        if not has_admin(connection):
            missing.append(_NOBODY)
    if not is_loopback(host) and not config.server.certificate and not config.auth.insecure:
        missing.append(_CLEAR)
    if missing:
        came, allowed, fix = zip(*missing, strict=True)
        raise ConfigError(f"Davy will not {'serve with a login' if is_loopback(host) else f'listen on {host}'}: {', and '.join(came)}.", " ".join(allowed),
                          "\n".join(fix))


def certificate_of(home: Home) -> tuple[Path, Path] | None:
    """The certificate and key files, relative to the project."""
    found = home.config.server
    return (home.root / found.certificate, home.root / found.key) if found.certificate else None


def identify(home: Home, verb: str, given: Mapping[str, Any]) -> Identity:
    """Who acts on the command line, allowed to do this.

    Raises:
        Unauthenticated: `auth.required` is set, and there is no valid token. Forbidden: its owner's role does not suffice.
    """
    local = Identity(home.actor, "admin")
    action = action_of_verb(verb, given)
    if not home.config.auth.required or action is None:
        return local
    from davy.auth.users import has_admin

    secret = os.environ.get(TOKEN, "").strip()
    with home.database.read() as connection:
        if not secret and (action == "read" or not has_admin(connection)):
            return local
        identity = _by_token(connection, secret, home.clock.now())
    require(identity, action)
    return identity


def _by_token(connection: sa.Connection, secret: str, now: int) -> Identity:
    import sqlalchemy as sa

    from davy.schema.tables import tokens, users

    query = sa.select(users.c.name, users.c.role, users.c.disabled, tokens.c.role.label("most"), tokens.c.expires, tokens.c.revoked)
    row = connection.execute(query.join(tokens, tokens.c.owner == users.c.name).where(tokens.c.digest == digest_of(secret))).first() if secret else None
    if row is None or row.disabled is not None or row.revoked is not None or (row.expires is not None and row.expires <= now):
        raise Unauthenticated(f"{TOKEN} is {'not a valid token' if secret else 'not set'}.", "auth.required is set for this home.",
                              f"An admin makes you one with davy token new --user NAME; then: export {TOKEN}=davy_...")
    return Identity(row.name, lesser(row.role, row.most), "token")


def _check_duration(name: str, text: str) -> None:
    try:
        good = parse_duration(text) > 0
    except InvalidInput:
        good = False
    if not good:
        raise ConfigError(f"auth.{name} is {text!r}.", "It is a duration, such as 12h or 7d.", "Correct davy.toml.")


def _check_certificate(home: Home) -> None:
    found = home.config.server
    if bool(found.certificate) != bool(found.key):
        raise ConfigError(f"server.{'certificate' if found.certificate else 'key'} is set without the other.", "A certificate and its key go together.",
                          "Set both server.certificate and server.key in davy.toml.")
    files = certificate_of(home)
    for path in files or ():
        if not path.is_file():
            raise ConfigError(f"There is no file {path}.", "server.certificate and server.key are PEM files, relative to the project.", "Correct davy.toml.")
    if files is not None:
        import ssl

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files, password=lambda: "")
        except (OSError, ValueError) as error:
            raise ConfigError(f"The certificate {files[0]} with its key {files[1]} can't be used: {error}.",
                              "Both are PEM files; the key belongs to the certificate and has no passphrase.", "Correct the files, or davy.toml.") from error
