"""What a person does about their own tokens and password, on a page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from davy.home import Home
from davy.store import journal
from server_kit import until

from .test_login import FORM, PASSWORD, Asked, Shared, basic, create, log_in, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    root = tmp_path_factory.mktemp("account") / "shop"
    tokens = prepare(root)
    with Shared(root, "--only", "tracking") as running:
        running.tokens = tokens
        until(lambda: Asked(running, "GET", "/login").status == 200)
        yield running


class Person:
    """Somebody who is logged in in a browser."""

    def __init__(self, server: Shared, name: str, password: str = PASSWORD) -> None:
        self.server, self.cookie = server, log_in(server, name, password)[1].cookie("davy_session")
        self.csrf = self.get("/account").csrf

    def get(self, path: str) -> Asked:
        return Asked(self.server, "GET", path, cookie=self.cookie)

    def send(self, path: str, csrf: str | None = None, **fields: str) -> Asked:
        body = urlencode({"csrf": self.csrf if csrf is None else csrf, **fields}).encode()
        return Asked(self.server, "POST", path, body, content_type=FORM, cookie=self.cookie)


def secret_of(page: Asked) -> str:
    found = re.search(r'<pre id="secret">(davy_[\w-]+)</pre>', page.text)
    assert found is not None, page.text
    return found[1]


def told(server: Shared) -> tuple[str, str, str]:
    home = Home(server.root)
    with home.database.read() as connection:
        entry = next(entry for entry in journal.entries(connection) if not entry.action.startswith("session."))
    home.close()
    return entry.actor, entry.action, entry.subject


def test_a_person_makes_a_token_for_a_program_and_takes_it_back(server: Shared) -> None:
    kim = Person(server, "scientist")
    page = kim.send("/account/tokens", name="the <cluster>", role="scientist", expires="30d")
    assert page.status == 200
    assert page.headers["cache-control"] == "no-store"
    assert "the &lt;cluster&gt;" in page.text
    secret = secret_of(page)
    assert told(server) == ("scientist", "token.created", "scientist")
    assert create(server, "from the cluster", authorization=f"Bearer {secret}").status == 200
    again = kim.get("/account")
    assert secret not in again.text
    token = re.findall(r'name="token" value="(\w+)"', again.text)[0]
    assert "is revoked" in kim.send("/account/revoke", token=token).text
    assert told(server) == ("scientist", "token.revoked", "scientist")
    assert create(server, "too late", authorization=f"Bearer {secret}").status == 401


def test_a_token_for_less_may_less_and_none_may_more(server: Shared) -> None:
    kim = Person(server, "scientist")
    secret = secret_of(kim.send("/account/tokens", name="reader", role="viewer", expires="never"))
    assert create(server, "no", authorization=f"Bearer {secret}").status == 403
    for fields in ({"role": "admin"}, {"role": "releaser"}, {"role": "boss"}, {"expires": "9999d"}, {"name": ""}, {"name": "x" * 101}):
        page = kim.send("/account/tokens", **{"name": "n", "role": "viewer", "expires": "7d", **fields})
        assert page.status == 400
        assert 'role="alert"' in page.text
        assert 'id="secret"' not in page.text


def test_a_token_of_somebody_else_is_not_theirs_to_revoke(server: Shared) -> None:
    boss, kim = Person(server, "admin"), Person(server, "scientist")
    token = re.findall(r'name="token" value="(\w+)"', boss.get("/account").text)[0]
    assert kim.send("/account/revoke", token=token).status == 403
    assert kim.send("/account/revoke", token="nothing like it").status == 404
    assert create(server, "still valid", **server.bearer("admin")).status == 200


@pytest.mark.parametrize("path", ["/account/tokens", "/account/revoke", "/account/password"])
def test_a_form_takes_the_token_of_its_session_and_no_program_can_send_one(server: Shared, path: str) -> None:
    kim, other = Person(server, "scientist"), Person(server, "scientist")
    for csrf in ("", "x", other.csrf):
        assert kim.send(path, csrf, name="n", role="viewer", expires="7d").status == 403
    body = urlencode({"csrf": kim.csrf, "name": "n", "role": "viewer", "expires": "7d"}).encode()
    for headers in (server.bearer("admin"), {"authorization": basic("admin")}):
        assert Asked(server, "POST", path, body, content_type=FORM, **headers).status == 403
    assert Asked(server, "POST", path, body, content_type=FORM).status == 401
    assert "action=" not in re.sub('action="/search"', "", Asked(server, "GET", "/account", **server.bearer("viewer")).text)


def test_a_new_password_takes_the_old_one_and_ends_all_other_sessions(server: Shared) -> None:
    vera, elsewhere = Person(server, "viewer"), Person(server, "viewer")
    for fields in ({"old": "wrong"}, {"again": "another"}, {"new": "short", "again": "short"}):
        page = vera.send("/account/password", **{"old": PASSWORD, "new": "a better password", "again": "a better password", **fields})
        assert page.status in (400, 401)
        assert 'role="alert"' in page.text
    assert elsewhere.get("/account").status == 200
    done = vera.send("/account/password", old=PASSWORD, new="a better password", again="a better password")
    assert (done.status, done.headers["location"]) == (303, "/account?changed")
    assert told(server) == ("viewer", "user.password", "viewer")
    assert elsewhere.get("/account").status == 401
    assert vera.get("/account").status == 401
    vera.cookie = done.cookie("davy_session")
    assert "The password is changed" in vera.get("/account?changed").text
    assert Asked(server, "GET", "/runs", authorization=basic("viewer")).status == 401
    assert Asked(server, "GET", "/runs", authorization=basic("viewer", "a better password")).status == 200
