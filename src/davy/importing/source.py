"""An MLflow server, an `mlruns` folder or an `mlflow.db`, read through MLflow's own client, which knows all their generations."""

from __future__ import annotations

import math
import os
import sqlite3
import tempfile
import warnings
from array import array
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from davy.errors import InvalidInput, MissingExtra, NotFound, Unavailable
from davy.importing.files import Places
from davy.tracking.points import Points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from davy.store.blobs import Blobs

_PAGE = 1000
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
          "GIT_PYTHON_REFRESH": "quiet", "MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}


class Source:
    """What is imported from.

    Args:
        uri: `http://server:5000`, a folder (`mlruns`), a file (`mlflow.db`) or any other tracking URI of MLflow.
        blobs: where copies of files go.
        artifacts: the folder in which the server of an `mlflow.db` keeps the files, if that isn't `mlartifacts` beside it.

    Attributes:
        shown: the URI without a user and password in it, as messages and the journal have it.
        places: the files of its runs and models.

    Raises:
        MissingExtra: MLflow's client is not installed. NotFound: there is no such file or folder. InvalidInput: it is not MLflow's.
        Unavailable: the server does not answer.
    """

    def __init__(self, uri: str, blobs: Blobs, *, artifacts: Path | None = None) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import mlflow  # noqa: F401
        except ImportError as error:
            raise MissingExtra(f"MLflow's client is not installed: {error}.", "It reads what is imported.", "pip install 'davy[mlflow]'") from None
        self.uri, self.shown = uri, without_secrets(uri)
        self._beside: Path | None = None
        if artifacts is not None and not artifacts.is_dir():
            raise NotFound(f"There is no folder {artifacts}.", "--artifacts is where the server of this database keeps its files.", "Correct the path.")
        self._copies = tempfile.TemporaryDirectory(prefix="davy-import-")
        try:
            with _told(self.shown):
                self._open(blobs, artifacts)
        except BaseException:
            self._copies.cleanup()
            raise

    def _open(self, blobs: Blobs, artifacts: Path | None) -> None:
        import mlflow
        from mlflow import MlflowClient

        resolved = self._resolve(self.uri)
        self.places = Places(resolved, blobs, beside=self._beside, kept=artifacts)
        mlflow.set_tracking_uri(resolved)  # what reads artifacts asks for it, and would else make a database in the working directory
        mlflow.set_registry_uri(resolved)
        self.client = MlflowClient(tracking_uri=resolved, registry_uri=resolved)
        self.client.search_experiments(max_results=1)

    def close(self) -> None:
        """Remove what was copied to be read."""
        self._copies.cleanup()

    def experiments(self) -> list[Any]:
        """All experiments, the deleted ones too, the oldest first."""
        from mlflow.entities import ViewType

        found = self._pages(lambda token: self.client.search_experiments(ViewType.ALL, _PAGE, page_token=token))
        return sorted(found, key=lambda one: (one.creation_time or 0, one.experiment_id))

    def run_ids(self, experiment_id: str) -> list[str]:
        """The ids of an experiment's runs, the deleted ones too, in the order of their start."""
        from mlflow.entities import ViewType

        return [run.info.run_id for run in self._pages(lambda token: self.client.search_runs(
            [experiment_id], "", ViewType.ALL, _PAGE, ["attributes.start_time ASC"], token))]

    def run(self, run_id: str) -> Any:
        """One run with all its parts."""
        with _told(self.shown):
            return self.client.get_run(run_id)

    def curves(self, run: Any) -> dict[str, Points]:
        """All points of all metrics of a run, each once."""
        with _told(self.shown):
            return {key: _distinct(self.client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics}

    def logged_models(self, experiment_id: str) -> list[Any]:
        """The logged models of an experiment; none where the source has no such thing yet."""
        try:
            return self._pages(lambda token: self.client.search_logged_models([experiment_id], max_results=100, page_token=token))
        except NotImplementedError:
            return []
        except Unavailable as error:
            if _unknown(error.__cause__):
                return []
            raise

    def models(self) -> list[Any]:
        """All registered models, prompts too."""
        found = self._pages(lambda token: self.client.search_registered_models(max_results=_PAGE, page_token=token))
        prompts = self._pages(lambda token: self.client.search_registered_models("tags.`mlflow.prompt.is_prompt` = 'true'", _PAGE, page_token=token))
        return list({model.name: model for model in [*found, *prompts]}.values())

    def versions(self, name: str) -> list[Any]:
        """All versions of a model, by number."""
        quoted = name.replace("'", "''")
        found = self._pages(lambda token: self.client.search_model_versions(f"name='{quoted}'", _PAGE, page_token=token))
        if not found:
            prompt = f"name='{quoted}' AND tags.`mlflow.prompt.is_prompt` = 'true'"
            found = self._pages(lambda token: self.client.search_model_versions(prompt, _PAGE, page_token=token))
        return sorted(found, key=lambda version: int(version.version))

    def model(self, name: str) -> Any:
        """A registered model with its aliases."""
        with _told(self.shown):
            return self.client._get_registry_client().get_registered_model(name)  # type: ignore[no-untyped-call]  # which gives prompts too

    def _pages(self, ask: Callable[[str | None], Any]) -> list[Any]:
        found: list[Any] = []
        token: str | None = None
        with _told(self.shown):
            while True:
                page = ask(token)
                found.extend(page)
                token = page.token
                if not token:
                    return found

    def _resolve(self, uri: str) -> str:
        """The tracking URI; a database is copied first, so that MLflow may bring the copy to its own present schema."""
        if "://" in uri and not uri.startswith("sqlite:"):
            return uri
        path = Path(uri.removeprefix("sqlite:///")).expanduser().absolute()
        if path.is_dir():
            _check_folder(path)
            self._beside = path
            return path.as_uri()
        self._beside = path.parent
        if not path.is_file():
            raise NotFound(f"There is no file or folder {path}.", "It is an mlruns folder, an mlflow.db, or the address of a server.", "Correct the path.")
        copy = Path(self._copies.name) / "mlflow.db"
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as old, closing(sqlite3.connect(copy)) as new:
                old.backup(new)
                tables = {name for name, in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.Error as error:
            raise InvalidInput(f"{path} is no SQLite database: {error}.", "It is an mlflow.db, as a server or a local run of MLflow writes it.",
                               "Correct the path.") from None
        if not {"experiments", "runs", "alembic_version"} <= tables:
            raise InvalidInput(f"{path} is a database, but not MLflow's: it has no tables of experiments and runs.",
                               "It is an mlflow.db, as a server or a local run of MLflow writes it.", "Correct the path.")
        _upgrade(f"sqlite:///{copy}", path)
        return f"sqlite:///{copy}"


def _check_folder(path: Path) -> None:
    if (path / "mlruns").is_dir():
        raise InvalidInput(f"{path} is the folder around the one that is meant.", "It is an mlruns folder, an mlflow.db, or the address of a server.",
                           f"davy import mlflow {path / 'mlruns'}")
    if not any(path.glob("*/meta.yaml")):
        raise InvalidInput(f"{path} has no experiments of MLflow in it.", "An mlruns folder has a folder with a meta.yaml for each experiment.",
                           "Correct the path; what a server with a database keeps here are only its files: import its mlflow.db.")


def _upgrade(uri: str, path: Path) -> None:
    import sqlalchemy as sa
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.utils import _upgrade_db

    engine = sa.create_engine(uri)
    try:
        _upgrade_db(engine)  # type: ignore[no-untyped-call]
    except (CommandError, MlflowException, sa.exc.SQLAlchemyError) as error:
        raise InvalidInput(f"{path} can't be brought to the schema of the MLflow that is installed here: {str(error).splitlines()[0]}",
                           "A copy of it is; a database of a newer MLflow needs that MLflow.", "pip install -U mlflow-skinny") from error
    finally:
        engine.dispose()


def _unknown(error: BaseException | None) -> bool:
    """Whether a server has said that it has no such call."""
    return getattr(error, "error_code", "") in ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED") or "error code 404" in str(error)


def without_secrets(uri: str) -> str:
    """A URI without what only its owner should know: user, password, and the query, where drivers of databases take them too.

    >>> without_secrets("https://ada:secret@mlflow.example.com/team"), without_secrets("postgresql://db/mlflow?password=secret")
    ('https://mlflow.example.com/team', 'postgresql://db/mlflow')
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


@contextmanager
def _told(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's about itself and its libraries
            yield
    except MlflowException as error:
        raise Unavailable(f"{uri} failed: {error.message}", "What was imported before is kept.", "Mend what it says, then type the same again.") from error


def _distinct(history: Sequence[Any]) -> Points:
    seen = {(int(metric.step or 0), int(metric.timestamp), None if math.isnan(metric.value) else float(metric.value)) for metric in history}
    points = Points(array("q"), array("q"), array("d"))
    for step, time, value in sorted(seen, key=lambda point: point[:2]):
        points.steps.append(step)
        points.times.append(time)
        points.values.append(math.nan if value is None else value)
    return points


def texts(pairs: dict[str, Any] | Sequence[Any] | None) -> dict[str, str]:
    """Params or tags as texts, whichever way MLflow holds them."""
    if isinstance(pairs, dict):
        return {str(key): "" if value is None else str(value) for key, value in pairs.items()}
    return {str(item.key): "" if item.value is None else str(item.value) for item in pairs or ()}
