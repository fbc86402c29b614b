"""Aliases: names that mean one version of a model until somebody moves them; and which of them not everybody may move.

Each move is one transaction with its journal entry, which names who moved it, from where, and on what evidence:
the newest gate of the version, the release that did it, or a reason in words. See alias_history.py for reading it back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from davy.auth.permissions import allows
from davy.errors import Forbidden, InvalidInput
from davy.registry.models import require_model, require_version
from davy.registry.reference import LONGEST_ALIAS
from davy.schema.tables import aliases, gates
from davy.store import journal
from davy.store.database import insert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from davy.auth.permissions import Role
    from davy.core.clock import Clock

_ALIAS = aliases.c
_WORD = re.compile(r"[\w\-]+")
_TAKEN = re.compile(r"v\d+|latest", re.IGNORECASE)
_target = sa.select(_ALIAS.version).where(_ALIAS.name == sa.bindparam("name"), _ALIAS.alias == sa.bindparam("alias"))
_all = sa.select(_ALIAS.alias, _ALIAS.version).where(_ALIAS.name == sa.bindparam("name")).order_by(_ALIAS.alias)
_remove = sa.delete(aliases).where(_ALIAS.name == sa.bindparam("which"), _ALIAS.alias == sa.bindparam("gone"))
_newest_gate = sa.select(gates.c.gate_id, gates.c.state).where(gates.c.name == sa.bindparam("name"), gates.c.version == sa.bindparam("version")).order_by(
    gates.c.seq.desc()).limit(1)


class Protection(msgspec.Struct, frozen=True):
    """Which aliases only a releaser, or a release, may move or take away; and whether the one who asks is one.

    Attributes:
        names: `production` (of any model), or `late@production`.
        lifted: whether they may be moved all the same.
    """

    names: frozenset[str] = frozenset()
    lifted: bool = False

    @classmethod
    def of(cls, names: Iterable[str], role: Role | None) -> Protection:
        """The protection that somebody with this role meets; without roles (None) it holds."""
        return cls(frozenset(names), role is not None and allows(role, "aliases.protected"))

    def check(self, name: str, alias: str) -> None:
        """Refuse to move or take away a protected alias.

        Raises:
            Forbidden: it is protected, and the role does not suffice.
        """
        if not self.lifted and (alias in self.names or f"{name}@{alias}" in self.names):
            raise Forbidden(f"The alias {alias!r} of {name!r} is protected.",
                            "Only a releaser or a release may move it or take it away ([registry] protected in davy.toml).",
                            f"Ask a releaser, or release the version: davy release {name}@VERSION")


NONE = Protection()


def set_alias(connection: sa.Connection, *, clock: Clock, actor: str, name: str, alias: str, version: int, protection: Protection = NONE,
              evidence: Mapping[str, Any] | None = None) -> None:
    """Let the alias mean this version from now on. If it does already, this is a no-op.

    Args:
        evidence: JSON-able: why, for the journal; what the version's newest gate found stands beside it.

    Raises:
        InvalidInput: an alias can't be called so. NotFound: no such version. Forbidden: the alias is protected.
    """
    _check(alias)
    require_version(connection, name, version)
    before = connection.scalar(_target, {"name": name, "alias": alias})
    if before == version:
        return
    protection.check(name, alias)
    statement = insert(connection, aliases).values(name=name, alias=alias, version=version)
    connection.execute(statement.on_conflict_do_update(index_elements=["name", "alias"], set_={"version": version}))
    gate = connection.execute(_newest_gate, {"name": name, "version": version}).first()
    shown = {**(evidence or {}), **({"gate": gate.gate_id, "verdict": gate.state} if gate is not None else {})}
    journal.append(connection, clock=clock, actor=actor, action="alias.set", subject=name,
                   details={"alias": alias, "version": version, "before": before, **({"evidence": shown} if shown else {})})


def delete_alias(connection: sa.Connection, *, clock: Clock, actor: str, name: str, alias: str, protection: Protection = NONE,
                 evidence: Mapping[str, Any] | None = None) -> None:
    """Take the alias away. If the model has no such alias, this is a no-op.

    Raises:
        NotFound: no such model. Forbidden: the alias is protected.
    """
    before = connection.scalar(_target, {"name": name, "alias": alias})
    if before is None:
        require_model(connection, name)
        return
    protection.check(name, alias)
    connection.execute(_remove, {"which": name, "gone": alias})
    journal.append(connection, clock=clock, actor=actor, action="alias.delete", subject=name,
                   details={"alias": alias, "before": before, **({"evidence": dict(evidence)} if evidence else {})})


def read_aliases(connection: sa.Connection, name: str) -> dict[str, int]:
    """Where each alias of the model points, by name."""
    return {row.alias: row.version for row in connection.execute(_all, {"name": name})}


def drop_aliases(connection: sa.Connection, *, clock: Clock, actor: str, name: str, protection: Protection, because: str, version: int | None = None) -> None:
    """Take away all aliases of a model, or of one of its versions, that is about to be deleted.

    Raises:
        Forbidden: one of them is protected.
    """
    for alias, target in read_aliases(connection, name).items():
        if version is None or target == version:
            delete_alias(connection, clock=clock, actor=actor, name=name, alias=alias, protection=protection, evidence={"because": because})


def _check(alias: str) -> None:
    if not _WORD.fullmatch(alias) or len(alias) > LONGEST_ALIAS or _TAKEN.fullmatch(alias):
        raise InvalidInput(f"{alias!r} can't be an alias.",
                           f"An alias has 1 to {LONGEST_ALIAS} letters, digits, '_' or '-'; 'latest' and 'v' with a number are taken.",
                           "Write for example production.")
