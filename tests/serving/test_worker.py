"""Frames in, frames out: batches, torn frames, models that raise, models that die and hang."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from davy.core.digest import digest_bytes
from davy.errors import ModelFailed, TimedOut, Unavailable
from davy.serving import frames
from davy.serving.link import Link
from davy.serving.models import Matrix
from davy.serving.sockets import address, listen
from davy.serving.worker import predict_batch, split
from davy.serving.worker_spec import Problem, WorkerSpec
from server_kit import until
from serving_kit import lightgbm_text, rows

WIDTH = 7
MODELS = '''
import os, time

class Moody:
    """Does what the first column says."""

    def predict(self, matrix):
        for row in matrix:
            if row[0] == 13:
                raise ValueError("thirteen")
            if row[0] == 666:
                os._exit(3)
            if row[0] == 1000:
                time.sleep(1.5)
        return matrix[:, 0] * 2
'''


class Doubling:
    width = 1

    def predict(self, matrix: Matrix) -> Matrix:
        if (matrix == 13).any():
            raise ValueError("thirteen")
        self.batch = len(matrix)
        return matrix[:, 0] * 2


def one(number: int, *values: float) -> tuple[int, int, bytes]:
    return number, len(values), np.array(values, dtype="<f8").tobytes()


def answers(data: bytes) -> dict[int, Any]:
    found, at = {}, 0
    while at < len(data):
        length, number, count, columns = frames.ANSWER.unpack_from(data, at)
        body = data[at + frames.ANSWER.size : at + 4 + length]
        if columns in (frames.ERROR, frames.LABELS):
            found[number] = msgspec.json.decode(body, type=Problem if columns == frames.ERROR else list)
        else:
            found[number] = np.frombuffer(body).tolist()
            assert len(found[number]) == count * columns
        at += 4 + length
    return found


def test_what_is_queued_is_predicted_as_one_batch() -> None:
    model = Doubling()
    assert answers(predict_batch(model, 1, [one(1, 1.0), one(2, 2.0, 3.0), one(3, 4.0)])) == {1: [2.0], 2: [4.0, 6.0], 3: [8.0]}
    assert model.batch == 4


def test_only_the_guilty_request_fails() -> None:
    found = answers(predict_batch(Doubling(), 1, [one(1, 1.0), one(2, 2.0, 13.0), one(3, 4.0)]))
    assert (found[1], found[3]) == ([2.0], [8.0])
    assert found[2].code == "ModelFailed"
    assert "ValueError: thirteen" in found[2].came


def test_a_request_of_another_width_fails_alone() -> None:
    found = answers(predict_batch(Doubling(), 1, [one(1, 1.0), (2, 1, b"12345678" * 2), one(3, 4.0)]))
    assert (found[1], found[3]) == ([2.0], [8.0])
    assert found[2].code == "ModelFailed"


def test_frames_are_taken_whole() -> None:
    data = b"".join(frames.request(number, 1, b"abcdefgh") for number in (1, 2, 3))
    for end in range(len(data) + 1):
        taken, found = split(bytearray(data[:end]), 1)
        assert taken == len(found) * 20
        assert [number for number, _, _ in found] == [1, 2, 3][: end // 20]


class Process:
    """A worker with its listening socket, as the supervisor starts it."""

    def __init__(self, folder: Path, spec: WorkerSpec) -> None:
        self.path, self.spec = folder / "worker.sock", folder / "worker.json"
        self.spec.write_bytes(msgspec.json.encode(spec))
        self.listener = listen(self.path)
        self.start()

    def start(self) -> None:
        descriptor = self.listener.fileno()
        self.process = subprocess.Popen([sys.executable, "-m", "davy.serving.worker", str(self.spec), str(descriptor), str(os.getpid())],
                                        pass_fds=[descriptor])

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.listener.close()


def lightgbm_spec(folder: Path) -> WorkerSpec:
    data = lightgbm_text(WIDTH)
    (folder / "model.txt").write_bytes(data)
    return WorkerSpec("fraud", 1, "lightgbm", str(folder), {"model.txt": digest_bytes(data)}, "probability", WIDTH, str(folder))


def moody_spec(folder: Path) -> WorkerSpec:
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "moody_models.py").write_text(MODELS)
    data = b"\x80\x04\x8c\x0cmoody_models\x8c\x05Moody\x93)\x81."
    (folder / "model.pkl").write_bytes(data)
    return WorkerSpec("moody", 1, "pickle", str(folder), {"model.pkl": digest_bytes(data), "code/moody_models.py": digest_bytes(MODELS.encode())}, "value", 1,
                      str(folder), ("moody_models.Moody",))


def test_many_requests_on_the_wire_are_all_answered_with_the_bits_of_lightgbm(tmp_path: Path) -> None:
    import lightgbm

    matrix = rows(WIDTH)[0]
    expected = lightgbm.Booster(model_str=lightgbm_text(WIDTH).decode()).predict(matrix, num_threads=1)

    async def ask(path: Path) -> list[float]:
        link = Link("fraud@1", path, WIDTH, 20, lambda: None)
        await link.warm()
        found = await asyncio.gather(*(link.predict(1, row.tobytes()) for row in matrix))
        together = await link.predict(len(matrix), matrix.tobytes())
        link.close()
        assert [row[0] for row in found] == together
        return together

    with Process(tmp_path, lightgbm_spec(tmp_path)) as worker:
        assert asyncio.run(ask(worker.path)) == expected.tolist()


def test_a_model_that_raises_dies_or_hangs_harms_only_its_request(tmp_path: Path) -> None:
    stuck = []

    async def ask(worker: Process) -> None:
        link = Link("moody@1", worker.path, 1, 1.0, lambda: stuck.append(1))

        async def one(value: float) -> Any:
            return (await link.predict(1, np.array([value]).tobytes()))[0]

        await link.warm()
        assert await one(2.0) == 4.0
        with pytest.raises(ModelFailed, match="ValueError: thirteen"):
            await one(13.0)
        with pytest.raises(TimedOut, match="did not answer within 1 s"):
            await one(1000.0)
        await asyncio.sleep(1)
        assert await one(3.0) == 6.0
        lost = asyncio.ensure_future(one(666.0))
        await asyncio.to_thread(worker.process.wait)
        with pytest.raises(Unavailable, match="away"):
            await lost
        await asyncio.to_thread(worker.start)
        await asyncio.wait_for(link.warm(), 30)
        assert await one(5.0) == 10.0
        link.close()

    with Process(tmp_path, moody_spec(tmp_path)) as worker:
        asyncio.run(ask(worker))


def test_a_request_that_waited_behind_a_slow_one_is_told_so(tmp_path: Path) -> None:
    async def ask(path: Path) -> None:
        link = Link("moody@1", path, 1, 0.4, lambda: None)
        await link.warm()
        slow = link.predict(1, np.array([1000.0]).tobytes())
        with pytest.raises(TimedOut, match="did not answer"):
            await slow
        with pytest.raises(TimedOut, match="busy with an earlier request"):
            await link.predict(1, np.array([2.0]).tobytes())
        await asyncio.sleep(1.5)
        assert await link.predict(1, np.array([3.0]).tobytes()) == [6.0]
        link.close()

    with Process(tmp_path, moody_spec(tmp_path)) as worker:
        asyncio.run(ask(worker.path))


def test_a_worker_that_hangs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davy.serving.link.STUCK_SECONDS", 0.3)

    async def ask(worker: Process) -> None:
        stuck = asyncio.Event()
        link = Link("fraud@1", worker.path, WIDTH, 0.1, stuck.set)
        await link.warm()
        os.kill(worker.process.pid, signal.SIGSTOP)
        for _ in range(8):
            with pytest.raises(TimedOut):
                await link.predict(1, bytes(8 * WIDTH))
        assert stuck.is_set()
        link.close()

    with Process(tmp_path, lightgbm_spec(tmp_path)) as worker:
        asyncio.run(ask(worker))


def test_requests_in_flight_are_sent_again_to_the_next_worker(tmp_path: Path) -> None:
    async def ask(worker: Process) -> None:
        link = Link("fraud@1", worker.path, WIDTH, 30, lambda: None)
        await link.warm()
        os.kill(worker.process.pid, signal.SIGSTOP)
        waiting = [link.predict(1, bytes(8 * WIDTH)) for _ in range(50)]
        await asyncio.sleep(0.05)
        worker.process.kill()
        await asyncio.to_thread(worker.process.wait)
        worker.start()
        found = await asyncio.gather(*waiting)
        assert len({row[0] for row in found}) == 1
        link.close()

    with Process(tmp_path, lightgbm_spec(tmp_path)) as worker:
        asyncio.run(ask(worker))


def test_what_cannot_be_loaded_is_written_beside_the_specification(tmp_path: Path) -> None:
    spec = lightgbm_spec(tmp_path)
    (tmp_path / "model.txt").write_bytes(b"other")
    with Process(tmp_path, spec) as worker:
        assert worker.process.wait(30) == 1
        assert msgspec.json.decode((tmp_path / "worker.error").read_bytes(), type=Problem).code == "CorruptData"


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    spec = tmp_path / "worker.json"
    spec.write_bytes(msgspec.json.encode(lightgbm_spec(tmp_path)))
    code = f"""
import os, subprocess, sys
from pathlib import Path
from davy.serving.sockets import listen
listener = listen(Path({str(tmp_path / "w.sock")!r}))
child = subprocess.Popen([sys.executable, "-m", "davy.serving.worker", {str(spec)!r}, str(listener.fileno()), str(os.getpid())], pass_fds=[listener.fileno()])
print(child.pid, flush=True)
sys.stdin.read()
"""
    from server_kit import alive

    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.communicate()
    until(lambda: not alive(pid))


def test_a_socket_deep_in_the_tree_has_an_address(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-rather-long-folder-name"] * 6) / "worker.sock"
    with listen(deep) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(address(deep))
        listener.accept()[0].close()
    with listen(deep), socket.socket(socket.AF_UNIX) as client:
        client.connect(address(deep))
