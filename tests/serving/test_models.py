"""LightGBM through its C library gives the bits of LightGBM's own predict; damaged files are told apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from davy.core.digest import digest_bytes
from davy.errors import CorruptData, InvalidInput, NotFound
from davy.serving.models import LightGBM, load, verify
from serving_kit import lightgbm_text, rows, sklearn_pickle

WIDTH = 7


def write(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("objective", ["binary", "regression", "multiclass"])
@pytest.mark.parametrize("count", [1, 2, 64, 65, 300])
def test_lightgbm_is_equal_in_all_bits_for_any_number_of_rows(tmp_path: Path, objective: str, count: int) -> None:
    matrix, label = rows(WIDTH)
    settings = {"objective": objective, "verbose": -1, "num_threads": 1, "num_leaves": 7} | ({"num_class": 3} if objective == "multiclass" else {})
    target = matrix[:, 5] if objective == "multiclass" else label
    keep = ~np.isnan(target)
    booster = lightgbm.train(settings, lightgbm.Dataset(matrix[keep], target[keep], categorical_feature=[5]), 15)
    booster.save_model(tmp_path / "model.txt")
    expected = lightgbm.Booster(model_file=tmp_path / "model.txt").predict(matrix[:count], num_threads=1)
    found = load(tmp_path, "lightgbm").predict(matrix[:count])
    assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()


def test_lightgbm_takes_rows_that_are_not_contiguous(tmp_path: Path) -> None:
    model = load(write(tmp_path, "model.txt", lightgbm_text(WIDTH)), "lightgbm")
    matrix = rows(WIDTH)[0][:10]
    assert np.array_equal(model.predict(np.asfortranarray(matrix)), model.predict(matrix))


def test_lightgbm_names_a_wrong_number_of_columns(tmp_path: Path) -> None:
    model = load(write(tmp_path, "model.txt", lightgbm_text(WIDTH)), "lightgbm")
    with pytest.raises(InvalidInput, match="got 3 columns"):
        model.predict(np.zeros((1, 3)))


def test_a_lightgbm_worker_imports_neither_lightgbm_nor_sklearn_nor_polars() -> None:
    code = "import sys, davy.serving.worker; print([name for name in ('lightgbm', 'sklearn', 'polars', 'scipy', 'sqlalchemy') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert found.stdout.strip() == "[]"


def test_sklearn_answers_probabilities_values_and_labels(tmp_path: Path) -> None:
    import pickle

    write(tmp_path, "model.pkl", sklearn_pickle(WIDTH))
    matrix = rows(WIDTH)[0][:5]
    own = pickle.loads(sklearn_pickle(WIDTH))
    assert np.array_equal(load(tmp_path, "sklearn", output="probability").predict(matrix), own.predict_proba(matrix)[:, 1])
    assert np.array_equal(load(tmp_path, "sklearn", output="value").predict(matrix), own.predict(matrix))
    assert load(tmp_path, "sklearn", output="label").predict(matrix) == own.predict(matrix).tolist()


def test_a_file_with_other_bytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    data = lightgbm_text(WIDTH)
    write(tmp_path, "model.txt", data[:-100])
    with pytest.raises(CorruptData, match=r"model\.txt is not the one that was registered"):
        verify(tmp_path, {"model.txt": digest_bytes(data)})
    with pytest.raises(CorruptData, match="missing"):
        verify(tmp_path, {"gone.txt": digest_bytes(data)})


@pytest.mark.parametrize(("name", "format"), [("model.txt", "lightgbm"), ("model.pkl", "sklearn")])
def test_what_is_no_model_is_corrupt(tmp_path: Path, name: str, format: str) -> None:
    write(tmp_path, name, b"not a model at all")
    with pytest.raises(CorruptData):
        load(tmp_path, format)


def test_a_folder_without_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="0 files"):
        load(tmp_path, "lightgbm")
    with pytest.raises(InvalidInput, match="unknown"):
        load(tmp_path, "onnx")


def test_one_row_as_bytes_is_the_same_answer(tmp_path: Path) -> None:
    model = load(write(tmp_path, "model.txt", lightgbm_text(WIDTH)), "lightgbm")
    assert isinstance(model, LightGBM)
    for row in rows(WIDTH)[0][:50]:
        assert model.predict_row(row.tobytes()) == model.predict(row[None]).tobytes()
