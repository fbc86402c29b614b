"""What a folder that MLflow has logged says about its model, in Davy's words: format, files, signature.

The folder's `MLmodel` names its flavors and its signature. Davy loads by itself what it can load without running
code of the model's: LightGBM's text files, and scikit-learn's estimators as skops files or pickles, whose names are
checked against the allow-list. Anything else is left to `mlflow.pyfunc`, where the project allows that.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from davy.core.fields import UNSCALED, Field, Kind
from davy.core.time import to_micros
from davy.errors import CorruptData, InvalidInput, MissingExtra, UnsafeModel
from davy.registry.signature import Column, Output, Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FILE, EXAMPLE = "MLmodel", "input_example.json"
LARGEST = 4 << 20
MOST_COLUMNS, MOST_CLASSES = 10_000, 10_000
_KINDS: dict[str, Kind] = {"boolean": "bool", "integer": "int", "long": "int", "float": "float", "double": "float", "string": "str", "datetime": "time"}
_LOG_ONE = "Log it with one: mlflow.sklearn.log_model(model, name='model', signature=mlflow.models.infer_signature(X, model.predict(X)))"
_PICKLES = ("pickle", "cloudpickle")
_BOOSTER = "lightgbm.basic.Booster"
_OBJECTIVE = re.compile(rb"^objective=(\w+)(?:.*\bnum_class:(\d+))?", re.MULTILINE)


class Described(msgspec.Struct, frozen=True):
    """A logged model in Davy's words.

    Attributes:
        flavor: MLflow's word for what kind of model it is.
        files: the version's files -> where they lie in the logged folder.
        typed: per column MLflow's own type.
    """

    flavor: str
    format: str
    files: dict[str, str]
    signature: Signature
    typed: dict[str, str]

    @property
    def request(self) -> tuple[Field, ...]:
        """The columns as request fields: numbers are kept as they come, as MLflow's own serving takes them; a time needs a zone."""
        return tuple(Field(column.name, column.kind, UNSCALED if column.kind == "float" else 0) for column in self.signature.columns)


class Folder:
    """A logged folder.

    Args:
        name: of the version, for messages.
        paths: of its files, relative. read: the content of one; of one that is larger than `LARGEST` its beginning, which is larger, too.
    """

    def __init__(self, name: str, paths: Iterable[str], read: Callable[[str], bytes]) -> None:
        self.name, self.paths, self._read = name, frozenset(paths), read
        self.about: dict[str, Any] = _parsed(name, read(FILE))
        flavors = self.about.get("flavors")
        self.flavors: dict[str, dict[str, Any]] = {str(key): value for key, value in flavors.items() if isinstance(value, dict)} if isinstance(
            flavors, dict) else {}

    def describe(self, *, allow_pyfunc: bool) -> Described:
        """What it is.

        Raises:
            InvalidInput: without a signature, or with one that Davy can't serve. UnsafeModel: only MLflow could load it, which is not allowed.
            CorruptData: a file that it names is missing.
        """
        columns, typed = self._columns()
        lightgbm, sklearn = self.flavors.get("lightgbm"), self.flavors.get("sklearn")
        python = self.flavors.get("python_function", {})
        asked = str(python.get("predict_fn") or "predict")
        if lightgbm is not None and not lightgbm.get("code"):
            self._refuse_texts(columns)
            path = str(lightgbm.get("data"))
            if lightgbm.get("model_class", _BOOSTER) == _BOOSTER:
                output, classes = self._booster_output(path)
                return self._made("lightgbm", "lightgbm", {"model.txt": path}, Signature(columns, output, classes), typed)
            return self._estimator("lightgbm", path, str(lightgbm.get("serialization_format", "cloudpickle")), columns, typed, "predict")
        if sklearn is not None and not sklearn.get("code") and asked in ("predict", "predict_proba"):
            return self._estimator("sklearn", str(sklearn.get("pickled_model")), str(sklearn.get("serialization_format", "pickle")), columns, typed, asked)
        return self._pyfunc(columns, typed, allow_pyfunc)

    def _estimator(self, flavor: str, path: str, written: str, columns: tuple[Column, ...], typed: dict[str, str], asked: str) -> Described:
        if written != "skops" and written not in _PICKLES:
            raise InvalidInput(f"{self.name} was written as {written!r}.", "Davy reads skops, pickle and cloudpickle.",
                               "Log it with serialization_format='skops'.")
        output: Output = "probability" if asked == "predict_proba" else self._output()
        kept, read_as = ("model.skops", "skops") if written == "skops" else ("model.pkl", "sklearn")
        return self._made(flavor, read_as, {kept: path}, Signature(columns, output), typed)

    def _pyfunc(self, columns: tuple[Column, ...], typed: dict[str, str], allowed: bool) -> Described:
        named = next((name for name in self.flavors if name != "python_function"), "python_function")
        if "python_function" not in self.flavors:
            raise InvalidInput(f"{self.name} has the flavors {', '.join(sorted(self.flavors)) or 'none'}, and nothing that Python could ask for a prediction.",
                               "Davy serves lightgbm and sklearn by itself, and whatever has the flavor python_function through MLflow.",
                               "Log it as one of them.")
        if not allowed:
            raise UnsafeModel(f"{self.name} is of the flavor {named!r}, which only mlflow.pyfunc loads: it runs any code that the model brings.",
                              "Davy itself loads lightgbm, and sklearn with predict or predict_proba, when they bring no code.",
                              "If you trust whoever may register models, write in davy.toml: [serving] allow_pyfunc = true")
        return self._made(named, "pyfunc", {path: path for path in sorted(self.paths)}, Signature(columns, self._output()), typed)

    def _made(self, flavor: str, format: str, files: dict[str, str], signature: Signature, typed: dict[str, str]) -> Described:
        missing = [path for path in files.values() if path not in self.paths]
        if missing:
            raise CorruptData(f"{self.name}: {FILE} names {missing[0]!r}, which is not there.", f"There are {', '.join(sorted(self.paths))}.",
                              "Upload the whole folder, then register it again.")
        beside = {EXAMPLE: EXAMPLE} if EXAMPLE in self.paths else {}
        return Described(flavor, format, {FILE: FILE, **beside, **files}, signature, typed)

    def _columns(self) -> tuple[tuple[Column, ...], dict[str, str]]:
        signature = self.about.get("signature")
        inputs = _schema(signature.get("inputs")) if isinstance(signature, dict) else []
        if not inputs:
            raise InvalidInput(f"{self.name} was logged without a signature of its inputs.", "Davy checks and types each request by it.", _LOG_ONE)
        if inputs[0].get("type") == "tensor":
            return self._tensor(inputs)
        self._bound(len(inputs), MOST_COLUMNS, "columns")
        names = [item.get("name", f"x{place}") for place, item in enumerate(inputs)]
        counts = Counter(name for name in names if isinstance(name, str))
        for name in names:
            if not isinstance(name, str) or not name or counts[name] > 1:
                raise InvalidInput(f"{self.name} has a column named {name!r}.", "Each column has a name of its own, a text.",
                                   "Name the columns, then log it again.")
        columns, typed = [], {}
        for name, item in zip(names, inputs, strict=True):
            kind = _KINDS.get(str(item.get("type")))
            if kind is None:
                raise InvalidInput(f"The column {name!r} of {self.name} is of the type {str(item.get('type'))!r}.",
                                   f"A column is one of {', '.join(_KINDS)}.", "Turn it into one of them before the model, then log it again.")
            columns.append(Column(name, kind))
            typed[name] = str(item["type"])
        return tuple(columns), typed

    def _bound(self, count: int, most: int, what: str) -> None:
        """Refuse what only says that it is huge, before anything is made as large as that."""
        if count > most:
            raise InvalidInput(f"{self.name} has {count:,} {what}.", f"Davy serves models of up to {most:,}.", "Log a smaller model.")

    def _refuse_texts(self, columns: tuple[Column, ...]) -> None:
        """LightGBM takes numbers, and nothing says which number stands for which text."""
        for column in columns:
            if column.kind in ("str", "time"):
                raise InvalidInput(f"The column {column.name!r} of {self.name} is a {'text' if column.kind == 'str' else 'time'}.",
                                   "LightGBM is sent numbers, and nothing says which number stands for which text or time.",
                                   "Train it with Davy, which keeps a vocabulary, or log a scikit-learn pipeline that turns them into numbers.")

    def _tensor(self, inputs: list[dict[str, Any]]) -> tuple[tuple[Column, ...], dict[str, str]]:
        described = inputs[0].get("tensor-spec") or {}
        shape, dtype = list(described.get("shape") or ()), str(described.get("dtype"))
        if len(inputs) != 1 or len(shape) != 2 or shape[0] != -1 or not isinstance(shape[1], int) or shape[1] < 1:
            raise InvalidInput(f"{self.name} takes {'several tensors' if len(inputs) != 1 else f'a tensor of the shape {shape}'}.",
                               "Davy serves rows: one tensor of the shape [-1, n], whose columns it calls x0, x1, and so on.",
                               "Log it with a signature of columns, or of one such tensor.")
        kind: Kind = "float" if dtype.startswith("float") else "bool" if dtype == "bool" else "int"
        if not re.fullmatch(r"float(16|32|64)|u?int(8|16|32|64)|bool", dtype):
            raise InvalidInput(f"{self.name} takes a tensor of {dtype!r}.", "Davy serves tensors of numbers and bools.",
                               "Turn it into numbers before the model.")
        self._bound(shape[1], MOST_COLUMNS, "columns")
        names = [f"x{place}" for place in range(shape[1])]
        return tuple(Column(name, kind) for name in names), dict.fromkeys(names, dtype)

    def _output(self) -> Output:
        """What `predict` answers: numbers with a fraction are values, everything else names a class."""
        outputs = _schema((self.about.get("signature") or {}).get("outputs"))
        kinds = {str((item.get("tensor-spec") or {}).get("dtype")) if item.get("type") == "tensor" else str(item.get("type")) for item in outputs}
        return "value" if all(kind.startswith("float") or kind == "double" for kind in kinds) else "label"

    def _booster_output(self, path: str) -> tuple[Output, tuple[Any, ...]]:
        found = _OBJECTIVE.search(self._read(path)) if path in self.paths else None
        objective = found.group(1) if found else b""
        if objective == b"binary":
            return "probability", (0, 1)
        if objective in (b"multiclass", b"multiclassova") and found and found.group(2):
            self._bound(int(found.group(2)[:9]), MOST_CLASSES, "classes")
            return "probability", tuple(range(int(found.group(2))))
        return "value", ()


def example_rows(text: bytes, kinds: Mapping[str, Kind]) -> list[list[Any]]:
    """The rows of an example that MLflow has kept beside a model: a frame with these columns, or the rows of a tensor; empty if it is another thing.

    Times come as microseconds; one without a zone is UTC's.
    """
    names = list(kinds)
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    rows, columns = (found.get("data"), found.get("columns")) if isinstance(found, dict) and "data" in found else (found, None)
    if isinstance(found, dict) and "inputs" in found:
        rows = found["inputs"]
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(columns or names) for row in rows):
        return []
    if columns is not None and not set(names) <= set(columns):
        return []
    places = [columns.index(name) for name in names] if columns is not None else range(len(names))
    try:
        return [[_example(row[place], kind) for place, kind in zip(places, kinds.values(), strict=True)] for row in rows]
    except (TypeError, ValueError):
        return []


def _example(value: Any, kind: Kind) -> Any:
    if kind == "time" and isinstance(value, str):
        found = datetime.fromisoformat(value)
        return to_micros(found if found.tzinfo is not None else found.replace(tzinfo=UTC))
    if value is not None and not isinstance(value, str if kind == "str" else (int, float)):
        raise TypeError
    return value


def _parsed(name: str, text: bytes) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra(f"{name} was logged by MLflow, whose {FILE} is YAML, and PyYAML is not installed.", "", "pip install 'davy[mlflow]'") from error
    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if len(text) <= LARGEST else None  # both are safe, one is fast
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CorruptData(f"The {FILE} of {name} can't be read: {error}.", "", "Log the model again.") from error
    if not isinstance(found, dict):
        raise CorruptData(f"The {FILE} of {name} is not what MLflow writes.", "It is a mapping of at most 4 MB.", "Log the model again.")
    return found


def _schema(text: Any) -> list[dict[str, Any]]:
    """A schema, which is a JSON array in the YAML."""
    try:
        found = msgspec.json.decode(text) if isinstance(text, str) else text
    except msgspec.DecodeError:
        return []
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
