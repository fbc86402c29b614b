"""Registered models and versions as MLflow has them, and what its server refuses of them, in its words."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from davy.protocols.mlflow.checks import LONGEST_KEY, bad_value, check_length, check_name
from davy.protocols.mlflow.wire import KeyValue, Message, invalid, missing
from davy.registry.aliases import Protection
from davy.registry.catalog import find_model
from davy.registry.models import find_version
from davy.registry.reference import LONGEST_ALIAS, LONGEST_NAME
from davy.registry.tags import LONGEST_VALUE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from davy.protocols.mlflow.api import Call
    from davy.registry.catalog import RegisteredModel
    from davy.registry.models import ModelVersion

PROMPT_TEXT = "mlflow.prompt.text"
_LARGEST = 2**31 - 1
_ALIAS = re.compile(r"[\w\-]*")
_TAKEN = re.compile(r"[vV]\d+")


class AliasMessage(Message):
    alias: str
    version: str


class VersionMessage(Message, kw_only=True):
    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    user_id: str | None = None
    current_stage: str
    description: str | None = None
    source: str
    run_id: str
    status: str
    status_message: str | None = None
    tags: list[KeyValue] = []
    run_link: str
    aliases: list[str] = []
    model_id: str | None = None


class ModelMessage(Message, kw_only=True):
    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | None = None
    latest_versions: list[VersionMessage] = []
    tags: list[KeyValue] = []
    aliases: list[AliasMessage] = []


def version_message(found: ModelVersion, *, aliases: bool = True) -> VersionMessage:
    """A version; MLflow leaves the aliases out where it lists versions."""
    return VersionMessage(
        name=found.name, version=str(found.version), creation_timestamp=found.created // 1000, last_updated_timestamp=found.updated // 1000,
        user_id=found.actor or None, current_stage=found.stage, description=found.description, source=found.source, run_id=found.run_id or "",
        status=found.status, tags=pairs(found.tags.items()), run_link=found.run_link or "", aliases=list(found.aliases) if aliases else [],
        model_id=found.model_id)


def model_message(found: RegisteredModel) -> ModelMessage:
    """A registered model with the newest version of each stage."""
    return ModelMessage(
        name=found.name, creation_timestamp=found.created // 1000, last_updated_timestamp=found.updated // 1000, description=found.description or None,
        latest_versions=[version_message(version, aliases=False) for version in found.latest], tags=pairs(found.tags.items()),
        aliases=[AliasMessage(alias=alias, version=str(version)) for alias, version in found.aliases.items()])


def pairs(items: Iterable[tuple[str, str]]) -> list[KeyValue]:
    """Tags or params."""
    return [KeyValue(key=key, value=value) for key, value in items]


def present_model(call: Call, name: str | None) -> RegisteredModel:
    """The registered model that the request names."""
    found = find_model(call.connection, check_model_name(name))
    if found is None:
        raise missing(f"Registered Model with name={name} not found")
    return found


def present_version(call: Call, name: str | None, version: str | None) -> ModelVersion:
    """The version that the request names."""
    number = check_version(check_model_name(name), version)
    found = find_version(call.connection, name or "", number)
    if found is None:
        raise missing(f"Model Version (name={name}, version={version}) not found")
    return found


def protection(call: Call) -> Protection:
    """Which aliases the one who asks may not move; on a server without login everybody may."""
    return Protection.of(call.home.config.registry.protected, "admin" if call.identity is None else call.identity.role)


def check_model_name(name: str | None, path: str = "name") -> str:
    """A name that a registered model may have."""
    if name is None or not name.strip():
        raise invalid(f"Missing value for required parameter '{path}'.")
    if "/" in name or ":" in name:
        raise invalid(f"Invalid model name '{name}'. Names cannot contain '/' or ':'.")
    resolved = posixpath.normpath(name)
    if resolved != name or name in (".", "..") or name.startswith(".."):
        raise bad_value("name", name, "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. "
                                      f"This name would resolve to {resolved!r}")
    if "\x00" in name:
        raise bad_value("name", name, "A name has no NUL character.")
    return check_length("name", name, LONGEST_NAME)


def check_version(name: str, version: str | None) -> int:
    """The number of a version."""
    try:
        number = int(version or "")
    except ValueError:
        raise invalid(f"Parameter 'version' must be an integer, got '{(version or '')[:100]}'.") from None
    if not 0 <= number <= _LARGEST:
        raise missing(f"Model Version (name={name}, version={version}) not found")
    return number


def check_registry_tag(tag: KeyValue, *, of_version: bool = False) -> tuple[str, str]:
    """Key and value of a registry's tag; a long value is refused."""
    key, value = check_name(tag.key or "", "key"), tag.value or ""
    check_length("key", key, LONGEST_KEY)
    if of_version and key == PROMPT_TEXT and len(value) > LONGEST_VALUE:
        raise invalid(f"Prompt text exceeds max length of {LONGEST_VALUE} characters.")
    return key, check_length("value", value, LONGEST_VALUE)


def check_alias_name(alias: str | None, *, to_set: bool = False) -> str:
    """A name that an alias may have; with `to_set` not one that means something already."""
    if not alias:
        raise invalid("Registered model alias name cannot be empty.")
    if not _ALIAS.fullmatch(alias):
        raise invalid(f"Invalid alias name: '{alias[:300]}'. Names may only contain alphanumerics, underscores (_), and dashes (-).")
    check_length("Registered model alias name", alias, LONGEST_ALIAS)
    if to_set and alias.lower() == "latest":
        raise invalid("'latest' alias name (case insensitive) is reserved.")
    if to_set and _TAKEN.fullmatch(alias):
        raise invalid(f"Version alias name '{alias}' is reserved.")
    return alias
