"""A version runs the code that it was trained with, whatever the project's files say today."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from databases import write_settings
from server_kit import Running

FEATURES = '''
import davy
from davy import agg

payments = davy.Stream("payments", time="at", fields={"card": str, "amount": float})


class Card(davy.View):
    stream, entity = payments, "card"
    payments_1h = agg.count(window="1h")
'''
MODELS = '''
import numpy as np
import polars as pl

import davy
from features import Card
from rules.base import FACTOR


class Mine:
    def predict(self, matrix):
        from rules.late import added

        return np.full(len(matrix), FACTOR + added())


def moments():
    return pl.DataFrame({"card": ["a"] * 4, "time": ["2025-01-01T00:00:00Z"] * 4, "worth": [1.0, 2.0, 3.0, 4.0]})


@davy.model(entities=["card"], features=[Card], outcome=davy.Outcome("worth"), spine=moments)
def worth(data):
    return Mine()
'''


def davy(root: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "davy", *arguments], cwd=root, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == code, f"davy {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / "rules").mkdir(parents=True)
    write_settings(root, '[serving]\nallow_globals = ["models.Mine"]\n')
    (root / "features.py").write_text(FEATURES)
    (root / "models.py").write_text(MODELS)
    (root / "rules" / "base.py").write_text("FACTOR = 10\n")
    (root / "rules" / "late.py").write_text("def added():\n    return 1\n")
    (root / "events.jsonl").write_text('{"card": "a", "amount": 1.0, "at": "2025-01-01T00:00:00Z"}\n')
    davy(root, "push", "payments", "events.jsonl")
    return root


def test_old_and_new_versions_run_their_own_code_side_by_side(shop: Path) -> None:
    davy(shop, "train", "worth")
    (shop / "rules" / "base.py").write_text("FACTOR = 2000\n")
    (shop / "models.py").write_text(MODELS.replace("class Mine", "class Yours").replace("return Mine()", "return Yours()"))
    write_settings(shop, '[serving]\nallow_globals = ["models.Mine", "models.Yours"]\n')
    davy(shop, "train", "worth")
    (shop / "models.py").unlink()
    (shop / "rules" / "late.py").write_text("def added():\n    return 500000\n")
    davy(shop, "traffic", "worth", "worth@1=0.5", "worth@2=0.5")
    with Running(shop) as server:
        asked: list[Any] = [server.post(f"/predict/worth/versions/{version}", {"card": "a"}) for version in (1, 2)]
    assert [(status, answer["prediction"]) for status, answer in asked] == [(200, 11.0), (200, 2001.0)]
    why = json.loads(davy(shop, "why", asked[0][1]["prediction_id"], "--json"))
    assert sorted(why["code"]) == ["features.py", "models.py", "rules/base.py", "rules/late.py"]
    assert "├─ code features.py, models.py, rules/base.py, rules/late.py" in davy(shop, "why", asked[1][1]["prediction_id"])
    again = json.loads(davy(shop, "reproduce", "worth@1", "--json").splitlines()[0])
    assert again["grade"] == "same bytes"


def test_changed_code_of_a_version_is_noticed(shop: Path) -> None:
    davy(shop, "train", "worth")
    blob = next(file for file in (shop / ".davy").rglob("*") if file.is_file() and file.read_bytes() == b"FACTOR = 10\n")
    blob.chmod(0o644)
    blob.write_bytes(b"FACTOR = 99\n")
    with Running(shop) as server:
        status, answer = server.post("/predict/worth/versions/1", {"card": "a"})
    assert (status, answer["error"]) == (500, "CorruptData")


def test_code_that_needs_the_projects_folder_is_refused_at_training(shop: Path) -> None:
    (shop / "rules" / "base.py").write_text('from pathlib import Path\n\nFACTOR = int((Path(__file__).parent / "factor.txt").read_text())\n')
    (shop / "rules" / "factor.txt").write_text("10")
    said = davy(shop, "train", "worth", code=2)
    assert "can't be imported apart from its folder: FileNotFoundError" in said
    assert "belongs into the model's attributes" in said
