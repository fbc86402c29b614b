"""A server that asks who is there, through its front door."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import subprocess
import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec
import pytest

from databases import write_settings
from davy.auth.secrets import password_record
from davy.auth.tokens import new_token, revoke_token
from davy.auth.users import add_user, disable_user
from davy.home import Home
from davy.store import journal
from server_kit import BODY, Running, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from davy.auth.permissions import Role

PASSWORD = "correct horse battery"
CREATE = "/api/2.0/mlflow/experiments/create"
ROLES: tuple[Role, ...] = ("viewer", "scientist", "releaser", "admin")
FORM = "application/x-www-form-urlencoded"


class Asked:
    """An answer with its headers."""

    def __init__(self, server: Running, method: str, path: str, body: bytes | None = None, **headers: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.putrequest(method, path)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value.encode("latin-1"))
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        self.status, self.headers, self.text = response.status, response.headers, response.read().decode()
        connection.close()

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.text)

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="(\w+)"', self.text)
        assert found is not None, self.text
        return found[1]

    def cookie(self, name: str) -> str:
        found = [text.partition(";")[0] for text in self.headers.get_all("set-cookie") or () if text.startswith(f"{name}=")]
        assert len(found) == 1, self.headers
        return found[0]


class Shared(Running):
    """A running server with a user of each role, called as the role is, and a token of each."""

    tokens: dict[str, str]

    def bearer(self, role: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[role]}"}


def basic(name: str, secret: str = PASSWORD) -> str:
    return f"Basic {b64encode(f'{name}:{secret}'.encode()).decode()}"


def prepare(root: Path, settings: str = "[auth]\nrequired = true\n") -> dict[str, str]:
    """A project with users; their tokens."""
    root.mkdir()
    write_settings(root, f'project = "shop"\n{settings}')
    home = Home(root)
    record, found = password_record("nobody", PASSWORD), {}
    with home.database.begin() as connection:
        for role in ROLES:
            add_user(connection, clock=home.clock, actor="tester", name=role, role=role, record=record)
            found[role] = new_token(connection, clock=home.clock, actor="tester", owner=role, name="t")[1]
    home.close()
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    root = tmp_path_factory.mktemp("login") / "shop"
    tokens = prepare(root)
    with Shared(root, "--only", "tracking") as running:
        running.tokens = tokens
        until(lambda: Asked(running, "GET", "/login").status == 200)
        yield running


def create(server: Running, name: str, **headers: str) -> Asked:
    return Asked(server, "POST", CREATE, msgspec.json.encode({"name": name}), content_type="application/json", **headers)


def log_in(server: Running, name: str, password: str = PASSWORD, following: str = "/runs") -> tuple[Asked, Asked]:
    """(the form, the answer to it)."""
    form = Asked(server, "GET", f"/login?{urlencode({'next': following})}")
    fields = {"csrf": form.csrf, "name": name, "password": password, "next": re.findall(r'name="next" value="([^"]*)"', form.text)[0]}
    return form, Asked(server, "POST", "/login", urlencode(fields).encode(), content_type=FORM, cookie=form.cookie("davy_login"),
                       origin=f"http://127.0.0.1:{server.port}")


def test_nobody_is_asked_on_a_laptop(tmp_path: Path) -> None:
    prepare(tmp_path / "shop", "")
    with Running(tmp_path / "shop", "--only", "tracking") as server:
        assert create(server, "free").status == 200
        page = until(lambda: (found := Asked(server, "GET", "/journal")).status == 200 and found)
        assert "Log out" not in page.text
        assert Asked(server, "GET", "/login").status == 404
    assert last_entry(tmp_path / "shop")[:2] == ("tester", "experiment.create")


def test_who_is_not_known_is_told_how_in_the_shape_of_what_they_asked(server: Shared) -> None:
    page = Asked(server, "GET", "/runs?sort=auc", accept="text/html,application/xhtml+xml")
    assert (page.status, page.headers["location"]) == (303, "/login?next=%2Fruns%3Fsort%3Dauc")
    script = Asked(server, "GET", "/runs", accept="*/*", sec_fetch_mode="cors")
    assert (script.status, script.headers["www-authenticate"]) == (401, None)
    native = Asked(server, "POST", "/events/payments", b"[]", content_type="application/json")
    assert (native.status, native.json["error"], native.headers["www-authenticate"]) == (401, "Unauthenticated", 'Basic realm="mlflow"')
    for prefix in ("api", "ajax-api"):
        protocol = Asked(server, "GET", f"/{prefix}/2.0/mlflow/experiments/get?experiment_id=0", accept="text/html")
        assert (protocol.status, protocol.json["error_code"]) == (401, "UNAUTHENTICATED")
        assert protocol.headers["www-authenticate"] == 'Basic realm="mlflow"'
    for path in ("/metrics", "/version", "/", "/nowhere", "/healthy", "/staticky"):
        assert Asked(server, "GET", path).status == 401
    assert Asked(server, "GET", "/static/../journal").status == 404


def test_health_is_open_and_says_the_more_to_whom_is_known(server: Shared) -> None:
    assert Asked(server, "GET", "/health").json == {"status": "ok"}
    assert Asked(server, "GET", "/health", authorization="Bearer wrong").json == {"status": "ok"}
    assert Asked(server, "GET", "/static/davy.css").status == 200


def test_each_role_may_what_the_table_says(server: Shared) -> None:
    for role in ROLES:
        assert Asked(server, "GET", "/metrics", **server.bearer(role)).status == 200
        assert Asked(server, "GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", **server.bearer(role)).status == 200
        answer = create(server, f"of {role}", **server.bearer(role))
        assert answer.status == (403 if role == "viewer" else 200)
    refused = create(server, "no", **server.bearer("viewer")).json
    assert refused["error_code"] == "PERMISSION_DENIED"
    assert "That takes the role scientist." in refused["message"]
    assert Asked(server, "POST", "/events/payments", b"[]", **server.bearer("viewer")).json["error"] == "Forbidden"
    assert Asked(server, "POST", "/some/new/thing", b"{}", **server.bearer("releaser")).status == 403


def test_a_name_comes_with_a_password_or_a_token_and_stands_in_the_journal(server: Shared) -> None:
    assert create(server, "by password", authorization=basic("scientist")).status == 200
    assert last_entry(server.root) == ("scientist", "experiment.create", "by password")
    assert create(server, "by token", authorization=basic("releaser", server.tokens["releaser"])).status == 200
    assert last_entry(server.root)[0] == "releaser"


def test_a_run_belongs_to_who_is_logged_in_whatever_the_client_claims(server: Shared) -> None:
    body = msgspec.json.encode({"experiment_id": "0", "user_id": "the boss"})
    answer = Asked(server, "POST", "/api/2.0/mlflow/runs/create", body, content_type="application/json", **server.bearer("scientist"))
    assert answer.json["run"]["info"]["user_id"] == "scientist"


def test_davys_own_runs_are_sent_with_a_name_or_a_token(server: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import davy

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    address = f"127.0.0.1:{server.port}"
    with davy.run("by name", server=f"http://scientist:{PASSWORD.replace(' ', '%20')}@{address}", system_metrics=False) as named:
        named.log(loss=0.3)
    monkeypatch.setenv("DAVY_TOKEN", server.tokens["releaser"])
    with davy.run("by token", server=f"http://{address}", system_metrics=False) as known:
        known.log(loss=0.3)
    for run, user in ((named, "scientist"), (known, "releaser")):
        answer = Asked(server, "GET", f"/api/2.0/mlflow/runs/get?run_id={run.id}", **server.bearer("viewer"))
        assert (answer.json["run"]["info"]["user_id"], answer.json["run"]["info"]["status"]) == (user, "FINISHED")


@pytest.mark.parametrize("value", [
    "", "Basic", "Basic ", "Bearer", "Bearer ", "Basic \xff\xfe", "\xff", "Basic !!!!", "Basic YQ==", "Digest x", "Bearer \xff", "Bearer davy_",
    "Bearer davy_" + "x" * 43,
    "Basic " + "A" * 30_000, "Bearer " + "x" * 100_000, "Basic " + b64encode(b"\xff\xfe:\xff").decode(), "Basic " + b64encode(b"viewer\0:x").decode(),
    "Basic " + b64encode(b":").decode(), basic("viewer", "davy_"), basic("admin", "\0" * 100), basic("nobody", "x" * 2000),
])
def test_a_bad_authorization_is_a_401(server: Shared, value: str) -> None:
    for path in ("/runs", "/api/2.0/mlflow/experiments/get?experiment_id=0"):
        assert Asked(server, "GET", path, authorization=value).status == 401


@pytest.mark.parametrize("value", ["davy_session", "davy_session=", "davy_session=x", "davy_session=" + "x" * 50_000, "davy_session=\xff\xfe", "=;=;;", "\xff"])
def test_a_bad_cookie_is_a_401(server: Shared, value: str) -> None:
    assert Asked(server, "GET", "/runs", cookie=value).status == 401


def test_a_header_that_no_server_takes_does_not_end_this_one(server: Shared) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(b"GET /runs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic " + b"A" * 2_000_000 + b"\r\n\r\n")
        assert raw.recv(100)[9:12] in (b"400", b"431", b"")
    assert Asked(server, "GET", "/health").status == 200


def test_a_person_logs_in_where_they_were_going_and_out_again(server: Shared) -> None:
    _, answer = log_in(server, "Scientist", following="/journal?subject=late")
    assert (answer.status, answer.headers["location"]) == (303, "/journal?subject=late")
    attributes = next(text for text in answer.headers.get_all("set-cookie") or () if text.startswith("davy_session=")).split("; ")[1:]
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(attributes)
    assert "Secure" not in attributes
    cookie = answer.cookie("davy_session")
    page = Asked(server, "GET", "/journal", cookie=cookie)
    assert page.status == 200
    assert ">scientist</a>" in page.text
    assert Asked(server, "GET", "/login", cookie=cookie).headers["location"] == "/"
    account = Asked(server, "GET", "/account", cookie=cookie)
    assert account.status == 200
    assert 'href="/traces"' in account.text
    assert 'href="/streams"' not in account.text
    split = server.client()  # as HTTP/2 may send them
    split.connection.putrequest("GET", "/journal")
    for value in ("theme=dark", cookie):
        split.connection.putheader("cookie", value)
    split.connection.endheaders()
    assert split.connection.getresponse().status == 200
    split.connection.close()
    assert create(server, "forged", cookie=cookie).status == 403
    assert create(server, "from a page", cookie=cookie, davy_csrf=page.csrf).status == 200
    assert Asked(server, "POST", "/logout", b"csrf=wrong", content_type=FORM, cookie=cookie).status == 403
    assert Asked(server, "GET", "/journal", cookie=cookie).status == 200
    other = log_in(server, "viewer")[1].cookie("davy_session")  # a cookie of the same name that another path has set: the first one counts
    left = Asked(server, "POST", "/logout", f"csrf={page.csrf}".encode(), content_type=FORM, cookie=f"{cookie}; {other}")
    assert (left.status, left.headers["location"]) == (303, "/login")
    assert Asked(server, "GET", "/journal", cookie=cookie, accept="text/html").status == 303
    assert Asked(server, "GET", "/journal", cookie=other).status == 200
    assert Asked(server, "POST", "/logout", b"", content_type=FORM).status == 303


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_logs_in_and_out(server: Shared, scheme: str) -> None:
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", headless=True, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(color_scheme=scheme, viewport={"width": 1366, "height": 768}).new_page()  # type: ignore[arg-type]
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(f"http://127.0.0.1:{server.port}/journal")
        page.get_by_label("Name").fill("releaser")
        page.get_by_label("Name").press("Tab")
        expect(page.get_by_label("Password")).to_be_focused()
        page.keyboard.type(PASSWORD)
        with page.expect_navigation():
            page.keyboard.press("Enter")
        assert page.url.endswith("/journal"), page.locator("main").inner_text()
        assert page.locator("header .who a").inner_text() == "releaser"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("link", name="releaser", exact=True).click()
        page.get_by_label("What it is for").fill("a notebook")
        page.get_by_role("button", name="Make a token").click()
        assert page.locator("#secret").inner_text().startswith("davy_")
        assert page.evaluate("[...document.querySelectorAll('.scroll')].every((box) => box.scrollWidth <= box.clientWidth)")
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
        assert page.locator("h1").inner_text() == "Log in"
        assert not complaints
        browser.close()


def test_a_wrong_login_says_no_more_than_that(server: Shared) -> None:
    tried = (("viewer", "wrong"), ("nobody", "wrong"), ("", ""), ("x" * 500, "y" * 500), ("\0", "\U0001f600"))
    answers = [log_in(server, name, password)[1] for name, password in tried]
    assert {answer.status for answer in answers} == {401}
    assert all("The name or the password is wrong." in answer.text for answer in answers)
    assert "davy_session" not in "".join(str(answer.headers) for answer in answers)


@pytest.mark.parametrize("following", [
    "https://evil.example.com", "//evil.example.com", "/\\evil.example.com", "javascript:alert(1)", "/login", "\\\\evil", "/a\nb", ""])
def test_a_login_leads_nowhere_else(server: Shared, following: str) -> None:
    form = Asked(server, "GET", f"/login?{urlencode({'next': following})}")
    assert 'name="next" value="/"' in form.text


def test_no_other_site_can_log_a_person_in(server: Shared) -> None:
    form = Asked(server, "GET", "/login")
    fields = urlencode({"csrf": form.csrf, "name": "admin", "password": PASSWORD}).encode()
    assert Asked(server, "POST", "/login", fields, content_type=FORM, cookie=form.cookie("davy_login"), origin="https://evil.example.com").status == 403
    assert Asked(server, "POST", "/login", fields, content_type=FORM, cookie=form.cookie("davy_login"), origin="null").status == 403
    assert Asked(server, "POST", "/login", fields, content_type=FORM).status == 403  # without the cookie
    assert Asked(server, "POST", "/login", fields, content_type=FORM, cookie="davy_login=" + "x" * 43).status == 403
    assert "davy_session" not in str(Asked(server, "POST", "/login", b"\xff=%ff", content_type=FORM, cookie=form.cookie("davy_login")).headers)
    assert Asked(server, "POST", "/login", b"name=" + b"x" * 20_000, content_type=FORM).status == 400
    assert Asked(server, "POST", "/login", b"&".join([b"a=b"] * 100), content_type=FORM).status == 400
    large = Asked(server, "POST", "/login", b"name=" + b"x" * 200_000, content_type=FORM)
    assert (large.status, large.json["error"]) == (413, "TooLarge")


def test_a_change_counts_for_the_next_request(server: Shared) -> None:
    home = Home(server.root)
    with home.database.begin() as connection:
        add_user(connection, clock=home.clock, actor="tester", name="brief", role="scientist", record=password_record("brief", PASSWORD))
        kept, secret = new_token(connection, clock=home.clock, actor="tester", owner="brief", name="t")
        other = new_token(connection, clock=home.clock, actor="tester", owner="brief", name="t")[1]
    assert Asked(server, "GET", "/runs", authorization=f"Bearer {secret}").status == 200
    cookie = log_in(server, "brief")[1].cookie("davy_session")
    ways = [{"authorization": f"Bearer {other}"}, {"authorization": basic("brief")}, {"cookie": cookie}]
    assert [Asked(server, "GET", "/runs", **way).status for way in ways] == [200, 200, 200]
    with home.database.begin() as connection:
        revoke_token(connection, clock=home.clock, actor="tester", token_id=kept.id)
    until(lambda: Asked(server, "GET", "/runs", authorization=f"Bearer {secret}").status == 401)
    assert [Asked(server, "GET", "/runs", **way).status for way in ways] == [200, 200, 200]
    with home.database.begin() as connection:
        disable_user(connection, clock=home.clock, actor="tester", name="brief")
    until(lambda: [Asked(server, "GET", "/runs", **way).status for way in ways] == [401, 401, 401])
    home.close()


def test_guessing_is_slowed_down_and_told(server: Shared) -> None:
    path = "/api/2.0/mlflow/experiments/get?experiment_id=0"
    answers = [Asked(server, "GET", path, authorization=basic("guessed", f"guess {number}")) for number in range(8)]
    assert [answer.status for answer in answers][:5] == [401] * 5
    last = answers[-1]
    assert (last.status, last.json["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED")
    assert int(last.headers["retry-after"]) >= 1
    page = log_in(server, "guessed", "once more")[1]
    assert page.status == 429
    assert "Try again in" in page.text
    assert Asked(server, "GET", "/runs", **server.bearer("viewer")).status == 200


def test_predictions_and_events_take_a_scientist(shop: Path) -> None:
    home = Home(shop)
    tokens = {}
    with home.database.begin() as connection:
        for name, role in (("boss", "admin"), ("app", "scientist"), ("guest", "viewer")):
            add_user(connection, clock=home.clock, actor="tester", name=name, role=role, record=None)  # type: ignore[arg-type]
            tokens[name] = {"authorization": f"Bearer {new_token(connection, clock=home.clock, actor='tester', owner=name, name='t')[1]}"}
    home.close()
    write_settings(shop, 'project = "shop"\n[auth]\nrequired = true\n')
    with Running(shop) as server:
        assert server.post("/predict/fraud", BODY)[0] == 401
        assert server.post("/predict/fraud", BODY, tokens["guest"])[0] == 403
        status, answer = server.post("/predict/fraud", BODY, tokens["app"])
        assert (status, answer["model"]) == (200, "fraud")
        assert server.post("/events/payments", [], tokens["guest"])[0] == 403
        assert server.post("/events/payments", [], tokens["app"])[0] == 200
        assert server.health() == {"status": "ok"}
        words = ("predict", "fraud", "card=c1", "amount=12.5", "shop=books", "asked=2026-01-01T00:00:00Z")
        done = subprocess.run([sys.executable, "-m", "davy", *words], cwd=shop, capture_output=True, text=True, check=False,
                              env={**os.environ, "DAVY_TOKEN": tokens["app"]["authorization"].split()[1]})
        assert done.returncode == 0, done.stderr


def test_beyond_this_machine_it_takes_an_admin_a_certificate_and_a_name(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    root.mkdir()

    def up(settings: str) -> str:
        write_settings(root, settings)
        found = subprocess.run([sys.executable, "-m", "davy", "up", "--only", "tracking", "--host", "0.0.0.0", "--port", "0"], cwd=root, capture_output=True,
                               text=True, check=False)
        assert found.returncode == 2
        return found.stderr

    both = up("")
    assert "there is nobody who could log in, and in the clear" in both
    assert "davy user add NAME --role admin" in both
    assert "Set server.certificate" in both
    assert "auth.idle is 'soon'" in up('[auth]\nidle = "soon"\n')
    home = Home(root)
    with home.database.begin() as connection:
        add_user(connection, clock=home.clock, actor="tester", name="ada", role="admin", record=None)
    home.close()
    assert "will not listen on 0.0.0.0: in the clear" in up("")
    assert "without the other" in up('[server]\ncertificate = "cert.pem"\n')
    assert "There is no file" in up('[server]\ncertificate = "cert.pem"\nkey = "key.pem"\n')
    for name in ("cert.pem", "key.pem"):
        (root / name).write_text("no certificate")
    assert "can't be used" in up('[server]\ncertificate = "cert.pem"\nkey = "key.pem"\n')
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], cwd=root, check=True, capture_output=True)
    write_settings(root, '[server]\ncertificate = "cert.pem"\nkey = "key.pem"\nhosts = ["davy.example.com"]\n')
    with Running(root, "--only", "tracking", "--host", "0.0.0.0") as server:
        assert server.line.startswith("Davy is up at https://")
        trusted = ssl.create_default_context(cafile=str(root / "cert.pem"))

        def get(path: str, host: str) -> tuple[int, str]:
            connection = http.client.HTTPSConnection("localhost", server.port, timeout=30, context=trusted)
            connection.request("GET", path, headers={"host": host})
            response = connection.getresponse()
            answer = response.status, str(response.headers.get("set-cookie")) + response.read().decode()
            connection.close()
            return answer

        assert get("/health", f"localhost:{server.port}")[0] == 200
        assert get("/health", "davy.example.com")[0] == 200
        assert get("/health", "192.0.2.77:8080")[0] == 200
        assert get("/health", "evil.example.com")[0] == 403
        assert get("/runs", "localhost")[0] == 401
        assert "Secure" in until(lambda: (found := get("/login", "localhost"))[0] == 200 and found[1])

        def log(**variables: str) -> str:
            away = {"DAVY_URL": f"https://localhost:{server.port}", "DAVY_WAIT": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
            return subprocess.run([sys.executable, "-c", "import davy\nwith davy.run('far') as run: run.log(loss=1)"], cwd=tmp_path, text=True, check=True,
                                  capture_output=True, env=os.environ | away | variables).stderr

        assert "SSL_CERT_FILE=cert.pem names one that is. What is left waits in" in log()
        assert "This server asks who you are" in log(SSL_CERT_FILE=str(root / "cert.pem"))


def last_entry(root: Path) -> tuple[str, str, str]:
    home = Home(root)
    with home.database.read() as connection:
        entry = journal.entries(connection, limit=1)[0]
    home.close()
    return entry.actor, entry.action, entry.subject
