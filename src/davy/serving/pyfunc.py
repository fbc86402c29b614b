"""Models that only MLflow can load. It runs whatever code they bring, so that this happens in a version's own process, where the project allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from davy.errors import InvalidInput, MissingExtra
from davy.serving.logged import Matrix, Output, answers, texts, times

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


_FARTHEST = 291 * 365.25 * 86_400e6  # microseconds from 1970: 64 bits of nanoseconds reach a little further


class Pyfunc:
    """`mlflow.pyfunc` around a logged folder: rows go in as the frame, or the tensor, that its signature describes.

    Raises:
        MissingExtra: MLflow, pandas, or what the model itself needs is not installed.
    """

    def __init__(self, folder: Path, output: Output, columns: Sequence[str]) -> None:
        try:
            import pandas
            from mlflow import pyfunc
        except ImportError as error:
            raise MissingExtra(f"This version can only be loaded by mlflow.pyfunc, and {error.name} is not installed.", "It needs MLflow and pandas.",
                               "pip install 'davy[mlflow]' pandas") from error
        try:
            self._model = pyfunc.load_model(str(folder))
        except ImportError as error:
            raise MissingExtra(f"The model needs {error.name}, which is not installed.", "What it needs is in its requirements.txt.",
                               f"pip install {error.name}") from error
        self._pandas, self._output, self.width = pandas, output, len(columns)
        schema = self._model.metadata.get_input_schema()
        self._tensor = schema.numpy_types()[0] if schema.is_tensor_spec() else None
        self._types = [] if self._tensor is not None else [np.dtype(item) for item in schema.pandas_types()]
        self._names = list(schema.input_names()) if schema.has_input_names() else list(range(len(columns)))

    def predict(self, matrix: Matrix) -> Matrix | list[Any]:
        """Answers for (n, d) rows.

        Raises:
            InvalidInput: a null in a column of ints or bools, or a time so far away, which MLflow's types do not have.
        """
        found = self._model.predict(matrix.astype(self._tensor) if self._tensor is not None else self._frame(matrix))
        plain = found.to_numpy() if hasattr(found, "to_numpy") else np.asarray(found)
        return answers(plain[:, 0] if plain.ndim == 2 and plain.shape[1] == 1 else plain, self._output)

    def _frame(self, matrix: Matrix) -> Any:
        return self._pandas.DataFrame({name: self._column(name, matrix[:, place], dtype)
                                       for place, (name, dtype) in enumerate(zip(self._names, self._types, strict=True))})

    def _column(self, name: str | int, values: NDArray[Any], dtype: np.dtype[Any]) -> Any:
        return texts(self._pandas, values) if dtype.kind == "O" else _numbers(name, values, dtype)


def _numbers(name: str | int, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    plain = values.astype(np.float64, copy=False)
    if dtype.kind == "M":
        if (np.abs(plain) > _FARTHEST).any():
            raise InvalidInput(f"The column {name!r} got a time before 1678 or after 2261.", "MLflow counts times in nanoseconds.", "Send a nearer one.")
        return times(plain)
    if dtype.kind != "f" and np.isnan(plain).any():
        raise InvalidInput(f"The column {name!r} got a null.", f"The model's signature has it as {dtype}, which has none.", "Send a value.")
    return plain.astype(dtype)
