"""A trained object as the files of a version, in a format that a serving process loads safely.

LightGBM becomes its native text (`model.txt`); scikit-learn estimators, and any object with `predict`, become a plain
pickle (`model.pkl`, protocol 5). What serving would refuse to load is refused here, while the person who can change it
is still there. A pickle that names the project's own classes takes the project's loaded modules with it.
The answers of a version are those of the saved and loaded files, never of the object in memory.
"""

from __future__ import annotations

import pickle
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from davy import __version__
from davy.code import FOLDER, loaded_code, names_of, only_with
from davy.core.digest import digest_bytes, digest_json
from davy.errors import DavyError, InvalidInput, UnsafeModel
from davy.serving.models import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from davy.registry.signature import Output
    from davy.serving.logged import Matrix
    from davy.serving.models import Model

NATIVE, PICKLE, CARD = "model.txt", "model.pkl", "davy.json"
COMPARED_ROWS = 1000
PROTOCOL = 5


class SavedModel(msgspec.Struct, frozen=True):
    """The files of a model and how they answer.

    Attributes:
        format: `lightgbm`, `sklearn` or `pickle`.
        files: relative path -> bytes.
        classes: of a classifier, in the order of its probabilities.
        digest: over the model's own file.
    """

    format: str
    files: dict[str, bytes]
    output: Output
    classes: tuple[Any, ...]
    digest: str


def save(model: Any, columns: Sequence[str]) -> SavedModel:
    """The files of what the training function returned.

    Raises:
        InvalidInput: nothing came, it has no `predict`, or it can't be pickled by name (a lambda, a class inside a function).
    """
    if model is None:
        raise InvalidInput("The training function returned nothing.", "It returns the trained model.", "End it with: return model")
    if not callable(getattr(model, "predict", None)) or isinstance(model, type):
        raise InvalidInput(f"The training function returned {_shown(model)}, which has no predict method.",
                           "A model is a LightGBM booster, a scikit-learn estimator, or any picklable object with predict(matrix).",
                           "Return the fitted estimator itself.")
    text = _native_text(model)
    if text is not None:
        output, classes = _lightgbm_output(model, text)
        return _saved("lightgbm", NATIVE, text.encode(), output, classes, columns)
    kind = "sklearn" if _from(model, "sklearn.base", "BaseEstimator") else "pickle"
    output, classes = _output(model)
    return _saved(kind, PICKLE, _pickled(model), output, classes, columns)


def with_code(saved: SavedModel, root: Path) -> SavedModel:
    """The model's files, and the project's loaded modules beside them if the pickle names one of theirs."""
    from davy.serving.unpickle import named_globals

    pickled = saved.files.get(PICKLE)
    if pickled is None or names_of(root).isdisjoint(module for module, _ in named_globals(pickled)):
        return saved
    code = {f"{FOLDER}/{path}": text for path, text in loaded_code(root).items()}
    return msgspec.structs.replace(saved, files={**saved.files, **code})


def load_files(files: Mapping[str, bytes], format: str, output: Output, root: Path, *, allow_globals: Sequence[str] = ()) -> Model:
    """The model that these files hold, running its own code and not that of the project at `root`."""
    with tempfile.TemporaryDirectory(prefix="davy-model-") as name:
        folder = Path(name)
        for path, data in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        with only_with(folder, root):
            return load(folder, format, output=output, allow_globals=allow_globals)


def answers_before(model: Any, saved: SavedModel, matrix: Matrix) -> Matrix | list[Any]:
    """What the object in memory answers to the first thousand rows.

    Raises:
        InvalidInput: it can't answer rows of the feature set's columns, or gives no answer for each.
    """
    rows = matrix[:COMPARED_ROWS]
    with _explained(matrix):
        found = _answers(model, saved, rows)
        _check_count(found, rows)
    return found


def predict_checked(expected: Matrix | list[Any], loaded: Model, matrix: Matrix) -> Matrix | list[Any]:
    """The loaded model's answers for all rows, after checking that it gives the same bits as the object in memory did.

    Raises:
        InvalidInput: the model can't answer rows of the feature set's columns, or saving has changed it.
    """
    with _explained(matrix):
        first = loaded.predict(matrix[:COMPARED_ROWS])
        found = loaded.predict(matrix) if len(matrix) > COMPARED_ROWS else first
        _check_count(found, matrix)
    if digest_predictions(expected) != digest_predictions(first):
        row = _first_difference(expected, first)
        raise InvalidInput(f"Saving changes the model: for row {row} it answered {expected[row]!r} before and {first[row]!r} after it was saved and loaded.",
                           "A version answers exactly as the model that was trained.", "Keep all that predict needs in the object's attributes.")
    return found


@contextmanager
def _explained(matrix: Matrix) -> Iterator[None]:
    try:
        yield
    except DavyError:
        raise
    except Exception as error:  # a model's own predict may raise anything
        raise InvalidInput(f"The model can't answer the training set's own rows: {type(error).__name__}: {error}.",
                           f"A version is asked with float64 rows of the feature set's {matrix.shape[1]} columns, in order, null as NaN.",
                           "Fit it on data.X, and put scaling, imputing and encoding into the model (a scikit-learn Pipeline).") from error


def _check_count(found: Matrix | list[Any], matrix: Matrix) -> None:
    count = 0 if np.ndim(found) == 0 else len(found)
    if count != len(matrix):
        said = f"{count:,} answers" if np.ndim(found) else f"one number, {plain(np.asarray(found)[()])!r},"
        raise InvalidInput(f"The model gave {said} for {len(matrix):,} rows.", "Its predict takes a matrix, and gives one answer for each row.",
                           "Mend its predict: return for example numpy.full(len(matrix), value).")


def digest_predictions(found: Matrix | list[Any]) -> str:
    """The digest of answers: over the shape and all bits of numbers, or over labels as JSON."""
    if isinstance(found, list):
        return digest_json(found)
    array = np.ascontiguousarray(found, dtype="<f8")
    return digest_bytes(repr(array.shape).encode() + array.tobytes())


def _answers(model: Any, saved: SavedModel, matrix: Matrix) -> Matrix | list[Any]:
    if saved.format == "lightgbm":
        booster = getattr(model, "booster_", model)
        return np.asarray(booster.predict(matrix), dtype=np.float64)
    if saved.output == "probability":
        found = np.asarray(model.predict_proba(matrix), dtype=np.float64)
        return np.ascontiguousarray(found[:, 1]) if found.ndim == 2 and found.shape[1] == 2 else found
    found = model.predict(matrix)
    return [plain(item) for item in found] if saved.output == "label" else np.asarray(found, dtype=np.float64)


def _first_difference(left: Matrix | list[Any], right: Matrix | list[Any]) -> int:
    for row, (one, other) in enumerate(zip(left, right, strict=True)):
        if np.any(one != other):
            return row
    return 0


def plain(item: Any) -> Any:
    """A numpy scalar as Python's own."""
    return item.item() if isinstance(item, np.generic) else item


def _saved(format: str, name: str, data: bytes, output: Output, classes: tuple[Any, ...], columns: Sequence[str]) -> SavedModel:
    card = {"format": format, "output": output, "classes": list(classes), "columns": list(columns), "model": digest_bytes(data), "davy": __version__}
    return SavedModel(format, {name: data, CARD: msgspec.json.format(msgspec.json.encode(card, order="deterministic"), indent=2)}, output, classes,
                      digest_bytes(data))


def _from(model: Any, module: str, name: str) -> bool:
    """Whether it is an instance of that class, without importing the library of an object that can't be."""
    return any(base.__module__ == module and base.__qualname__ == name for base in type(model).__mro__)


def _native_text(model: Any) -> str | None:
    # Only LightGBM's own classes: a subclass may answer otherwise than its booster.
    if not type(model).__module__.startswith("lightgbm."):
        return None
    if _from(model, "lightgbm.basic", "Booster"):
        return str(model.model_to_string())
    if _from(model, "lightgbm.sklearn", "LGBMModel"):
        if not getattr(model, "__sklearn_is_fitted__", lambda: True)():
            raise InvalidInput("The LightGBM model is not fitted.", "The training function returns a fitted model.", "Write: return model.fit(data.X, data.y)")
        return str(model.booster_.model_to_string())
    return None


def _lightgbm_output(model: Any, text: str) -> tuple[Output, tuple[Any, ...]]:
    header = dict(entry.split("=", 1) for entry in text.split("\n\n", 1)[0].splitlines() if "=" in entry)
    objective = header.get("objective", "").split(" ")[0]
    if objective not in ("binary", "multiclass", "multiclassova", "cross_entropy"):
        return "value", ()
    known = getattr(model, "classes_", None)
    if known is not None:
        return "probability", tuple(plain(item) for item in known)
    return "probability", tuple(range(max(2, int(header.get("num_class", "1")))))


def _output(model: Any) -> tuple[Output, tuple[Any, ...]]:
    known = getattr(model, "classes_", None)
    classes = tuple(plain(item) for item in known) if known is not None and np.ndim(known) == 1 else ()
    if callable(getattr(model, "predict_proba", None)):
        return "probability", classes
    return ("label", classes) if classes else ("value", ())


def _pickled(model: Any) -> bytes:
    kind = type(model)
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise _unpicklable(model, f"its class is defined in {'a function' if '<locals>' in kind.__qualname__ else 'the main program'}")
    try:
        return pickle.dumps(model, protocol=PROTOCOL)
    except Exception as error:  # an object's own __reduce__ may raise anything
        raise _unpicklable(model, f"{type(error).__name__}: {error}") from error


def _unpicklable(model: Any, why: str) -> InvalidInput:
    return InvalidInput(f"The model, {_shown(model)}, can't be saved: {why}.",
                        "Another process must be able to load it by name: no lambdas, no functions or classes inside functions, no open files.",
                        "Move the class or function to the top of a module of your project, and use functools.partial or a method instead of a lambda.")


def _shown(model: Any) -> str:
    return f"a {type(model).__name__}"


def check_loadable(saved: SavedModel, root: Path, *, allow_globals: Sequence[str] = ()) -> Model:
    """Load the saved files as serving will, and say at training time what serving would say later.

    Raises:
        UnsafeModel: the pickle names what is not on the allow-list.
        InvalidInput: the project's modules don't run apart from its folder.
    """
    try:
        return load_files(saved.files, saved.format, saved.output, root, allow_globals=allow_globals)
    except UnsafeModel as error:
        raise UnsafeModel(f"This model would not be served. {error.came}", error.allowed, f"{error.fix}\nThen train again.") from error
    except DavyError:
        raise
    except Exception as error:  # the user's modules may raise anything when they are imported
        raise InvalidInput(f"This model would not be served. The project's code can't be imported apart from its folder: {type(error).__name__}: {error}.",
                           "A version keeps the .py files that training has loaded, and imports them in a process of its own.",
                           "Read data inside functions, not where a module is imported; what predict needs belongs into the model's attributes.") from error
