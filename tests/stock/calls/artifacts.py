"""The artifact proxy and what lists through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stock_kit import Pair

PROXY = "/api/2.0/mlflow-artifacts/artifacts"
RAW = {"Content-Type": "application/octet-stream"}
FILES = {
    "notes.txt": b"hello\n",
    "data.csv": b"a,b\n1,2\n",
    "report.html": b"<html></html>",
    "model/MLmodel": b"flavors: {}\n",
    "model/weights.bin": bytes(range(256)),
    "empty.json": b"",
    "plot.png": b"\x89PNG",
    "a b/c%20d.txt": b"spaces",
    "日本/ünï.txt": b"unicode",
    "config.yaml": b"a: 1",
    "script.py": b"pass",
    "log.log": b"",
    "no extension": b"x",
    "deep/er/and/deeper.txt": b"x",
    "x.svg": b"<svg/>",
    "a+b&c=d.txt": b"odd",
    "quote'\".txt": b"q",
    "archive.tar.gz": b"z",
    "book.ipynb": b"{}",
    "page.xml": b"<a/>",
    "style.css": b"a{}",
    "movie.mp4": b"m",
    "table.parquet": b"PAR1",
}


def files(pair: Pair) -> None:
    from urllib.parse import quote

    pair.post("experiments/create", {"name": "artifacts"}, keep={"artifacts": "experiment_id"})
    pair.post("runs/create", {"experiment_id": "$artifacts", "run_name": "files", "start_time": 1}, keep={"files": "run.info.run_id"})
    root = f"{PROXY}/$artifacts/$files/artifacts"
    pair.get(PROXY, path="$artifacts/$files/artifacts")
    pair.get("artifacts/list", run_id="$files")
    for name, content in FILES.items():
        pair.ask("PUT", f"{root}/{quote(name)}", content, headers=RAW)
    for name in FILES:
        pair.ask("GET", f"{root}/{quote(name)}")
        pair.ask("GET", "/get-artifact", run_id="$files", path=name)
    pair.ask("PUT", f"{root}/notes.txt", b"again", headers=RAW)
    pair.ask("GET", f"{root}/notes.txt")
    for path in ("", "model", "deep", "deep/er", "a b", "日本", "nothing", "notes.txt", "model/", "/model", "../..", "model/../model"):
        pair.get("artifacts/list", run_id="$files", **({"path": path} if path else {}))
        pair.get(PROXY, path=f"$artifacts/$files/artifacts/{path}".rstrip("/") if path else "$artifacts/$files/artifacts")
    for query in ({}, {"run_id": "nobody"}, {"run_id": ""}):
        pair.get("artifacts/list", **query)
    for path in ("nothing", "model", "nothing/deeper.txt", "model/"):
        pair.ask("GET", f"{root}/{path}")
    for query in (
        {"run_id": "$files", "known": "missing parameters"},
        {"path": "notes.txt", "known": "missing parameters"},
        {"run_id": "nobody", "path": "notes.txt"},
        {"run_id": "$files", "path": "nothing", "known": "paths within the run"},
        {"run_id": "$files", "path": "../x"},
        {"run_id": "$files", "path": "model", "known": "paths within the run"},
    ):
        pair.ask("GET", "/get-artifact", **query)
    for path in ("notes.txt", "notes.txt", "model", "nothing"):
        pair.ask("DELETE", f"{root}/{path}")
    pair.get("artifacts/list", run_id="$files")
    pair.ask("POST", "/ajax-api/2.0/mlflow/upload-artifact", b"by browser", headers=RAW, run_uuid="$files", path="up/loaded.txt")
    pair.ask("GET", f"{root}/up/loaded.txt")


def bad_paths(pair: Pair) -> None:
    root = f"{PROXY}/$artifacts/$files/artifacts"
    for path in ("../../x", "%2e%2e/x", "%252e%252e/x", "a/%2e%2e/%2e%2e/x", "..%2fx", "a%23b", "file:/etc/passwd"):
        pair.ask("GET", f"{root}/{path}")
        pair.ask("PUT", f"{root}/{path}", b"x", headers=RAW)
    for path in ("%2fetc/passwd", "/etc/passwd", "a%5cb", "..%5cx", "a%00b", "c:/x", "%0a", "./x", "a//b"):
        pair.ask("GET", f"{root}/{path}", known="paths that need cleaning")
        pair.ask("PUT", f"{root}/{path}", b"x", headers=RAW, known="paths that need cleaning")
    for path in ("../..", "..", "%2e%2e", "/etc", "file:///etc", "a#b"):
        pair.get(PROXY, path=path)
        pair.get("artifacts/list", run_id="$files", path=path)
    for path in ("a\\b", "a\x00b"):
        pair.get(PROXY, path=path, known="paths that need cleaning")
        pair.get("artifacts/list", run_id="$files", path=path, known="paths that need cleaning")
    for path in ("../x", "/etc/x"):
        pair.ask("POST", "/ajax-api/2.0/mlflow/upload-artifact", b"x", headers=RAW, run_uuid="$files", path=path)


SCRIPTS = (files, bad_paths)
