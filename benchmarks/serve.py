"""How fast one prediction is answered: POST /predict/late with online features, derived features, LightGBM and the log.

    python benchmarks/serve.py [--seconds 5] [--repeats 3]

Makes a project with two views (ten windowed features), three derived features and a LightGBM model of 100 trees with 31
leaves, loads 50,000 events, starts `davy up`, and lets wrk ask for different entities, first with one client, then with 32.
In the same run wrk asks an empty RSGI application on Granian, so that the ratio says what Davy adds whatever the machine.
Prints one JSON object: medians over the repeats, and the server's CPU time for each request, which other work on the
machine hardly moves. `judged` is a server in the middle of a release that the controller judges all along, at half of the
traffic each, beside `by_hand`, the same weights without one: logging is on in both, and their difference is what following,
counting and deciding take from the requests.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENTS, KEYS = 50_000, 200
SCRIPT = """
local bodies = {}
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
local at = 0
request = function()
  at = at % #bodies + 1
  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, bodies[at])
end
done = function(s, l, r)
  local e = s.errors
  io.write(string.format('JSON {"requests":%d,"duration_us":%d,"p50_us":%.1f,"p99_us":%.1f,"bad":%d}\\n', s.requests, s.duration,
    l:percentile(50), l:percentile(99), e.status + e.connect + e.read + e.write + e.timeout))
end
"""
EMPTY = '''
class Empty:
    async def __rsgi__(self, scope, protocol):
        if scope.method == "POST":
            await protocol()
        protocol.response_bytes(200, [("content-type", "application/json")], b'{"ok":true}')

app = Empty()
'''


def make_project(root: Path) -> None:
    """Definitions, history, and a registered version with all the traffic."""
    from davy import agg
    from davy.events.client import connect
    from davy.features.define import Resolver, Stream, View, derive
    from davy.home import Home
    from davy.registry.models import register, store_files
    from davy.registry.signature import Signature
    from davy.release.traffic import set_traffic

    (root / "davy.toml").write_text('project = "bench"\n[release]\nsteps = [50]\nmin_time = "1h"\nlatency_slack = "1s"\n')
    stream = Stream("flights", time="at", fields={"origin": str, "carrier": str, "delay": float})

    class Airport(View):
        departures_1h, departures_1d = agg.count(window="1h"), agg.count(window="1d")
        mean_3h, mean_7d, worst_1d = agg.mean("delay", window="3h"), agg.mean("delay", window="7d"), agg.max("delay", window="1d")
        locals().update(stream=stream, entity="origin")

    class Carrier(View):
        flown_1d, flown_7d = agg.count(window="1d"), agg.count(window="7d")
        late_1d, late_7d, spread_7d = agg.mean("delay", window="1d"), agg.mean("delay", window="7d"), agg.std("delay", window="7d")
        locals().update(stream=stream, entity="carrier")

    @derive
    def busy(departures_1h, departures_1d):  # type: ignore[no-untyped-def]
        return departures_1h * 24 - departures_1d

    @derive
    def worse(mean_3h, mean_7d):  # type: ignore[no-untyped-def]
        return mean_3h - mean_7d

    @derive
    def long(distance, late_7d):  # type: ignore[no-untyped-def]
        return distance * late_7d

    features = Resolver([Airport, Carrier], [busy, worse, long]).feature_set(
        [Airport, Carrier, busy, worse, long, "distance"], entities=["origin", "carrier"], request={"distance": int})
    home = Home(root)
    with connect(home) as log:
        log.push_history(stream.spec, history())
        log.ensure_views([(stream.spec, view) for view in features.views])
    files = store_files(home.blobs, {"model.txt": train(len(features.outputs))})
    for _ in range(2):
        with home.database.begin() as connection:
            register(connection, clock=home.clock, actor="bench", name="late", format="lightgbm", files=files, feature_set=features,
                     signature=Signature.of(features.outputs, features.kinds, output="probability", classes=(0, 1)))
    set_traffic(home, "late", {"late@1": 1.0}, actor="bench")
    home.close()


def history() -> Any:
    """Events over the last week, by key."""
    import numpy as np
    import polars as pl

    random = np.random.default_rng(0)
    end = datetime.now(UTC) - timedelta(seconds=1)
    seconds = np.sort(random.uniform(0, 7 * 86_400, EVENTS))
    return pl.DataFrame({"at": [end - timedelta(days=7) + timedelta(seconds=float(second)) for second in seconds],
                         "origin": [f"A{number}" for number in random.integers(0, KEYS, EVENTS)],
                         "carrier": [f"C{number}" for number in random.integers(0, 16, EVENTS)], "delay": random.normal(10, 30, EVENTS).round(1)})


def train(width: int) -> bytes:
    """100 trees with 31 leaves on noise of the right shape."""
    import lightgbm
    import numpy as np

    random = np.random.default_rng(0)
    matrix = random.normal(10, 30, (20_000, width))
    label = (matrix[:, 0] + matrix[:, 1] + random.normal(0, 20, 20_000) > 20).astype(int)
    settings = {"objective": "binary", "num_leaves": 31, "verbose": -1, "num_threads": 1, "seed": 0}
    return bytes(lightgbm.train(settings, lightgbm.Dataset(matrix, label), 100).model_to_string().encode())


@contextmanager
def davy_up(root: Path) -> Iterator[tuple[str, int]]:
    """The whole server; yields the address and the process id."""
    process = subprocess.Popen([sys.executable, "-m", "davy", "up", "--port", "0"], cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("davy up did not come up")
        yield f"{line.split()[-1]}/predict/late", process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def empty_up(root: Path) -> Iterator[tuple[str, int]]:
    """Granian with nothing behind it."""
    import socket
    import urllib.request

    (root / "empty_app.py").write_text(EMPTY)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "granian", "--interface", "rsgi", "--port", str(port), "--no-ws", "--log-level", "warning", "empty_app:app"]
    process = subprocess.Popen(command, cwd=root)
    try:
        for _ in range(200):
            time.sleep(0.05)
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
                break
            except OSError:
                continue
        yield f"http://127.0.0.1:{port}/predict/late", process.pid
    finally:
        process.terminate()
        process.wait()


def wrk(url: str, pid: int, root: Path, clients: int, seconds: int) -> dict[str, float]:
    """One measurement."""
    before = cpu_seconds(pid)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s", "-s", str(root / "ask.lua"), url]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "BODIES": str(root / "bodies")})
    told = json.loads(found.stdout.rsplit("JSON ", 1)[1])
    used = cpu_seconds(pid) - before
    return {"requests_per_s": told["requests"] / told["duration_us"] * 1e6, "p50_us": told["p50_us"], "p99_us": told["p99_us"], "bad": told["bad"],
            "cpu_us": used * 1e6 / max(1, told["requests"])}


def cpu_seconds(pid: int) -> float:
    """Used so far by a process and all below it."""
    parents: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        words = text[text.rindex(")") + 2 :].split()
        parents.setdefault(int(words[1]), []).append(int(path.parent.name))
        used[int(path.parent.name)] = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    total, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        total += used.get(one, 0.0)
        waiting += parents.get(one, [])
    return total


def measure(root: Path, seconds: int, repeats: int) -> dict[str, Any]:
    """Medians for both servers, at one client and at 32, taking turns."""
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeats):
        for name, up in (("davy", davy_up), ("empty", empty_up)):
            with up(root) as (url, pid):
                wrk(url, pid, root, 8, 1)
                for clients in (1, 32):
                    found.setdefault(f"{name}_{clients}", []).append(wrk(url, pid, root, clients, seconds))
    return medians(found)


def measure_release(root: Path, seconds: int, repeats: int) -> dict[str, Any]:
    """Medians at 32 clients with half of the traffic each for two versions: set by hand, and by a release that is judged meanwhile."""
    from davy.home import Home
    from davy.release.releases import ask, read_releases, start_release
    from davy.release.traffic import set_traffic

    found: dict[str, list[dict[str, float]]] = {}
    home = Home(root)
    for _ in range(repeats):
        with davy_up(root) as (url, pid):
            set_traffic(home, "late", {"late@1": 0.5, "late@2": 0.5}, actor="bench")
            wrk(url, pid, root, 8, 2)
            found.setdefault("by_hand", []).append(wrk(url, pid, root, 32, seconds))
            set_traffic(home, "late", {"late@1": 1.0}, actor="bench")
            start_release(home, "late@2", override="a benchmark", actor="bench")
            wrk(url, pid, root, 8, 2)
            found.setdefault("judged", []).append(wrk(url, pid, root, 32, seconds))
            with home.database.read() as connection:
                release = read_releases(connection, "late")[0]
            assert release.state.phase == "step", release.state
            assert release.findings.canary > 0
            ask(home, "late", "abort", actor="bench")
    home.close()
    return medians(found)


def medians(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Of each figure."""
    return {name: {key: round(statistics.median(one[key] for one in runs), 1) for key in runs[0]} for name, runs in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_project(root)
        (root / "ask.lua").write_text(SCRIPT)
        bodies = [{"origin": f"A{number}", "carrier": f"C{number % 16}", "distance": 100 + number} for number in range(KEYS)]
        (root / "bodies").write_text("".join(json.dumps(body) + "\n" for body in bodies))
        found = measure(root, given.seconds, given.repeats) | measure_release(root, given.seconds, given.repeats)
    found["ratio"] = {"p50_at_1": round(found["davy_1"]["p50_us"] / found["empty_1"]["p50_us"], 2),
                      "judged_to_by_hand": round(found["judged"]["requests_per_s"] / found["by_hand"]["requests_per_s"], 3),
                      "rate_at_32": round(found["davy_32"]["requests_per_s"] / found["empty_32"]["requests_per_s"], 3)}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
