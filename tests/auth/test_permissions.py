"""One table says what each request and each verb takes; whatever is not in it is closed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from davy.auth.permissions import (
    OPEN,
    PERMISSIONS,
    ROLES,
    Identity,
    action_of_request,
    action_of_verb,
    allows,
    is_form,
    known_verbs,
    lesser,
    parse_role,
    require,
)
from davy.cli.main import VERBS
from davy.errors import Forbidden, InvalidInput

if TYPE_CHECKING:
    from davy.home import Home

GRANTS = ("/api/2.0/mlflow/artifacts/presigned-upload-url", "/ajax-api/2.0/mlflow/artifacts/presigned-upload-url")  # it writes nothing, but lets one write
OPEN_TO_ALL = {("GET", "/health"), ("GET", "/login"), ("POST", "/login"), ("POST", "/logout"), ("GET", "/static/davy.css")}


def routes_of_pages(home: Home) -> list[tuple[str, str]]:
    from davy.auth.guard import Guard
    from davy.protocols import prometheus
    from davy.web import account, login, pages

    guard = Guard(home)
    guard.close()
    found = [*pages.routes(home), prometheus.route(home), *login.routes(home, guard), *account.routes(home, guard)]
    return [(method, route.path) for route in found for method in route.methods or ()]


def endpoints_of_mlflow() -> list[tuple[str, str, bool | None]]:
    """(method, an address, whether it changes something; None where a streamed POST does not tell)."""
    from importlib import import_module
    from pkgutil import iter_modules

    from davy.protocols import mlflow
    from davy.protocols.mlflow.api import ENDPOINTS, PATTERNS

    for module in iter_modules(mlflow.__path__):
        import_module(f"{mlflow.__name__}.{module.name}")
    every = [*ENDPOINTS.values(), *(found for _, _, found in PATTERNS)]
    assert len(every) > 30
    return [(found.method, found.path.replace("{", "").replace(":path}", "").replace("}", ""),
             found.write if found.request is not None else {"GET": False, "POST": None}.get(found.method, True)) for found in every]


def test_every_route_of_the_pages_reads_or_is_open_to_all(home: Home) -> None:
    found = routes_of_pages(home)
    assert len(found) > 20
    for method, path in found:
        action = action_of_request(method, path)
        if method in ("GET", "HEAD"):
            assert action in ("read", OPEN)
        else:
            assert (method, path) in OPEN_TO_ALL or (is_form(path) and action == "account"), f"give {method} {path} an action in the table of permissions"


def test_nothing_but_health_the_login_and_what_it_needs_is_open(home: Home) -> None:
    opened = {(method, path) for method, path in routes_of_pages(home) if action_of_request(method, path) == OPEN and method != "HEAD"}
    assert opened <= OPEN_TO_ALL | {("GET", "/static/{name}")}
    assert {path for method, path, _ in endpoints_of_mlflow() if action_of_request(method, path) == OPEN} == set()


def test_a_viewer_can_write_by_no_endpoint_and_read_by_all_others() -> None:
    for method, path, writes in endpoints_of_mlflow():
        action = action_of_request(method, path)
        assert action != "other", f"{method} {path} is in no row of the table of permissions"
        assert writes is None or allows("viewer", action) is not (writes or path in GRANTS), f"{method} {path}"


def test_what_is_asked_natively_takes_a_scientist() -> None:
    import davy.server.app

    natively = re.findall(r'"(\w+)": self\._\w+[,}]', Path(davy.server.app.__file__).read_text())
    assert natively
    for name in natively:
        for method in ("POST", "GET", "PUT"):
            action = action_of_request(method, f"/{name}/late")
            assert (allows("viewer", action), allows("scientist", action)) == (False, True)


@pytest.mark.parametrize(("method", "path"), [
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/runs/search"),
    ("POST", "/api/2.0/mlflow-artifacts/mpu/create/runs/search"),
    ("PUT", "/api/2.0/mlflow/runs/search"),
    ("DELETE", "/api/2.0/mlflow/runs/search"),
    ("POST", "/api/2.0/mlflow/runs/search/"),
    ("POST", "/api/2.0/mlflow/runs//search"),
    ("POST", "/api/2.0/mlflow/runs/search\n"),
    ("POST", "/api/2.0/mlflow/runs/search/../create"),
    ("POST", "/API/2.0/mlflow/runs/search"),
    ("POST", "//api/2.0/mlflow/runs/search"),
    ("POST", "/health/"), ("DELETE", "/runs"), ("POST", "/"), ("POST", ""), ("BREW", "/models"), ("POST", "/login/x"), ("POST", "/journal"),
    ("POST", "/account"),
    ("POST", "/account/tokens/"),
])
def test_no_spelling_of_a_path_opens_it_to_a_viewer(method: str, path: str) -> None:
    action = action_of_request(method, path)
    assert action != OPEN
    assert not allows("viewer", action)


def test_what_is_in_no_row_takes_an_admin() -> None:
    assert action_of_request("POST", "/api/2.0/mlflow/webhooks") == "other"
    assert action_of_verb("explode", {}) == "other"
    assert [allows(role, "other") for role in ROLES] == [False, False, False, True]
    assert [allows(role, "never heard of") for role in ROLES] == [False, False, False, True]


def test_a_role_may_do_what_those_before_it_may() -> None:
    for action in PERMISSIONS:
        allowed = [allows(role, action) for role in ROLES]
        assert allowed == sorted(allowed)
        assert allowed[-1]


def test_every_verb_is_in_the_table_and_what_changes_traffic_takes_a_releaser() -> None:
    assert {verb.name for verb in VERBS} <= known_verbs()
    for verb in ("release", "promote", "pause", "resume", "abort", "rollback"):
        assert not allows("scientist", action_of_verb(verb, {"model": "late"}) or "read")
    assert action_of_verb("traffic", {"model": "late", "weights": ()}) == "read"
    assert action_of_verb("traffic", {"model": "late", "weights": ("late@1=1",)}) == "traffic.move"
    for reason in ("because", ""):
        assert action_of_verb("gate", {"override": reason}) == "gates.override"
    assert action_of_verb("gate", {"override": None}) == "gates.run"
    assert action_of_verb("alias", {"version": "", "delete": False}) == "aliases.write"
    assert action_of_verb("alias", {"version": None, "delete": False}) == "read"
    assert action_of_verb("user", {"action": "list"}) == "read"
    assert action_of_verb("user", {"action": "add"}) == "users.write"


def test_a_refusal_names_the_role_that_it_takes_and_the_way_to_it() -> None:
    with pytest.raises(Forbidden) as found:
        require(Identity("ada", "scientist"), "traffic.move")
    assert str(found.value).splitlines() == ["ada has the role scientist, which may not move traffic.", "That takes the role releaser.",
                                             "Ask an admin: davy user role ada releaser"]
    require(Identity("ada", "releaser"), "traffic.move")


def test_the_page_on_sharing_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "sharing.md").read_text()
    documented = {role: set(may.split("; ")) for role, may in re.findall(r"^\| (\w+) \| (.+) \|$", page, re.M) if role in ROLES}
    assert documented == {role: {found.says for found in PERMISSIONS.values() if found.role == role} for role in ROLES}


def test_roles_are_parsed_and_limited() -> None:
    assert [parse_role(role) for role in ROLES] == list(ROLES)
    with pytest.raises(InvalidInput, match="did you mean 'releaser'"):
        parse_role("releasor")
    assert [lesser("releaser", role) for role in (*ROLES, None)] == ["viewer", "scientist", "releaser", "releaser", "releaser"]
