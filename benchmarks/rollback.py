"""How fast a release is rolled back by a running server: a version that raises on every request goes out as a canary under load.

    python benchmarks/rollback.py [--repeats 5]

From the prediction log: `decided_ms` is from the request that brought the evidence to its limit until the decision was in the database,
`last_ms` until the last request that was still routed to the bad version. `failed` counts requests that were not answered with
200: stable answers what the other one fails to. Prints one JSON object, medians and the largest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from serve import davy_up, make_project

BROKEN = """
class Broken:
    def predict(self, matrix):
        if matrix[0, -1] > 0:
            raise RuntimeError("broken")
        return [0.5] * len(matrix)
"""


def add_broken(root: Path) -> str:
    """Register a version that warms up and then raises on every request."""
    from davy.home import Home
    from davy.registry.models import get_version, register, store_files
    from davy.registry.signature import Signature
    from davy.serving.predictions import feature_set_of

    home = Home(root)
    with home.database.read() as connection:
        digest = get_version(connection, "late", 1).feature_set
    assert digest is not None
    features = feature_set_of(home, digest)
    files = store_files(home.blobs, {"model.pkl": b"\x80\x04\x8c\x06broken\x8c\x06Broken\x93)\x81.", "code/broken.py": BROKEN.encode()})
    with home.database.begin() as connection:
        found = register(connection, clock=home.clock, actor="bench", name="late", format="pickle", files=files, feature_set=features,
                         signature=Signature.of(features.outputs, features.kinds, output="value"))
    home.close()
    return found.reference


class Asking(threading.Thread):
    """Asks for one entity after another, until told to stop."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.asked, self.failed, self.stopped = url, 0, 0, threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            self.asked += 1
            body = json.dumps({"origin": f"A{self.asked % 200}", "carrier": f"C{self.asked % 16}", "distance": 100 + self.asked}).encode()
            request = urllib.request.Request(self.url, body, {"content-type": "application/json", "davy-routing-key": str(self.asked)})
            try:
                urllib.request.urlopen(request, timeout=30).close()
            except OSError:
                self.failed += 1


def once(root: Path, url: str, reference: str) -> dict[str, Any]:
    """One release, from its beginning to its rollback."""
    import polars as pl

    from davy.home import Home
    from davy.release.releases import get_release, start_release
    from davy.serving.predictions import read_predictions

    home, asking = Home(root), Asking(url)
    asking.start()
    time.sleep(0.5)
    release = start_release(home, reference, override="a benchmark", actor="bench")
    while not release.state.ended:
        time.sleep(0.02)
        with home.database.read() as connection:
            release = get_release(connection, release.id)
    time.sleep(1)
    asking.stopped.set()
    asking.join()
    frame = pl.concat([frame.select("logged_time", "status", "release") for frame in read_predictions(home, "late").values()])
    logged = frame.filter((pl.col("release") == release.id) & (pl.col("status") == "error"))["logged_time"].dt.epoch("us").sort().to_list()
    home.close()
    assert release.state.phase == "rolled back", release.state
    needed = int(release.findings.metrics[0].canary.bad)
    deciding = logged[needed - 1]
    return {"decided_ms": (release.updated - deciding) / 1e3, "last_ms": (logged[-1] - deciding) / 1e3, "counted": needed, "errors": len(logged),
            "failed": asking.failed, "asked": asking.asked}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_project(root)
        with (root / "davy.toml").open("a") as file:
            file.write('[serving]\nallow_globals = ["broken.Broken"]\n')
        reference = add_broken(root)
        with davy_up(root) as (url, _):
            found = [once(root, url, reference) for _ in range(given.repeats)]
    print(json.dumps({name: {"median": round(statistics.median(one[name] for one in found), 1), "max": round(max(one[name] for one in found), 1)}
                      for name in found[0]}, indent=1))


if __name__ == "__main__":
    main()
