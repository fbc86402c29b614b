"""Loading a pickle that may only name what is on a list.

A pickle is a program: whatever it names it can call. So the names are read first without running anything, each
must be on the allow-list, and the unpickler that then runs resolves nothing else. The list holds estimator classes
of scikit-learn and LightGBM, the few functions that rebuild numpy and scipy objects, plain containers, and what
`[serving] allow_globals` adds. Prefixes are never trusted: numpy and scikit-learn contain functions that call anything.
"""

from __future__ import annotations

import importlib
import io
import pickle
import pickletools
from collections.abc import Iterable, Sequence
from typing import Any

from davy.errors import CorruptData, UnsafeModel

NAMES = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    "collections": "Counter OrderedDict defaultdict deque",
    "copyreg": "_reconstructor",
    "numpy": "dtype ndarray mean bool bool_ float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 str_ datetime64 "
        "timedelta64",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy._core.numeric": "_frombuffer",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy.ma": "MaskedArray",
    "numpy.ma.core": "MaskedArray _mareconstruct",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64",
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
    "scipy.interpolate._bsplines": "BSpline",
    "scipy.sparse._csr": "csr_array csr_matrix",
    "scipy.sparse._csc": "csc_array csc_matrix",
    "sklearn.calibration": "_CalibratedClassifier",
    "sklearn.cluster._birch": "_CFNode _CFSubcluster",
    "sklearn.cluster._bisect_k_means": "_BisectingTree",
    "sklearn.cluster._kmeans": "_kmeans_single_lloyd _kmeans_single_elkan",
    "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
    "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_regression",
    "sklearn.metrics._classification": "accuracy_score balanced_accuracy_score f1_score log_loss",
    "sklearn.metrics._ranking": "roc_auc_score",
    "sklearn.metrics._regression": "mean_squared_error r2_score",
    "sklearn.metrics._dist_metrics": "newObj",
    "sklearn.metrics._scorer": "_CurveScorer _PassthroughScorer _Scorer",
    "sklearn.neighbors._ball_tree": "BallTree newObj",
    "sklearn.neighbors._kd_tree": "KDTree newObj",
    "sklearn.tree._tree": "Tree",
    "sklearn.utils._bunch": "Bunch",
    "sklearn.utils._metadata_requests": "MetadataRequest MethodMetadataRequest",
    "lightgbm.basic": "Booster",
}
EXACT = frozenset(f"{module}.{name}" for module, names in NAMES.items() for name in names.split())
CLASSES_OF = frozenset((
    "sklearn._loss._loss",
    "sklearn._loss.link",
    "sklearn._loss.loss",
    "sklearn.gaussian_process.kernels",
    "sklearn.linear_model._sgd_fast",
    "sklearn.metrics._dist_metrics",
    "sklearn.model_selection._split",
    "sklearn.neural_network._stochastic_optimizers",
))
_ESTIMATORS = ("sklearn.", "lightgbm.")
_NEVER = frozenset(("_mocking", "_testing", "conftest", "estimator_checks", "externals", "tests"))
_TEXT = frozenset(("BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"))
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_FORBIDDEN = {"EXT1": "an extension code", "EXT2": "an extension code", "EXT4": "an extension code", "PERSID": "a persistent id",
              "BINPERSID": "a persistent id", "NEXT_BUFFER": "an out-of-band buffer"}
_MARK = object()


class _Named(str):
    """A global on the symbolic stack, as against a mere text."""


def load(data: bytes, allow_globals: Sequence[str] = ()) -> Any:
    """The object that a pickle holds, if it names nothing beyond the allow-list.

    Args:
        allow_globals: further names, each `module.Name`, or a whole `module` whose own classes and functions are meant.

    Raises:
        UnsafeModel: names something else, or hides what it names; nothing of it has been run.
        CorruptData: not a pickle.
    """
    extra = frozenset(allow_globals)
    for module, name in named_globals(data):
        _resolve(module, name, extra)
    try:
        return _Unpickler(io.BytesIO(data), extra).load()
    except UnsafeModel:
        raise
    except Exception as error:  # a class's own __setstate__ may raise anything at all
        raise CorruptData(f"The pickled model can't be rebuilt: {type(error).__name__}: {error}.",
                          "It was written by other versions of its libraries, or damaged before it was registered.",
                          "Train it again in this environment: davy train MODEL") from error


def refused_globals(data: bytes, allow_globals: Sequence[str] = ()) -> list[str]:
    """The names in a pickle that are not on the allow-list, each once, sorted, found without running it or importing the user's code.

    A module that is listed as a whole is taken at its word; `load` then sees whether the name is its own.

    Raises:
        UnsafeModel: a name that isn't written out plainly.
        CorruptData: not a pickle.
    """
    return describe(item for item in named_globals(data) if not is_allowed(*item, allow_globals))


def is_allowed(module: str, name: str, allow_globals: Sequence[str] = ()) -> bool:
    """Whether a pickle may name this. A module that is listed as a whole is taken at its word."""
    extra = frozenset(allow_globals)
    if f"{module}.{name}" in EXACT or f"{module}.{name}" in extra or module in extra:
        return True
    try:
        _resolve(module, name, extra)
    except UnsafeModel:
        return False
    return True


def named_globals(data: bytes) -> list[tuple[str, str]]:
    """Each (module, name) that the pickle would resolve, in order, found without running it.

    Raises:
        UnsafeModel: a name that isn't written out plainly.
        CorruptData: not a pickle.
    """
    walk = _Walk()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            walk.step(opcode, argument)
    except UnsafeModel:
        raise
    except Exception as error:  # pickletools raises ValueError, IndexError, struct.error … for damaged input
        raise CorruptData(f"The model's file is not a pickle: {error}.", "", "Register the version again.") from error
    return walk.found


class _Walk:
    """The pickle machine with texts and names followed, and all else unknown (None)."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name in _FORBIDDEN:
            raise _hidden(_FORBIDDEN[name])
        if name in _TEXT:
            self._stack.append(str(argument))
        elif name in ("GLOBAL", "INST"):
            if name == "INST":
                self._pop_to_mark()
            self._name(*str(argument).split(" ", 1))
        elif name == "STACK_GLOBAL":
            attribute, module = self._stack.pop(), self._stack.pop()
            if type(module) is not str or type(attribute) is not str:
                raise _hidden("a name that is computed while loading")
            self._name(module, attribute)
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in _PUTS:
            self._memo[int(argument)] = self._stack[-1]
        elif name in _GETS:
            self._stack.append(self._memo[int(argument)])
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        elif name == "POP":
            self._stack.pop()
        elif name == "MARK":
            self._stack.append(_MARK)
        else:
            self._generic(opcode)

    def _name(self, module: str, name: str) -> None:
        self.found.append((module, name))
        self._stack.append(_Named(f"{module}.{name}"))

    def _generic(self, opcode: pickletools.OpcodeInfo) -> None:
        before = list(opcode.stack_before)
        keeps_first = opcode.name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
        if pickletools.markobject in before:
            self._pop_to_mark()
            before = before[: before.index(pickletools.markobject)]
        popped = [self._stack.pop() for _ in before]
        if opcode.name == "BUILD" and isinstance(popped[-1], _Named):
            raise _hidden(f"a change to {popped[-1]} itself")
        if keeps_first:
            self._stack.append(popped[-1])
        else:
            self._stack.extend(None for _ in opcode.stack_after)

    def _pop_to_mark(self) -> None:
        while self._stack.pop() is not _MARK:
            pass


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, extra: frozenset[str]) -> None:
        super().__init__(file)
        self._extra = extra

    def find_class(self, module: str, name: str) -> Any:
        return _resolve(module, name, self._extra)

    def persistent_load(self, pid: Any) -> Any:
        raise _hidden("a persistent id")


def _resolve(module: str, name: str, extra: frozenset[str]) -> Any:
    """The object of that name if it is allowed. A module is imported only when its package may hold allowed names."""
    full = f"{module}.{name}"
    listed = full in EXACT or full in extra or module in extra
    if "." in name or not (listed or module.startswith(_ESTIMATORS) or module == "numpy"):
        raise _refused(full)
    if not listed and _NEVER.intersection(module.split(".")):
        raise _refused(full)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UnsafeModel(f"The pickled model names {full}, which can't be imported here: {error}.",
                          "A model is loaded with the packages that it was trained with.", f"Install the package that provides {module}.") from error
    if full in EXACT or full in extra or (_own(found, module, name) and (module in extra or _is_estimator(found, module))):
        return found
    if module == "numpy" and _is_ufunc(found):
        return found
    raise _refused(full)


def _own(found: Any, module: str, name: str) -> bool:
    """Whether it is defined there, not merely imported there."""
    return getattr(found, "__module__", None) == module and getattr(found, "__qualname__", None) == name


def _is_estimator(found: Any, module: str) -> bool:
    if not isinstance(found, type):
        return False
    if module in CLASSES_OF:
        return True
    from sklearn.base import BaseEstimator

    return issubclass(found, BaseEstimator)


def _is_ufunc(found: Any) -> bool:
    import numpy as np

    return isinstance(found, np.ufunc)


def _refused(full: str) -> UnsafeModel:
    return UnsafeModel(f"The pickled model names {full}, which is not on the allow-list.",
                       "Allowed are estimators of scikit-learn and LightGBM, numpy and scipy data, and plain containers.",
                       f'If you wrote it and trust it, add it to davy.toml: [serving] allow_globals = ["{full}"]')


def _hidden(what: str) -> UnsafeModel:
    return UnsafeModel(f"The pickled model uses {what}, so that what it runs can't be known beforehand.",
                       "Davy loads pickles whose every name is written out plainly.", "Save the model again with Davy: davy train MODEL")


def describe(names: Iterable[tuple[str, str]]) -> list[str]:
    """The names as `module.Name`, each once, sorted."""
    return sorted({f"{module}.{name}" for module, name in names})
