"""`train`: from a model's definition to a registered version, with a run that can prove and repeat it."""

from __future__ import annotations

import tempfile
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from davy.errors import InvalidInput
from davy.registry.definitions import TrainingSetRecord, put_feature_set, put_training_set
from davy.registry.models import ModelVersion, register, store_files
from davy.registry.signature import Signature
from davy.tracking import run as start_run
from davy.training import capture as captured
from davy.training import plots, record
from davy.training.evaluation import auc_interval, importance, positives, scores
from davy.training.fit import Fitted, fit
from davy.training.formats import digest_predictions
from davy.training.parameters import SEED, bind_parameters
from davy.training.runs import PROCESS, end_abandoned, this_process
from davy.training.source import ARCHIVE, PATCH
from davy.training.spine import build, check_spine, encode_like, make_spine, refuse_constant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from davy.features.training_set import AsKnown, TrainingSet
    from davy.home import Home
    from davy.project import ModelDefinition, Project
    from davy.tracking.writer import Run


ERROR = "error.txt"


class TrainResult(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        run: the run's id.
        version: `model@number`.
        metrics: by name, as the run shows them.
        training_set, model_digest, predictions, capture: digests.
        notices: what a careful reader should know, in sentences.
    """

    run: str
    model: str
    version: int
    reference: str
    rows: int
    metrics: dict[str, float]
    parameters: dict[str, Any]
    training_set: str
    model_digest: str
    predictions: str
    capture: str
    commit: str | None
    dirty: bool
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """Which part of the spine to learn from and to test on, in microseconds; None is open."""

    start: int | None = None
    end: int | None = None
    test_start: int | None = None
    test_end: int | None = None

    def checked(self) -> Span:
        """The span with its open ends filled in: testing begins where learning ends.

        Raises:
            InvalidInput: a span of no length, or a test that begins before learning ends.
        """
        tests = self.test_start is not None or self.test_end is not None
        end = self.test_start if tests and self.end is None else self.end
        begin = self.end if tests and self.test_start is None else self.test_start
        for name, low, high in (("--end", self.start, end), ("--test-end", begin, self.test_end)):
            if low is not None and high is not None and low >= high:
                raise InvalidInput(f"{name} does not lie after its start.", "Rows are taken from the start on and before the end.", f"Move {name}.")
        if tests and begin is None:
            raise InvalidInput("A test needs a beginning.", "It begins where learning ends.", "Add --test-start, or --end.")
        if begin is not None and end is not None and begin < end:
            raise InvalidInput("The test begins before learning ends.", "A model is tested on moments that it has not learned from.",
                               "Move --test-start to --end or later.")
        return Span(self.start, end, begin, self.test_end)


def train(project: Project, home: Home, model: str, *, params: Mapping[str, Any] | None = None, start: int | None = None, end: int | None = None,
          test_start: int | None = None, test_end: int | None = None, as_known: AsKnown = "ingest", experiment: str | None = None, seed: int | None = None,
          report: Callable[[str], None] = lambda _: None) -> TrainResult:
    """Train a model of the project on its spine, track it as a run, and register the version.

    Args:
        params: keyword arguments of the training function, as texts or values.
        start, end: the part of the spine to learn from, microseconds, start <= time < end.
        test_start, test_end: the part to test on; it begins at `end` unless said otherwise.
        as_known: "ingest": each row sees what had arrived before its time. "event": hindsight.
        experiment: default: the model's name.
        seed: for all global generators, and for the function when it takes `seed` (default: that argument's own, or 0).
        report: told what is being done.

    Raises:
        InvalidInput, DefinitionError: parameters, spine, labels, training function or its result are not what they must be.
            The run is FAILED then (KILLED after Ctrl-C), and no version exists.
    """
    definition = project.model(model)
    parameters = bind_parameters(definition.train, params or {}, seed=seed)
    span = Span(start, end, test_start, test_end).checked()
    check_spine(definition, project.root)
    end_abandoned(home)
    tags = {"davy.model": model, PROCESS: this_process()}
    with start_run(model, experiment=experiment or model, params=parameters, tags=tags, home=home) as run, _kept_traceback(run, report):
        return _Training(project, home, definition, run, report).carry_out(parameters, span, as_known, parameters.get(SEED, seed or 0))


@contextmanager
def _kept_traceback(run: Run, report: Callable[[str], None]) -> Iterator[None]:
    try:
        yield
    except Exception:
        run.text(traceback.format_exc(), ERROR)
        report(f"the run failed; its traceback: davy runs {run.id} --artifact {ERROR}")
        raise


class _Training:
    """One training under way."""

    def __init__(self, project: Project, home: Home, definition: ModelDefinition, run: Run, report: Callable[[str], None]) -> None:
        self.project, self.home, self.definition, self.run, self.report = project, home, definition, run, report
        self.notices: list[str] = []
        self.metrics: dict[str, float] = {}
        self.tested: record.DataRecord | None = None

    def carry_out(self, parameters: dict[str, Any], span: Span, as_known: AsKnown, seed: int) -> TrainResult:
        self.report("capturing code and environment")
        taken = self._capture(seed)
        self.report("building the training set")
        spine = make_spine(self.definition, self.project.root, start=span.start, end=span.end)
        data = build(self.home, self.definition, spine, as_known=as_known)
        assert data.label is not None
        refuse_constant(data.label)
        described = record.describe(data, spine, span.start, span.end)
        self._keep_rows(data)
        for stream in data.feature_set.streams:
            if data.watermarks[stream.name] == 0:
                self.notices.append(f"The stream {stream.name!r} holds no events, so that its features are null, or 0, in every row.")
        self.report(f"training on {len(data):,} rows, {len(data.columns)} features")
        fitted = fit(self.definition, data, parameters, root=self.project.root, seed=seed, allow_globals=self.home.config.serving.allow_globals)
        self._measure("train", fitted, fitted.answers, data, seconds=fitted.seconds)
        if span.test_start is not None:
            self.report("testing")
            self._test(fitted, data, span, as_known)
        self._explain(fitted, data)
        outside = captured.outside_modules(self.project.root)
        if outside:
            self.notices.append(f"Code from outside the project was loaded and is not captured: {', '.join(module.path for module in outside[:5])}.")
        taken = msgspec.structs.replace(taken, outside=outside)
        self.run.artifact(taken.to_json(), captured.ARTIFACT)
        kept = record.TrainingRecord(
            model=self.definition.name, parameters=parameters, seed=seed, data=described, format=fitted.saved.format, output=fitted.saved.output,
            classes=fitted.saved.classes, files=fitted.files, model_digest=fitted.saved.digest, predictions=fitted.predictions, capture=taken.digest,
            test_start=span.test_start, test_end=span.test_end, test=self.tested)
        version = self._register(fitted, data, kept)
        return TrainResult(
            run=self.run.id, model=version.name, version=version.version, reference=version.reference, rows=len(data), metrics=self.metrics,
            parameters=parameters, training_set=data.digest, model_digest=kept.model_digest, predictions=kept.predictions, capture=taken.digest,
            commit=taken.source.commit, dirty=taken.source.dirty, notices=tuple(self.notices))

    def _capture(self, seed: int) -> captured.Capture:
        taken, stored = captured.capture(self.project.root, home=self.home.path, seed=seed)
        source = taken.source
        self.notices += source.notices
        self.run.artifact(taken.to_json(), captured.ARTIFACT)
        if stored:
            self.run.artifact(stored, PATCH if source.kind == "git" else ARCHIVE)
        self.run.tags({"davy.capture": taken.digest, "davy.source": source.digest, "davy.dirty": str(source.dirty).lower(),
                       **({"mlflow.source.git.branch": source.branch} if source.branch else {}),
                       **({"mlflow.source.git.repoURL": source.remote} if source.remote else {})})
        return taken

    def _keep_rows(self, data: TrainingSet, what: str = "training set", name: str = record.ROWS) -> None:
        with tempfile.TemporaryDirectory(prefix="davy-train-") as folder:
            path = record.write_rows(data.frame, Path(folder), name)
            if path is None:
                self.notices.append(f"The {what}'s rows are not kept with the run, because they are too large or hold Python objects; their digests are.")
            else:
                self.run.artifact(path)

    def _measure(self, part: str, fitted: Fitted, answers: Any, data: TrainingSet, **more: float) -> None:
        found = {"rows": float(len(data)), **more, **scores(fitted.saved.output, fitted.saved.classes, answers, data.y)}
        metrics = {f"{part}_{name}": value for name, value in found.items()}
        self.metrics |= metrics
        self.run.log(metrics, step=0)

    def _test(self, fitted: Fitted, data: TrainingSet, span: Span, as_known: AsKnown) -> None:
        spine = make_spine(self.definition, self.project.root, start=span.test_start, end=span.test_end)
        held_out = encode_like(build(self.home, self.definition, spine, as_known=as_known), data)
        self.tested = record.describe(held_out, spine, span.test_start, span.test_end)
        self._keep_rows(held_out, "test set", record.TEST_ROWS)
        answers = fitted.loaded.predict(held_out.X)
        positive = positives(held_out.y, fitted.saved.classes)
        interval = None
        if positive is not None and isinstance(answers, np.ndarray) and answers.ndim == 1:
            interval = auc_interval(answers, positive)
            self._draw(answers, positive)
        ends = {"auc_low": interval[0], "auc_high": interval[1]} if interval else {}
        self._measure("test", fitted, answers, held_out, **ends)
        self.run.tags({"davy.test_set": held_out.digest, "davy.test_predictions": digest_predictions(answers)})

    def _draw(self, answers: np.ndarray, positive: np.ndarray) -> None:
        if not plots.available():
            self.notices.append("Without matplotlib there are no plots: pip install matplotlib")
            return
        if positive.any() and not positive.all():
            self.run.artifact(plots.roc_svg(answers, positive, self.definition.name), "test_roc.svg")
        if answers.min() >= 0 and answers.max() <= 1:
            self.run.artifact(plots.calibration_svg(answers, positive, self.definition.name), "test_calibration.svg")

    def _explain(self, fitted: Fitted, data: TrainingSet) -> None:
        values = importance(fitted.model, data.columns)
        if values is None:
            return
        self.run.json(values, "importance.json")
        if plots.available():
            self.run.artifact(plots.importance_svg(values, self.definition.name), "importance.svg")

    def _register(self, fitted: Fitted, data: TrainingSet, kept: record.TrainingRecord) -> ModelVersion:
        """Store the files, then in one transaction the training set and the version: there is never half of one."""
        self.report("registering the version")
        feature_set = self.definition.spec.feature_set
        signature = Signature.of(feature_set.outputs, feature_set.kinds, data.categories, output=fitted.saved.output, classes=fitted.saved.classes)
        self.run.artifact(kept.to_json(), record.ARTIFACT)
        for path, content in fitted.saved.files.items():
            self.run.artifact(content, f"model/{path}")
        files = store_files(self.home.blobs, fitted.saved.files)
        clock, actor = self.home.clock, self.home.actor
        self.run.flush()
        with self.home.database.begin() as connection:
            put_feature_set(connection, feature_set, clock=clock)
            put_training_set(connection, TrainingSetRecord(data.digest, feature_set.digest, len(data), msgspec.to_builtins(kept.data)), clock=clock)
            version = register(connection, clock=clock, actor=actor, name=self.definition.name, format=fitted.saved.format, files=files,
                               signature=signature, feature_set=feature_set, run_id=self.run.id, training_set=data.digest, blobs=self.home.blobs)
        self.run.tags({"davy.version": version.reference, "davy.training_set": data.digest, "davy.predictions": kept.predictions,
                       "davy.model_digest": kept.model_digest})
        return version
