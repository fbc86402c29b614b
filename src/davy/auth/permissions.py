"""The one table of permissions: which role each action takes, and which action a request or a verb is.

HTTP, MLflow's protocol, pages and the command line all come here. What is not in the table is for admins alone, so
that something new is closed until somebody has opened it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from davy.errors import Forbidden, InvalidInput, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

Role = Literal["viewer", "scientist", "releaser", "admin"]
Means = Literal["local", "password", "token", "session"]
ROLES: tuple[Role, ...] = ("viewer", "scientist", "releaser", "admin")
RANK = {role: rank for rank, role in enumerate(ROLES)}


class Permission(NamedTuple):
    """The least role that an action takes, and what the action is called in a refusal."""

    role: Role
    says: str


# The roles, from the least to the greatest; each may do what those before it may.
PERMISSIONS: dict[str, Permission] = {
    "read": Permission("viewer", "read"),
    "account": Permission("viewer", "make and revoke tokens of their own, and change their password"),
    "predict": Permission("scientist", "ask for predictions, which are logged"),
    "events.push": Permission("scientist", "push events"),
    "outcomes.push": Permission("scientist", "push outcomes"),
    "runs.write": Permission("scientist", "write experiments, runs and traces"),
    "artifacts.write": Permission("scientist", "write artifacts"),
    "models.write": Permission("scientist", "write models and versions"),
    "aliases.write": Permission("scientist", "move aliases"),
    "gates.run": Permission("scientist", "run gates"),
    "aliases.protected": Permission("releaser", "move protected aliases"),
    "gates.override": Permission("releaser", "overrule a gate"),
    "traffic.move": Permission("releaser", "move traffic"),
    "releases.write": Permission("releaser", "start and steer releases"),
    "gc": Permission("admin", "purge what is deleted"),
    "users.write": Permission("admin", "change users and the tokens of others"),
    "other": Permission("admin", "do what is for admins alone"),
}
OPEN = "open"

_NATIVE = {"predict": "predict", "events": "events.push", "outcomes": "outcomes.push"}
_OPEN_PATHS = frozenset(("/health", "/login", "/logout"))
_OPEN_FOLDER = "/static/"
_FORMS = frozenset(("/account/password", "/account/tokens", "/account/revoke"))
_READING = frozenset(("GET", "HEAD", "OPTIONS"))
_MLFLOW = re.compile(r"/(?:ajax-)?api/\d\.\d/(mlflow|mlflow-artifacts)/([a-z-]+)(?:/(.*))?", re.S)
_AREAS = {
    ("mlflow", "experiments"): "runs.write", ("mlflow", "runs"): "runs.write", ("mlflow", "metrics"): "runs.write", ("mlflow", "traces"): "runs.write",
    ("mlflow", "datasets"): "runs.write", ("mlflow", "assessments"): "runs.write", ("mlflow", "artifacts"): "artifacts.write",
    ("mlflow", "upload-artifact"): "artifacts.write", ("mlflow", "logged-models"): "models.write", ("mlflow", "registered-models"): "models.write",
    ("mlflow", "model-versions"): "models.write", ("mlflow-artifacts", "artifacts"): "artifacts.write", ("mlflow-artifacts", "mpu"): "artifacts.write",
    ("mlflow-artifacts", "presigned"): "artifacts.write",
}
# These ask by POST because the question is long; each is a whole path, so that no artifact's name can pass for one.
_QUESTIONS = frozenset(("experiments/search", "experiments/search-datasets", "runs/search", "metrics/get-history-bulk", "logged-models/search",
                        "registered-models/search", "registered-models/get-latest-versions", "model-versions/search", "traces/search", "traces/batchGetInfos",
                        "datasets/search",
                        "artifacts/presigned-download-url"))
_SPECIAL = {("POST", "registered-models/alias"): "aliases.write", ("DELETE", "registered-models/alias"): "aliases.write"}

# What a verb does; None asks nobody: it only makes something new, or starts what guards itself.
_VERBS: dict[str, str | None] = {
    "demo": None, "init": None, "up": None, "version": None,
    "runs": "read", "predict": "read", "status": "read", "monitor": "read", "alerts": "read", "replay": "read", "why": "read", "audit": "read",
    "traffic": "read", "alias": "read", "ingest": "events.push", "push": "events.push", "outcomes": "outcomes.push",
    "train": "runs.write", "reproduce": "runs.write", "import": "runs.write", "sync": "runs.write", "gate": "gates.run",
    "release": "releases.write", "promote": "releases.write", "pause": "releases.write", "resume": "releases.write", "abort": "releases.write",
    "rollback": "releases.write", "gc": "gc", "move": "other", "user": "users.write", "token": "users.write",
}
_SUBCOMMANDS = {("user", "list"): "read", ("token", "list"): "read", ("token", "revoke"): "account"}
# What a verb is when it got this argument: more than without it.
_GIVEN = {("traffic", "weights"): "traffic.move", ("alias", "version"): "aliases.write", ("alias", "delete"): "aliases.write",
          ("gate", "override"): "gates.override"}


class Identity(msgspec.Struct, frozen=True):
    """Who asks.

    Attributes:
        name: goes into the journal.
        means: how that was shown; `local` is this machine's own user, who was not asked.
        csrf: what a form of this session must send back.
    """

    name: str
    role: Role
    means: Means = "local"
    csrf: str = ""


def parse_role(text: str) -> Role:
    """The role of that name.

    Raises:
        InvalidInput: there is none.
    """
    for role in ROLES:
        if role == text:
            return role
    raise InvalidInput(f"There is no role {text!r}.", nearest(text, ROLES), f"Take one of {', '.join(ROLES)}.")


def lesser(role: Role, other: Role | None) -> Role:
    """The role that may do less; None stands for no limit.

    >>> lesser("admin", "viewer")
    'viewer'
    """
    return role if other is None or RANK[role] <= RANK[other] else other


def allows(role: Role, action: str) -> bool:
    """Whether the role suffices.

    >>> allows("scientist", "runs.write"), allows("scientist", "traffic.move")
    (True, False)
    """
    return RANK[role] >= RANK[PERMISSIONS.get(action, PERMISSIONS["other"]).role]


def require(identity: Identity, action: str) -> None:
    """Let it pass.

    Raises:
        Forbidden: the role does not suffice; names the one that does.
    """
    if not allows(identity.role, action):
        needed = PERMISSIONS.get(action, PERMISSIONS["other"])
        raise Forbidden(f"{identity.name} has the role {identity.role}, which may not {needed.says}.", f"That takes the role {needed.role}.",
                        f"Ask an admin: davy user role {identity.name} {needed.role}")


def action_of_request(method: str, path: str) -> str:
    """The action that an HTTP request is; `OPEN` for what anybody may ask.

    >>> action_of_request("POST", "/predict/late"), action_of_request("POST", "/api/2.0/mlflow/runs/search"), action_of_request("GET", "/health")
    ('predict', 'read', 'open')
    """
    native = _NATIVE.get(path[1:].partition("/")[0])
    if native is not None:
        return native
    if path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER):
        return OPEN
    if method in _READING:
        return "read"
    if path in _FORMS:
        return "account"
    if method == "POST" and path == "/v1/traces":
        return "runs.write"
    found = _MLFLOW.fullmatch(path)
    if found is None:
        return "other"
    root, area, rest = found.groups()
    if root == "mlflow":
        place = f"{area}/{rest}"
        if method == "POST" and place in _QUESTIONS:
            return "read"
        if (method, place) in _SPECIAL:
            return _SPECIAL[method, place]
    return _AREAS.get((root, area), "other")


def is_form(path: str) -> bool:
    """Whether the page behind this path looks itself for the session's token in the form that it is sent."""
    return path in _FORMS


def action_of_verb(verb: str, given: Mapping[str, Any]) -> str | None:
    """The action that a command is, by what it was given and its subcommand in `action`; None for one that asks nobody."""
    found = _SUBCOMMANDS.get((verb, str(given.get("action"))))
    if found is not None:
        return found
    for (name, argument), action in _GIVEN.items():
        if name == verb and given.get(argument) not in (None, False, ()):
            return action
    return _VERBS.get(verb, "other")


def known_verbs() -> frozenset[str]:
    """The verbs in the table."""
    return frozenset(_VERBS)
