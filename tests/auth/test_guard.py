"""Who is admitted, and what of that is remembered, driven by a clock of its own."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from databases import write_settings
from davy.auth.directory import FRESH_SECONDS
from davy.auth.guard import CSRF, Guard
from davy.auth.local import needs_login
from davy.auth.permissions import Identity
from davy.auth.tokens import list_tokens, revoke_token
from davy.auth.users import disable_user, enable_user, set_password, set_role
from davy.config import Config
from davy.errors import Forbidden, TooManyAttempts, Unauthenticated, Unavailable
from davy.schema.tables import sessions
from davy.store import journal

from .conftest import NOW, PASSWORD, Scope, Team, record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

DAY = 86_400_000_000
WRITE = {"method": "POST", "path": "/api/2.0/mlflow/runs/create"}


@asynccontextmanager
async def guarding(team: Team) -> AsyncIterator[Guard]:
    guard = Guard(team.home)
    yield guard
    guard.close()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def basic(name: str, secret: str) -> dict[str, str]:
    return {"authorization": f"Basic {b64encode(f'{name}:{secret}'.encode()).decode()}"}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def refused(guard: Guard, scope: Scope) -> str:
    with pytest.raises(Unauthenticated) as found:
        await guard.admit(scope)
    return found.value.came


async def change(team: Team, work: Callable[..., Any], **given: Any) -> None:
    with team.home.database.begin() as connection:
        work(connection, clock=team.clock, actor="root", **given)
    await asyncio.sleep(FRESH_SECONDS)


def test_a_token_says_who_asks_alone_or_with_the_name(team: Team) -> None:
    async def work() -> None:
        async with guarding(team) as guard:
            secret = team.token()[1]
            for headers in (bearer(secret), basic("ada", secret), basic("ADA", secret)):
                assert await guard.admit(Scope(headers=headers, **WRITE)) == Identity("ada", "admin", "token")
            await refused(guard, Scope(headers=basic("bob", secret)))
            await refused(guard, Scope(headers=bearer(secret[:-1])))
            await refused(guard, Scope())
    run(work)


def test_a_token_is_limited_by_its_own_role_and_by_its_owners(team: Team) -> None:
    async def work() -> None:
        async with guarding(team) as guard:
            team.add("bob", "releaser", login=False)
            limited, free = team.token("bob", "viewer")[1], team.token("bob")[1]
            assert (await guard.admit(Scope(headers=bearer(limited)))) == Identity("bob", "viewer", "token")
            with pytest.raises(Forbidden, match="bob has the role viewer"):
                await guard.admit(Scope(headers=bearer(limited), **WRITE))
            await guard.admit(Scope(headers=bearer(free), **WRITE))
            await change(team, set_role, name="bob", role="viewer")
            with pytest.raises(Forbidden):
                await guard.admit(Scope(headers=bearer(free), **WRITE))
    run(work)


def test_a_token_ends_when_it_expires_is_revoked_or_its_user_is_disabled(team: Team) -> None:
    async def work() -> None:
        async with guarding(team) as guard:
            brief, revoked, of_bob = team.token(lasts=DAY), team.token(), (team.add("bob", "viewer"), team.token("bob"))[1]
            for _, secret in (brief, revoked, of_bob):
                await guard.admit(Scope(headers=bearer(secret)))
            await change(team, revoke_token, token_id=revoked[0].id)
            await change(team, disable_user, name="bob")
            await refused(guard, Scope(headers=bearer(revoked[1])))
            await refused(guard, Scope(headers=bearer(of_bob[1])))
            team.clock.set(NOW + DAY - 1)
            await guard.admit(Scope(headers=bearer(brief[1])))
            team.clock.set(NOW + DAY)
            await refused(guard, Scope(headers=bearer(brief[1])))
    run(work)


def test_when_a_token_was_used_is_noted(team: Team) -> None:
    found, secret = team.token()

    async def work() -> None:
        async with guarding(team) as guard:
            team.clock.set(NOW + 5)
            await guard.admit(Scope(headers=bearer(secret)))
    run(work)
    with team.home.database.read() as connection:
        assert {token.id: token.used for token in list_tokens(connection)} == {found.id: NOW + 5}


def test_a_password_is_hashed_once_and_no_more_after_it_was_changed(team: Team) -> None:
    from davy.auth.secrets import password_record

    async def work() -> None:
        async with guarding(team) as guard:
            right = Scope(headers=basic("ada", PASSWORD))
            found = await asyncio.gather(*(guard.admit(right) for _ in range(50)))
            assert set(found) == {Identity("ada", "admin", "password")}
            assert len(guard.passwords._known) == 1
            guard.passwords._threads.shutdown()  # from here on, nothing could be hashed
            await guard.admit(right)
            await change(team, set_password, name="ada", record=password_record("ada", "another password"))
            with pytest.raises(RuntimeError, match="shutdown"):
                await guard.admit(right)
    run(work)


def test_an_unknown_user_and_a_disabled_one_are_told_the_same_and_hashed_for_all_the_same(team: Team) -> None:
    async def work() -> None:
        async with guarding(team) as guard:
            team.add("bob", "viewer")
            team.add("robot", "viewer", login=False)
            await guard.admit(Scope(headers=basic("bob", PASSWORD)))
            await change(team, disable_user, name="bob")
            told = [await refused(guard, Scope(headers=basic(name, secret)))
                    for name, secret in (("ada", "wrong"), ("bob", PASSWORD), ("eve", PASSWORD), ("robot", ""), ("(unknown)", "x"))]
            assert set(told) == {"The name or the password is wrong."}
            guard.passwords._threads.shutdown()
            for name in ("ada", "bob", "eve", "robot"):
                with pytest.raises(RuntimeError, match="shutdown"):
                    await guard.admit(Scope(headers=basic(name, "whatever")))
            await change(team, enable_user, name="bob")
            await guard.admit(Scope(headers=basic("bob", PASSWORD)))
    run(work)


def test_failures_in_a_row_are_delayed_journaled_and_forgotten_after_a_success(team: Team) -> None:
    async def work() -> None:
        async with guarding(team) as guard:
            answers = await asyncio.gather(*(guard.admit(Scope(headers=basic("ada", f"guess {number}"))) for number in range(12)), return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["TooManyAttempts"] * 7 + ["Unauthenticated"] * 5
            with pytest.raises(TooManyAttempts) as found:
                await guard.admit(Scope(headers=basic("ada", PASSWORD)))
            assert found.value.after == 1
            # Others are not held up, and neither is a token of the same user.
            await refused(guard, Scope(headers=basic("bob", "guess")))
            await guard.admit(Scope(headers=bearer(team.token()[1])))
            team.clock.set(NOW + found.value.after * 1_000_000)
            await guard.admit(Scope(headers=basic("ada", PASSWORD)))
            for number in range(2):
                await refused(guard, Scope(headers=basic("ada", f"guess again {number}")))
    run(work)
    with team.home.database.read() as connection:
        told = journal.entries(connection, action="login.failed")
    assert [(entry.actor, entry.subject, entry.details) for entry in told] == [
        ("davy", "ada", {"address": "192.0.2.7", "of_this_user": 5, "from_this_address": 5})]


def test_who_is_held_up_by_guesses_from_elsewhere_does_not_hold_up_their_neighbours(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davy.auth.passwords.verify_password", lambda password, record: password == PASSWORD)

    async def work() -> None:
        async with guarding(team) as guard:
            team.add("bob", "viewer")
            for number in range(5):
                await refused(guard, Scope(headers=basic("ada", f"guess {number}"), client="203.0.113.9:5"))
            for _ in range(40):
                with pytest.raises(TooManyAttempts):
                    await guard.admit(Scope(headers=basic("ada", PASSWORD)))
            await guard.admit(Scope(headers=basic("bob", PASSWORD)))
    run(work)


def test_logins_that_come_all_at_once_are_not_queued_without_end(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davy.auth.passwords.MOST_WAITING", 3)

    async def work() -> None:
        async with guarding(team) as guard:
            answers = await asyncio.gather(*(guard.admit(Scope(headers=basic(f"u{number}", "x"))) for number in range(8)), return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["Unauthenticated"] * 3 + ["Unavailable"] * 5
            await guard.admit(Scope(headers=basic("ada", PASSWORD)))
    run(work)


def test_a_name_of_nobody_does_not_reach_the_journal_because_it_may_be_a_password(team: Team) -> None:
    async def work() -> None:
        async with guarding(team) as guard:
            for _ in range(5):
                await refused(guard, Scope(headers=basic("my secret", "ada")))
    run(work)
    with team.home.database.read() as connection:
        assert [entry.subject for entry in journal.entries(connection, action="login.failed")] == ["(unknown)"]


def test_noise_about_nobody_does_not_hide_from_the_journal_what_is_tried_on_somebody(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davy.auth.passwords.verify_password", lambda password, record: False)
    monkeypatch.setattr("davy.auth.passwords.MOST_JOURNALED_AN_HOUR", 2)

    async def work() -> None:
        async with guarding(team) as guard:
            for place, name in enumerate(("x1", "x2", "x3", "x4", "ada")):
                for number in range(5):
                    await refused(guard, Scope(headers=basic(name, f"guess {number}"), client=f"198.51.{place}.{number}:5"))
    run(work)
    with team.home.database.read() as connection:
        assert [entry.subject for entry in journal.entries(connection, action="login.failed")] == ["ada", "(unknown)", "(unknown)"]


def test_many_names_from_one_address_are_delayed_and_only_our_proxies_say_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davy.auth.passwords.verify_password", lambda password, record: False)  # what is counted does not depend on the hash
    team = Team(tmp_path / "team", '[server]\nproxies = ["192.0.2.7", "192.0.2.8"]\n')

    async def tried(guard: Guard, count: int, **given: Any) -> list[type]:
        found = []
        for number in range(count):
            answer = await asyncio.gather(guard.admit(Scope(headers={**basic(f"u{number}", "x"), **given.pop("headers", {})}, **given)), return_exceptions=True)
            found.append(type(answer[0]))
        return found

    async def work() -> None:
        async with guarding(team) as guard:
            assert await tried(guard, 22, client="198.51.100.1:5") == [Unauthenticated] * 20 + [TooManyAttempts] * 2
            assert await tried(guard, 1, client="198.51.100.2:5") == [Unauthenticated]
            assert guard._address(Scope(client="198.51.100.2:5", headers={"x-forwarded-for": "203.0.113.9"})) == "198.51.100.2"
            assert guard._address(Scope(headers={"x-forwarded-for": "6.6.6.6, 203.0.113.9"})) == "203.0.113.9"
            assert guard._address(Scope(headers={"x-forwarded-for": "203.0.113.9, 192.0.2.8"})) == "203.0.113.9"
            assert guard._address(Scope()) == "192.0.2.7"
            assert guard._address(Scope(client="[2001:db8::1]:5")) == "2001:db8::1"
            assert guard._address(Scope(client="[::ffff:192.0.2.7]:5", headers={"x-forwarded-for": "203.0.113.9:61234"})) == "203.0.113.9"
            addresses = [f"[2001:db8::{number:x}]:5" for number in range(25)]
            answers = [(await tried(guard, 1, client=address))[0] for address in addresses]
            assert TooManyAttempts in answers
    run(work)
    team.home.close()


def test_a_session_ends_when_idle_or_old_and_at_logout(team: Team) -> None:
    async def work() -> None:
        async with guarding(team) as guard:
            def cookie(secret: str) -> Scope:
                return Scope(headers={"cookie": f"davy_session={secret}"})

            secret, other = await guard.login(" Ada", PASSWORD, Scope()), await guard.login("ada", PASSWORD, Scope())
            found = await guard.admit(cookie(secret))
            assert found is not None
            assert (found.name, found.role, found.means) == ("ada", "admin", "session")
            for hours in range(11, 24 * 7, 11):
                team.clock.set(NOW + hours * DAY // 24)
                await guard.admit(cookie(secret))
            await refused(guard, cookie(other))  # nobody has used it for so long
            team.clock.set(NOW + 7 * DAY)
            await refused(guard, cookie(secret))
            third = await guard.login("ada", PASSWORD, Scope())
            with team.home.database.read() as connection:
                assert len(connection.execute(sa.select(sessions)).all()) == 1
            await guard.admit(cookie(third))
            await guard.logout(cookie(third))
            await refused(guard, cookie(third))
            await guard.logout(cookie(third))
            await guard.logout(Scope())
            await refused(guard, cookie(""))
            await refused(guard, cookie("no such session"))
    run(work)
    with team.home.database.read() as connection:
        assert [(entry.actor, entry.action) for entry in journal.entries(connection, action="session.")] == [
            ("ada", "session.ended"), *[("ada", "session.started")] * 3]


def test_a_session_that_is_used_is_not_idle_after_its_use_was_noted(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davy.auth.directory.NOTE_SECONDS", 0.0)

    async def work() -> None:
        async with guarding(team) as guard, guarding(team) as other:
            cookie = Scope(headers={"cookie": f"davy_session={await guard.login('ada', PASSWORD, Scope())}"})
            await other.admit(cookie)
            for hours in range(11, 80, 11):
                team.clock.set(NOW + hours * DAY // 24)
                await guard.admit(cookie)
                await asyncio.sleep(FRESH_SECONDS)
                await guard.admit(cookie)  # looks, and notes what was used
            guard._directory._thread.submit(int).result()
            await asyncio.sleep(FRESH_SECONDS)
            await other.admit(cookie)  # a second server has heard of it
    run(work)


def test_what_a_session_changes_takes_its_token_and_what_a_program_changes_none(team: Team) -> None:
    async def work() -> None:
        async with guarding(team) as guard:
            secret, other = await guard.login("ada", PASSWORD, Scope()), await guard.login("ada", PASSWORD, Scope())
            cookie = {"cookie": f"davy_session={secret}"}
            found, foreign = await guard.admit(Scope(headers=cookie)), await guard.admit(Scope(headers={"cookie": f"davy_session={other}"}))
            assert found is not None
            assert foreign is not None
            assert found.csrf != foreign.csrf
            assert found.csrf not in secret
            for sent in ({}, {CSRF: ""}, {CSRF: "x"}, {CSRF: foreign.csrf}, {CSRF: secret}):
                with pytest.raises(Forbidden, match="without its token"):
                    await guard.admit(Scope(headers={**cookie, **sent}, **WRITE))
            assert await guard.admit(Scope(headers={**cookie, CSRF: found.csrf}, **WRITE)) == found
            await guard.admit(Scope(headers=bearer(team.token()[1]), **WRITE))
    run(work)


def test_a_password_change_ends_sessions(team: Team) -> None:
    async def work() -> None:
        async with guarding(team) as guard:
            cookie = {"cookie": f"davy_session={await guard.login('ada', PASSWORD, Scope())}"}
            await guard.admit(Scope(headers=cookie))
            await change(team, set_password, name="ada", record=record())
            await refused(guard, Scope(headers=cookie))
    run(work)


def test_what_is_open_is_never_refused_and_knows_who_is_known(team: Team) -> None:
    async def work() -> None:
        async with guarding(team) as guard:
            secret = team.token()[1]
            assert await guard.admit(Scope(path="/health", headers=bearer(secret))) == Identity("ada", "admin", "token")
            for headers in ({}, bearer("wrong"), basic("ada", PASSWORD), {"authorization": "\xff"}, {"cookie": "davy_session=x"}):
                for path in ("/health", "/login", "/static/davy.css"):
                    assert await guard.admit(Scope(path=path, headers=headers)) is None
    run(work)


def test_without_the_database_nobody_is_admitted_for_long(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with guarding(team) as guard:
            scope = Scope(headers=bearer(team.token()[1]))
            await guard.admit(scope)
            monkeypatch.setattr(team.home.database, "version", lambda: (_ for _ in ()).throw(Unavailable("It is away.")))
            await asyncio.sleep(FRESH_SECONDS)
            await guard.admit(scope)
            monkeypatch.setattr("davy.auth.directory.STALE_SECONDS", 0.0)
            with pytest.raises(Unavailable, match="It is away"):
                await guard.admit(scope)
    run(work)


@pytest.mark.parametrize(("settings", "asked"), [("", False), ('[server]\nhosts = ["davy.example.com"]\n', True), ('[server]\nproxies = ["127.0.0.1"]\n', True),
                                                 ("[auth]\nrequired = true\n", True)])
def test_on_loopback_a_login_is_asked_for_once_others_can_come(tmp_path: Path, settings: str, asked: bool) -> None:
    write_settings(tmp_path, settings)
    config = Config.load(tmp_path)
    assert needs_login(config, "127.0.0.1") is asked
    assert needs_login(config, "0.0.0.0")
