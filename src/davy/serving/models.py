"""A version's files on disk, as something that predicts. Runs in the version's own process, never in the gateway.

LightGBM is driven through its C library without importing the `lightgbm` package (0.02 s against 2.8 s), one row at a
time through its fast entry point, which gives the same bits as `Booster.predict`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from davy.core.digest import digest_bytes
from davy.core.fields import Kind
from davy.errors import CorruptData, InvalidInput, MissingExtra, NotFound
from davy.serving.logged import Estimator, Logged, Matrix, Output, read_skops

_NORMAL, _FLOAT64, _ROW_MAJOR, _ALL_TREES = 0, 1, 1, -1
_SINGLE_ROWS = 64
_ONE_THREAD = b"num_threads=1"


class Model(Protocol):
    """What a worker asks of a loaded model."""

    width: int | None
    """How many columns it takes, where it knows."""

    def predict(self, matrix: Matrix) -> Matrix | list[Any]:
        """Answers for (n, d) rows: n floats, an (n, k) matrix of class probabilities, or a list of n labels."""
        ...


def load(folder: Path, format: str, *, output: Output = "value", allow_globals: Sequence[str] = (), columns: Sequence[str] = (),
         kinds: Sequence[Kind] = ()) -> Model:
    """The model that lies in this folder.

    Args:
        columns, kinds: the names and kinds of its columns, of a model that was logged elsewhere; it may know them by name.

    Raises:
        UnsafeModel: a pickle that names what is not on the allow-list.
        CorruptData: the file can't be read as what it is said to be.
        MissingExtra: the library that it needs is not installed.
    """
    if format == "lightgbm":
        return LightGBM(_only_file(folder, ".txt"))
    if format in ("sklearn", "pickle"):
        model = Pickled(_only_file(folder, ".pkl").read_bytes(), output, allow_globals)
        return _logged(model, columns, kinds) if columns else model
    if format == "skops":
        return _logged(Estimator(read_skops(_only_file(folder, ".skops").read_bytes(), allow_globals), output), columns, kinds)
    if format == "pyfunc":
        from davy.serving.pyfunc import Pyfunc

        return Logged(Pyfunc(folder, output, columns), columns, kinds)
    raise InvalidInput(f"The model format {format!r} is unknown.", "Known are lightgbm, sklearn, skops, pickle and pyfunc.", "Register the version again.")


def verify(folder: Path, files: dict[str, str]) -> None:
    """Check each file against its digest, before anything reads it.

    Raises:
        CorruptData: another content, or no file; names it.
    """
    for name, digest in files.items():
        path = folder / name
        found = digest_bytes(path.read_bytes()) if path.exists() else "missing"
        if found != digest:
            raise CorruptData(f"The model's file {name} is not the one that was registered: {found} instead of {digest}.", "",
                              "Restore the file in the store from a backup, or train and register the version again.")


class LightGBM:
    """A LightGBM booster from its text file, with one thread."""

    def __init__(self, path: Path) -> None:
        self._library = library = _lightgbm()
        self._handle = ctypes.c_void_p()
        iterations = ctypes.c_int()
        self._check(library.LGBM_BoosterCreateFromModelfile(str(path).encode(), ctypes.byref(iterations), ctypes.byref(self._handle)), path)
        features, classes = ctypes.c_int(), ctypes.c_int()
        self._check(library.LGBM_BoosterGetNumFeature(self._handle, ctypes.byref(features)), path)
        self._check(library.LGBM_BoosterGetNumClasses(self._handle, ctypes.byref(classes)), path)
        self.width: int | None = features.value
        self._classes = classes.value
        self._fast = ctypes.c_void_p()
        self._check(library.LGBM_BoosterPredictForMatSingleRowFastInit(
            self._handle, _NORMAL, 0, _ALL_TREES, _FLOAT64, ctypes.c_int32(features.value), _ONE_THREAD, ctypes.byref(self._fast)), path)
        self._single = library.LGBM_BoosterPredictForMatSingleRowFast
        self._one = (ctypes.c_double * classes.value)()
        self._one_at = ctypes.byref(self._one)
        self._length = ctypes.c_int64()
        self._length_at = ctypes.byref(self._length)

    def predict(self, matrix: Matrix) -> Matrix:
        rows, columns = matrix.shape
        if columns != self.width:
            raise InvalidInput(f"The model got {columns} columns.", f"It was trained on {self.width}.", "Register the version again with its signature.")
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        out = np.empty(rows * self._classes, dtype=np.float64)
        if rows <= _SINGLE_ROWS:
            self._row_by_row(matrix, out)
        else:
            self._check(self._library.LGBM_BoosterPredictForMat(
                self._handle, ctypes.c_void_p(matrix.ctypes.data), _FLOAT64, ctypes.c_int32(rows), ctypes.c_int32(columns), _ROW_MAJOR, _NORMAL,
                0, _ALL_TREES, _ONE_THREAD, self._length_at, ctypes.c_void_p(out.ctypes.data)))
        return out if self._classes == 1 else out.reshape(rows, self._classes)

    def predict_row(self, row: bytes) -> bytes:
        """`predict` for one row as little-endian float64 bytes: the way of a request that is alone, without an array."""
        if self._single(self._fast, ctypes.c_char_p(row), self._length_at, self._one_at) != 0:
            self._check(-1)
        return bytes(self._one)

    def _row_by_row(self, matrix: Matrix, out: Matrix) -> None:
        single, fast, length = self._single, self._fast, self._length_at
        row_bytes, out_bytes = matrix.shape[1] * 8, self._classes * 8
        source, target = matrix.ctypes.data, out.ctypes.data
        for _ in range(matrix.shape[0]):
            if single(fast, ctypes.c_void_p(source), length, ctypes.c_void_p(target)) != 0:
                self._check(-1)
            source += row_bytes
            target += out_bytes

    def _check(self, status: int, path: Path | None = None) -> None:
        if status == 0:
            return
        said = self._library.LGBM_GetLastError().decode("utf-8", "replace")
        if path is not None:
            raise CorruptData(f"{path.name} is not a LightGBM model: {said}.", "", "Train and register the version again.")
        raise InvalidInput(f"LightGBM refused the rows: {said}.")


class Pickled(Estimator):
    """A scikit-learn estimator, or any object with `predict`, from a pickle that passed the allow-list."""

    def __init__(self, data: bytes, output: Output, allow_globals: Sequence[str]) -> None:
        from davy.serving.unpickle import load as unpickle

        super().__init__(unpickle(data, allow_globals), output)


class Trees:
    """LightGBM's estimator through its booster: the same answers without the estimator's own checks, which take a thousand times as long."""

    def __init__(self, estimator: Estimator) -> None:
        model = estimator.inner
        with tempfile.NamedTemporaryFile(suffix=".txt") as file:
            file.write(model.booster_.model_to_string().encode())
            file.flush()
            self._booster = LightGBM(Path(file.name))
        self._classes: list[Any] | None = model.classes_.tolist() if estimator.output == "label" and hasattr(model, "classes_") else None
        self.width = self._booster.width

    def predict(self, matrix: Matrix) -> Matrix | list[Any]:
        found, classes = self._booster.predict(matrix), self._classes
        if classes is None:
            return found
        chosen = (found > 1.0 - found).astype(int) if found.ndim == 1 else found.argmax(axis=1)
        return [classes[place] for place in chosen]

    @staticmethod
    def fits(estimator: Estimator) -> bool:
        """Whether this is such an estimator, with an objective that the booster applies by itself, and whose answers are what `predict` returns."""
        model = estimator.inner
        return (f"{type(model).__module__}.{type(model).__name__}" in ("lightgbm.sklearn.LGBMClassifier", "lightgbm.sklearn.LGBMRegressor")
                and isinstance(model.objective_, str) and (estimator.output == "label") == hasattr(model, "classes_"))


def _logged(estimator: Estimator, columns: Sequence[str], kinds: Sequence[Kind]) -> Logged:
    return Logged(Trees(estimator) if Trees.fits(estimator) else estimator, columns, kinds)


def _only_file(folder: Path, suffix: str) -> Path:
    found = sorted(folder.rglob(f"*{suffix}"))
    if len(found) != 1:
        raise NotFound(f"The version holds {len(found)} files ending in {suffix}.", "It must hold exactly one.", "Register the version again.")
    return found[0]


def _lightgbm() -> ctypes.CDLL:
    found = importlib.util.find_spec("lightgbm")
    folder = Path(found.origin).parent if found is not None and found.origin else None
    for path in [] if folder is None else [*folder.rglob("lib_lightgbm.so"), *folder.rglob("lib_lightgbm.dylib")]:
        library = ctypes.CDLL(str(path))
        library.LGBM_GetLastError.restype = ctypes.c_char_p
        return library
    raise MissingExtra("This version is a LightGBM model, and LightGBM is not installed.", "", "pip install 'davy[lightgbm]'")
