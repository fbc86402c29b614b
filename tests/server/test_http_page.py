"""The requests of docs/reference/http.md, sent as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from server_kit import Running

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"


def davy(folder: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "davy", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_page_shows_is_answered(tmp_path: Path) -> None:
    davy(tmp_path, "init", "shop")
    root = tmp_path / "shop"
    for words in (("ingest",), ("train", "returned"), ("traffic", "returned", "returned@1=1")):
        davy(root, *words)
    requests = re.findall(r"curl -s localhost:8080(\S+) .*?-d '(.*?)'", PAGE.read_text())
    answers: dict[str, Any] = {}
    with Running(root) as server:
        for path, body in requests:
            sent = body.replace("ID", answers.get("/predict/returned", {}).get("prediction_id", ""))
            status, answers[path] = server.post(path, sent.encode())
            assert status == 200, answers[path]
    assert list(answers) == ["/predict/returned", "/events/orders", "/outcomes/returned"]
    told = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in PAGE.read_text().split("## Events")[0].splitlines() if line.startswith("| `")))
    assert set(answers["/predict/returned"]) == {*told} - {"POST", "GET"}
    assert answers["/events/orders"]["accepted"] == answers["/outcomes/returned"]["accepted"] == 1
