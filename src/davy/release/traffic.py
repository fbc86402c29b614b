"""Moving traffic: the only place that writes a model's weights, each time in one transaction with its journal entry."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from davy.core.digest import canonical_json
from davy.errors import Conflict, InvalidInput, NotFound
from davy.registry.adopt import adopt
from davy.registry.models import get_version, resolve
from davy.registry.reference import parse_reference
from davy.schema.tables import releases, traffic
from davy.serving.traffic import Traffic, read_traffic
from davy.store import journal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from davy.core.clock import Clock
    from davy.home import Home

TOLERANCE = 1e-9
_EXAMPLE = "Write for example: davy traffic {0} {0}@1=0.9 {0}@2=0.1"


def set_traffic(home: Home, model: str, weights: Mapping[str, float], *, actor: str | None = None, expected: int | None = None) -> Traffic:
    """Let these versions answer, each with its share of the routing keys.

    Args:
        weights: `late@1` (or an alias, `late@production`) -> weight; not negative, and together 1 within 1e-9. A weight of 0 is left out.
        expected: the revision that the change was decided on; another one meanwhile is a conflict.

    Raises:
        InvalidInput: the weights are no shares of one whole, or name another model's version or one version twice.
        NotFound: an unknown model or version.
        Conflict: versions whose request fields contradict each other, or a release is on its way.
        And what `adopt` raises of a version that MLflow's protocol has registered.
    """
    for reference in map(parse_reference, _checked(model, weights)):
        if reference.model == model:
            adopt(home, reference, actor=actor)
    with home.database.begin() as connection:
        _refuse_during_a_release(connection, model)
        return move_traffic(connection, model, weights, clock=home.clock, actor=actor or home.actor, expected=expected)


def move_traffic(connection: Connection, model: str, weights: Mapping[str, float], *, clock: Clock, actor: str, expected: int | None = None,
                 release: str = "", stable: int | None = None, shadow: int | None = None, evidence: Mapping[str, Any] | None = None) -> Traffic:
    """`set_traffic` inside a transaction, for a release as well.

    Args:
        release: id of the release that the change is a part of.
        stable: the version that answers what another one fails to, and stays warm without a weight.
        shadow: a version that is asked after each answer.
        evidence: what the change was decided on, for the journal.
    """
    checked = _checked(model, weights)
    resolved = _resolved(connection, model, checked, [version for version in (stable, shadow) if version is not None])
    before = read_traffic(connection, model)
    revision = before[0].revision if before else 0
    if expected is not None and expected != revision:
        raise Conflict(f"The traffic of {model} is at revision {revision}, not {expected}.", "Somebody has changed it meanwhile.",
                       f"Look at it, then decide again: davy traffic {model}")
    row: dict[str, Any] = {"revision": revision + 1, "weights": canonical_json(resolved).decode(), "updated": clock.now(), "actor": actor,
                           "release": release, "stable": stable, "shadow": shadow}
    if before:
        connection.execute(sa.update(traffic).where(traffic.c.model == model).values(**row))
    else:
        connection.execute(sa.insert(traffic).values(model=model, **row))
    details: dict[str, Any] = {"revision": revision + 1, "weights": resolved, "before": before[0].weights if before else {}}
    if evidence is not None:
        details |= {"stable": stable, "shadow": shadow, "evidence": dict(evidence)}
    journal.append(connection, clock=clock, actor=actor, action="traffic.set", subject=model, details=details)
    return read_traffic(connection, model)[0]


def _refuse_during_a_release(connection: Connection, model: str) -> None:
    found = connection.execute(sa.select(releases.c.version, releases.c.state).where(releases.c.model == model, releases.c.ended.is_(None))).first()
    if found is not None:
        raise Conflict(f"The release of {model}@{found.version} is on its way ({found.state}), and moves the traffic of {model}.",
                       "Weights are set by hand when no release is.", f"End it first: davy abort {model}")


def get_traffic(home: Home, model: str) -> Traffic | None:
    """The model's traffic, or None when it has never been set.

    Raises:
        NotFound: an unknown model.
    """
    with home.database.read() as connection:
        found = read_traffic(connection, model)
        if not found:
            resolve(connection, model)
        return found[0] if found else None


def _checked(model: str, weights: Mapping[str, Any]) -> dict[str, float]:
    """The weights as floats, if they are shares of one whole."""
    if not weights:
        raise InvalidInput(f"No weight was given for {model}.", "At least one version answers.", _EXAMPLE.format(model))
    for reference, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise InvalidInput(f"The weight of {reference} is {weight!r}.", "A weight is a number from 0 to 1.", _EXAMPLE.format(model))
        if not math.isfinite(weight) or not 0 <= weight <= 1:
            raise InvalidInput(f"The weight of {reference} is {weight}.", "A weight is from 0 to 1; NaN, infinity and negative numbers are no shares.",
                               _EXAMPLE.format(model))
    total = math.fsum(weights.values())
    if abs(total - 1) > TOLERANCE:
        raise InvalidInput(f"The weights of {model} sum to {total:.12g}.", "They must sum to 1 within 1e-9.", _EXAMPLE.format(model))
    return {reference: float(weight) for reference, weight in weights.items()}


def _resolved(connection: Connection, model: str, weights: Mapping[str, float], beside: Sequence[int] = ()) -> dict[str, float]:
    """`model@number` -> weight above 0, for versions that can be served together, also with those `beside` them."""
    found: dict[int, float] = {}
    for text, weight in weights.items():
        reference = parse_reference(text)
        if reference.model != model:
            raise InvalidInput(f"{text} is not a version of {model}.", f"The traffic of {model} is divided among its own versions.", _EXAMPLE.format(model))
        version = resolve(connection, reference)
        if version.version in found:
            raise InvalidInput(f"{version.reference} is named twice.", "Each version has one weight.", "Add the weights up.")
        if version.format is None or version.signature is None or version.feature_set is None:
            raise Conflict(f"{version.reference} can't be served: it has no files, signature or feature set of Davy's.",
                           "It was registered from a source, and not adopted yet.",
                           f"Judge it first: davy gate {version.reference}")
        found[version.version] = weight
    _check_requests(connection, model, sorted({*beside, *(version for version, weight in found.items() if weight > 0)}))
    return {f"{model}@{version}": weight for version, weight in sorted(found.items()) if weight > 0}


def _check_requests(connection: Connection, model: str, versions: list[int]) -> None:
    """Refuse versions that read a field of one name differently: no request could please both, or one would be given another's units."""
    from davy.registry.definitions import get_feature_set

    known: dict[str, tuple[str, int]] = {}
    for version in versions:
        digest = get_version(connection, model, version).feature_set
        if digest is None:
            raise NotFound(f"{model}@{version} has no feature set.")
        feature_set = get_feature_set(connection, digest)
        wanted = [(field, "an entity key") for field in feature_set.entities] + [(field, "a request field") for field in feature_set.request]
        for field, role in wanted:
            read = f"{field.described}, {role}"
            before, other = known.setdefault(field.name, (read, version))
            if before != read:
                raise Conflict(f"{model}@{other} takes {field.name!r} as {before}; {model}@{version} as {read}.",
                               "Versions that share traffic answer the same requests.", "Rename the field in the new version, and train it again.")


def weights_from_text(pairs: list[str]) -> dict[str, float]:
    """Read `late@1=0.9 late@2=0.1`.

    Raises:
        InvalidInput: not of that form, not a number, or one version named twice.
    """
    found: dict[str, float] = {}
    for pair in pairs:
        reference, _, text = pair.partition("=")
        try:
            weight = float(text)
        except ValueError:
            raise InvalidInput(f"{pair!r} is not a weight.", "A weight is VERSION=NUMBER.", "Write for example late@1=0.9") from None
        if reference in found:
            raise InvalidInput(f"{reference} is named twice.", "Each version has one weight.", "Add the weights up.")
        found[reference] = weight
    return found
