"""What every online store must do, as tests that anyone can run over a store of their own.

Subclass `OnlineStoreContract`, or `SharedStoreContract` where other processes can open the same store, say how it is
opened, and let pytest collect the class:

    class TestMyStore(SharedStoreContract):
        opener = staticmethod(MyStore)  # importable, called with a folder
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from davy.engines.online.base import OnlineStore

_T = TypeVar("_T")
PATIENCE = 60.0


class _Undone(Exception):
    """Raised inside a transaction to take it back."""


class OnlineStoreContract:
    """Holds for every store. Each test opens an empty one in a folder of its own.

    Attributes:
        opener: from a folder to the store that lives there.
    """

    opener: ClassVar[Callable[[Path], OnlineStore]]

    @contextmanager
    def opened(self, folder: Path) -> Iterator[OnlineStore]:
        """The store, closed at the end."""
        store = type(self).opener(folder)
        try:
            yield store
        finally:
            store.close()

    def test_what_does_not_exist_is_none(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store, store.snapshot() as snapshot:
            assert snapshot.get("nothing", b"k") is None
            assert store.tables() == []

    def test_values_are_kept_as_they_are(self, tmp_path: Path) -> None:
        values = {b"k": b"", b"\x00": b"\x00\xff" * 3, b"x" * 400: b"long key", b"large": bytes(range(256)) * 4096}
        with self.opened(tmp_path) as store:
            with store.transaction() as transaction:
                for key, value in values.items():
                    transaction.put("t", key, value)
            with store.snapshot() as snapshot:
                assert {key: snapshot.get("t", key) for key in values} == values
                assert snapshot.get("t", b"x" * 399) is None
                assert snapshot.get("other", b"k") is None

    def test_the_last_value_counts(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            for value in (b"1", b"a longer one", b"2"):
                _put(store, "t", b"k", value)
            assert _get(store, "t", b"k") == b"2"

    def test_tables_are_listed_in_order_while_they_have_keys(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            for table in ("state/b", "marks", "state/a"):
                _put(store, table, b"k", b"v")
            assert store.tables() == ["marks", "state/a", "state/b"]
            with store.transaction() as transaction:
                transaction.delete("marks", b"k")
                transaction.drop("state/b")
            assert store.tables() == ["state/a"]

    def test_a_transaction_sees_its_own_writes_and_others_see_them_at_its_end(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            _put(store, "t", b"old", b"1")
            with store.transaction() as transaction:
                transaction.put("t", b"new", b"2")
                transaction.put("fresh", b"k", b"3")
                transaction.delete("t", b"old")
                assert [transaction.get("t", b"new"), transaction.get("fresh", b"k"), transaction.get("t", b"old")] == [b"2", b"3", None]
                seen = _in_thread(lambda: [_get(store, "t", b"new"), _get(store, "fresh", b"k"), _get(store, "t", b"old")])
                assert seen == [None, None, b"1"]
            assert [_get(store, "t", b"new"), _get(store, "fresh", b"k"), _get(store, "t", b"old")] == [b"2", b"3", None]

    def test_a_transaction_that_raises_leaves_nothing(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            _put(store, "t", b"k", b"before")
            _put(store, "kept", b"k", b"v")
            for _ in range(2):
                try:
                    with store.transaction() as transaction:
                        transaction.put("t", b"k", b"after")
                        transaction.put("fresh", b"k", b"v")
                        transaction.drop("kept")
                        raise _Undone
                except _Undone:
                    pass
                assert [_get(store, "t", b"k"), _get(store, "fresh", b"k"), _get(store, "kept", b"k")] == [b"before", None, b"v"]
                assert store.tables() == ["kept", "t"]
            _put(store, "fresh", b"k", b"now")
            assert _get(store, "fresh", b"k") == b"now"

    def test_a_snapshot_stays_as_it_was(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            _put(store, "t", b"k", b"1")
            _put(store, "dropped", b"k", b"v")
            with store.snapshot() as before:

                def change() -> None:
                    with store.transaction() as transaction:
                        transaction.put("t", b"k", b"2")
                        transaction.put("fresh", b"k", b"v")
                        transaction.drop("dropped")

                _in_thread(change)
                assert [before.get("t", b"k"), before.get("fresh", b"k"), before.get("dropped", b"k")] == [b"1", None, b"v"]
                with store.snapshot() as after:
                    assert [after.get("t", b"k"), after.get("fresh", b"k"), after.get("dropped", b"k")] == [b"2", b"v", None]

    def test_values_outlive_their_snapshot(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            _put(store, "t", b"k", b"one" * 1000)
            with store.snapshot() as snapshot:
                value = snapshot.get("t", b"k")
            for number in range(20):
                _put(store, "t", b"k", bytes([number]) * 3000)
            assert value == b"one" * 1000

    def test_removing_what_is_not_there_is_nothing(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            _put(store, "t", b"k", b"v")
            with store.transaction() as transaction:
                transaction.delete("t", b"other")
                transaction.delete("nothing", b"k")
                transaction.drop("nothing")
                transaction.delete("t", b"k")
                transaction.delete("t", b"k")
                transaction.drop("t")
                transaction.drop("t")
            assert store.tables() == []

    def test_a_dropped_table_can_be_filled_again_at_once(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            with store.transaction() as transaction:
                transaction.put("t", b"old", b"1")
            with store.transaction() as transaction:
                transaction.drop("t")
                assert transaction.get("t", b"old") is None
                transaction.put("t", b"new", b"2")
            assert [_get(store, "t", b"old"), _get(store, "t", b"new")] == [None, b"2"]

    def test_writers_wait_for_each_other(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:

            def count() -> None:
                for _ in range(25):
                    with store.transaction() as transaction:
                        transaction.put("t", b"n", str(int(transaction.get("t", b"n") or b"0") + 1).encode())

            _together([count] * 4)
            assert _get(store, "t", b"n") == b"100"

    def test_readers_never_see_half_a_transaction(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            _move(store, 0)
            done = threading.Event()

            def write() -> None:
                for number in range(1, 200):
                    _move(store, number)
                done.set()

            def read() -> None:
                seen = []
                while not done.is_set():
                    with store.snapshot() as snapshot:
                        left, right = snapshot.get("left", b"n") or b"", snapshot.get("right", b"n") or b""
                    assert int(left) + int(right) == 1000
                    seen.append(int(left))
                assert all(a <= b for a, b in pairwise(seen)), "time does not run backwards"

            _together([write, read, read])

    def test_many_tables(self, tmp_path: Path) -> None:
        names = [f"state/{number:03}" for number in range(60)]
        with self.opened(tmp_path) as store:
            with store.transaction() as transaction:
                for name in names:
                    transaction.put(name, b"k", name.encode())
            assert store.tables() == names
            with store.snapshot() as snapshot:
                assert [snapshot.get(name, b"k") for name in names] == [name.encode() for name in names]

    def test_closing_twice_is_nothing(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            _put(store, "t", b"k", b"v")
            store.sync()
            store.sync()
            store.close()


class SharedStoreContract(OnlineStoreContract):
    """Holds for stores that live in a folder: other processes read them, and what was committed outlives every process."""

    def test_it_is_there_when_the_store_is_opened_again(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            _put(store, "t", b"k", b"v")
        with self.opened(tmp_path) as store:
            assert (_get(store, "t", b"k"), store.tables()) == (b"v", ["t"])

    def test_another_process_sees_what_is_committed_and_nothing_else(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store, self._process(tmp_path) as other:
            assert other("get", "t", b"k") is None
            _put(store, "t", b"k", b"1")
            assert other("get", "t", b"k") == b"1"
            with store.transaction() as transaction:
                transaction.put("t", b"k", b"2")
                transaction.put("fresh", b"k", b"v")
                assert other("get", "t", b"k") == b"1"
                assert other("get", "fresh", b"k") is None
            assert other("get", "t", b"k") == b"2"
            assert other("get", "fresh", b"k") == b"v"

    def test_a_snapshot_in_another_process_stays_as_it_was(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store, self._process(tmp_path) as other:
            _put(store, "t", b"k", b"1")
            assert other("hold", "t", b"k") == b"1"
            for number in range(50):
                _put(store, "t", b"k", b"%d" % number * 5000)
            assert other("held", "t", b"k") == b"1"
            assert other("get", "t", b"k") == b"49" * 5000

    def test_writers_in_two_processes_wait_for_each_other(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store, self._process(tmp_path) as other:
            other("begin", "t", b"k", b"theirs")
            waiting = threading.Thread(target=_put, args=(store, "t", b"k", b"ours"))
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive()
            assert _get(store, "t", b"k") is None
            assert other("commit") == "done"
            waiting.join(PATIENCE)
            assert _get(store, "t", b"k") == b"ours"
            assert other("get", "t", b"k") == b"ours"

    def test_a_killed_writer_leaves_what_it_committed_and_nothing_else(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            _put(store, "t", b"ours", b"1")
            for number in range(3):
                with self._process(tmp_path) as other:
                    other("put", "t", b"theirs", b"%d" % number)
                    other("begin", "t", b"ours", b"never")
                    other.kill()
                assert [_get(store, "t", b"ours"), _get(store, "t", b"theirs")] == [b"1", b"%d" % number]
            _put(store, "t", b"ours", b"2")
        with self.opened(tmp_path) as store:
            assert [_get(store, "t", b"ours"), _get(store, "t", b"theirs")] == [b"2", b"2"]

    @contextmanager
    def _process(self, folder: Path) -> Iterator[_Process]:
        process = _Process(type(self).opener, folder)
        try:
            yield process
        finally:
            process.end()


class _Process:
    """A store that is open in a process of its own; call it with what to do there."""

    def __init__(self, opener: Callable[[Path], OnlineStore], folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(opener, folder, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self, *request: Any) -> Any:
        self._pipe.send(request)
        assert self._pipe.poll(PATIENCE), f"no answer to {request[0]}"
        return self._pipe.recv()

    def kill(self) -> None:
        """As `kill -9` does."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join(PATIENCE)

    def end(self) -> None:
        """Let it go, if it still runs."""
        if self._process.is_alive():
            assert self("stop") == "done"
        self._process.join(PATIENCE)
        self._process.close()
        self._pipe.close()


def _serve(opener: Callable[[Path], OnlineStore], folder: Path, pipe: Connection) -> None:
    store, held, writing = opener(folder), None, None
    while True:
        verb, *values = pipe.recv()
        answer: Any = "done"
        if verb == "get":
            answer = _get(store, *values)
        elif verb == "put":
            _put(store, *values)
        elif verb == "hold":
            held = store.snapshot()
            answer = (snapshot := held.__enter__()).get(*values)
        elif verb == "held":
            answer = snapshot.get(*values)
        elif verb == "begin":
            writing = store.transaction()
            writing.__enter__().put(*values)
        elif verb == "commit" and writing is not None:
            writing.__exit__(None, None, None)
        elif verb == "stop":
            if held is not None:
                held.__exit__(None, None, None)
            store.close()
        pipe.send(answer)
        if verb == "stop":
            return


def _put(store: OnlineStore, table: str, key: bytes, value: bytes) -> None:
    with store.transaction() as transaction:
        transaction.put(table, key, value)


def _get(store: OnlineStore, table: str, key: bytes) -> bytes | None:
    with store.snapshot() as snapshot:
        return snapshot.get(table, key)


def _move(store: OnlineStore, number: int) -> None:
    with store.transaction() as transaction:
        transaction.put("left", b"n", str(number).encode())
        transaction.put("right", b"n", str(1000 - number).encode())


def _together(functions: list[Callable[[], None]]) -> None:
    """Run each on a thread of its own; the first error is raised here."""
    errors: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "it waits for ever"


def _in_thread(function: Callable[[], _T]) -> _T:
    found: list[_T] = []
    _together([lambda: found.append(function())])
    return found[0]
