"""Pickles of real estimators load; gadgets are named and nothing of them runs."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from davy.errors import CorruptData, UnsafeModel
from davy.serving.unpickle import load, named_globals, refused_globals
from serving_kit import rows

WIDTH = 7


def global_call(module: str, name: str, *texts: str) -> bytes:
    """A pickle that calls module.name with texts."""
    arguments = b"".join(b"X" + struct.pack("<I", len(text)) + text.encode() for text in texts)
    return f"c{module}\n{name}\n".encode() + b"(" + arguments + b"tR."


def stack_call(module: str, name: str, text: str) -> bytes:
    def short(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()

    return b"\x80\x05" + short(module) + short(name) + b"\x93" + short(text) + b"\x85R."


@pytest.mark.parametrize(("module", "name", "argument"), [
    ("os", "system", "touch {}"),
    ("posix", "system", "touch {}"),
    ("subprocess", "getoutput", "touch {}"),
    ("builtins", "eval", "__import__('os').system('touch {}')"),
    ("builtins", "exec", "open('{}', 'w')"),
    ("builtins", "__import__", "os"),
    ("builtins", "getattr", "os"),
    ("timeit", "timeit", "open('{}', 'w')"),
    ("importlib", "import_module", "antigravity"),
    ("runpy", "run_path", "{}"),
    ("operator", "attrgetter", "system"),
    ("functools", "partial", "x"),
    ("numpy.testing._private.utils", "runstring", "open('{}', 'w')"),
    ("numpy.f2py.crackfortran", "myeval", "open('{}', 'w')"),
    ("numpy", "load", "{}"),
    ("numpy", "fromfile", "{}"),
    ("numpy", "frompyfunc", "{}"),
    ("sklearn.utils._testing", "assert_run_python_script_without_output", "open('{}', 'w')"),
    ("sklearn.utils", "resample", "{}"),
    ("sklearn.linear_model._base", "sp", "{}"),
    ("sklearn.base", "os.system", "touch {}"),
    ("sklearn.base", "BaseEstimator.__init__", "x"),
    ("sklearn.datasets._base", "load_files", "{}"),
    ("joblib.numpy_pickle", "load", "{}"),
    ("pickle", "loads", "x"),
    ("shutil", "rmtree", "{}"),
    ("davy.serving.unpickle", "load", "x"),
])
@pytest.mark.parametrize("write", [global_call, stack_call])
def test_a_gadget_is_named_and_does_not_run(tmp_path: Path, module: str, name: str, argument: str, write) -> None:  # type: ignore[no-untyped-def]
    trace = tmp_path / "trace"
    with pytest.raises(UnsafeModel, match=f"{module}.{name}") as caught:
        load(write(module, name, argument.format(trace)))
    assert "allow_globals" in caught.value.fix
    assert refused_globals(write(module, name, argument.format(trace))) == [f"{module}.{name}"]
    assert not trace.exists()


def test_names_hidden_in_the_memo_are_found() -> None:
    hidden = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93\x8c\x02ls\x85R."
    assert named_globals(hidden) == [("os", "system")]
    with pytest.raises(UnsafeModel, match=r"os\.system"):
        load(hidden)


def test_a_name_that_is_computed_is_refused() -> None:
    computed = b"\x80\x04cbuiltins\nstr\n\x8c\x02os\x85R\x8c\x06system\x93\x8c\x02ls\x85R."
    with pytest.raises(UnsafeModel, match="computed while loading"):
        load(computed)


@pytest.mark.parametrize(("data", "what"), [(b"\x80\x02\x82\x01.", "extension"), (b"\x80\x02P1\n.", "persistent"), (b"\x80\x05\x97.", "out-of-band")])
def test_back_doors_of_the_format_are_refused(data: bytes, what: str) -> None:
    with pytest.raises(UnsafeModel, match=what):
        load(data)


def test_an_allowed_class_may_not_be_changed() -> None:
    changed = b"\x80\x04csklearn.linear_model._logistic\nLogisticRegression\nN}\x8c\x07predictcbuiltins\nprint\ns\x86b."
    with pytest.raises(UnsafeModel, match="a change to sklearn"):
        load(changed)


@pytest.mark.parametrize("data", [b"", b"\x80\x05", b"hello", pickle.dumps([1, 2, 3])[:-3], b"\x80\x05R.", b"\x80\x05h\x07."])
def test_what_is_no_pickle_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptData):
        load(data)


def estimators() -> list[object]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
    from sklearn.svm import SVC

    return [
        LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression()), make_pipeline(SimpleImputer(), GaussianNB()),
        RandomForestClassifier(5), GradientBoostingClassifier(n_estimators=3), HistGradientBoostingClassifier(max_iter=3), SVC(),
        SGDClassifier(loss="log_loss"), KNeighborsClassifier(), MLPClassifier((4,), max_iter=1000, tol=1.0),
        VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression())]), CalibratedClassifierCV(GaussianNB()),
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}), make_pipeline(FunctionTransformer(np.arctan), LogisticRegression()),
        make_pipeline(ColumnTransformer([("a", StandardScaler(), slice(0, 5)), ("b", OneHotEncoder(handle_unknown="ignore"), [5])]), LogisticRegression()),
    ]


@pytest.mark.parametrize("estimator", estimators(), ids=lambda estimator: type(estimator).__name__)
def test_estimators_load_and_answer_the_same(estimator) -> None:  # type: ignore[no-untyped-def]
    matrix, label = rows(WIDTH)
    matrix = np.nan_to_num(matrix)
    estimator.fit(matrix, label)
    data = pickle.dumps(estimator, protocol=5)
    assert refused_globals(data) == []
    loaded = load(data)
    assert np.array_equal(loaded.predict(matrix), estimator.predict(matrix))


def test_the_walk_imports_nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "untouched.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path)
    data = b"cuntouched\nModel\n."
    assert refused_globals(data) == ["untouched.Model"]
    assert refused_globals(data, ["untouched"]) == refused_globals(data, ["untouched.Model"]) == []


def test_lightgbm_inside_a_pipeline_loads() -> None:
    from lightgbm import LGBMClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    matrix, label = rows(WIDTH)
    model = make_pipeline(SimpleImputer(), LGBMClassifier(n_estimators=3, verbose=-1)).fit(matrix, label)
    assert np.array_equal(load(pickle.dumps(model, protocol=5)).predict_proba(matrix), model.predict_proba(matrix))


def test_a_class_of_ones_own_loads_only_when_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_models.py").write_text("import os\nclass Threshold:\n    def predict(self, matrix):\n        return matrix[:, 0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    import shop_models  # type: ignore[import-not-found]

    data = pickle.dumps(shop_models.Threshold(), protocol=5)
    with pytest.raises(UnsafeModel, match=r"shop_models\.Threshold"):
        load(data)
    for listed in ("shop_models.Threshold", "shop_models"):
        assert type(load(data, [listed])).__name__ == "Threshold"
    with pytest.raises(UnsafeModel, match=r"shop_models\.os"):
        load(b"cshop_models\nos\n.", ["shop_models"])
