"""The training itself: the user's function on a training set, then the model as its files answer. Shared by training and reproducing."""

from __future__ import annotations

import time
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from davy.code import importing_from
from davy.core.digest import digest_bytes
from davy.errors import DavyError
from davy.training.environment import set_seeds
from davy.training.formats import SavedModel, answers_before, check_loadable, digest_predictions, predict_checked, save, with_code
from davy.training.spine import user_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from davy.features.training_set import TrainingSet
    from davy.project import ModelDefinition
    from davy.serving.logged import Matrix
    from davy.serving.models import Model


@dataclass(frozen=True)
class Fitted:
    """A trained model: the object, its files, the files loaded again, their answers for every row, and how long the function took in seconds."""

    model: Any
    saved: SavedModel
    loaded: Model
    answers: Matrix | list[Any]
    seconds: float

    @property
    def predictions(self) -> str:
        """The digest of all answers."""
        return digest_predictions(self.answers)

    @property
    def files(self) -> dict[str, str]:
        """Path -> digest of each file."""
        return {path: digest_bytes(data) for path, data in self.saved.files.items()}


def fit(definition: ModelDefinition, data: TrainingSet, parameters: Mapping[str, Any], *, root: Path, seed: int,
        allow_globals: Sequence[str] = ()) -> Fitted:
    """Seed the generators, call the user's function, and save, load and ask what it returned.

    Raises:
        DefinitionError: the function failed; names the file and line.
        InvalidInput, UnsafeModel: what it returned can't be served.
    """
    set_seeds(seed)
    began = time.perf_counter()
    with importing_from(root), chdir(root):
        try:
            model = definition.train(data, **parameters)
        except DavyError:
            raise
        except Exception as error:  # the user's function may raise anything
            raise user_error(error, root, f"Training {definition.name!r}") from error
        seconds = time.perf_counter() - began
        saved = save(model, data.columns)
        expected = answers_before(model, saved, data.X)
        # Not sooner: predict may import what only it needs.
        saved = with_code(saved, root)
        loaded = check_loadable(saved, root, allow_globals=allow_globals)
        answers = predict_checked(expected, loaded, data.X)
    return Fitted(model, saved, loaded, answers, seconds)
