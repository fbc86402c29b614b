"""`davy why`: from one prediction back to the events, the version, the run, the training set and the commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from davy.cli import open_home
from davy.cli.output import print_json, when
from davy.code import FOLDER
from davy.core.time import format_time

if TYPE_CHECKING:
    from davy.features.definition import FeatureSet
    from davy.features.evidence import Evidence
    from davy.home import Home
    from davy.serving.predictions import PredictionRecord


_CODE = f"{FOLDER}/"


@click.command
@click.argument("prediction")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(prediction: str, as_json: bool) -> None:
    """Walk from PREDICTION (the prediction_id of an answer) back to what made it.

    For each value of its vector: the definition, and how many events of which stream it was made of, the newest offsets first.
    Then the arm and version that answered, the release behind it and what was decided, its run, training set and commit.
    """
    home = open_home()
    try:
        found = explain(home, prediction)
    finally:
        home.close()
    if as_json:
        print_json(found)
    else:
        print("\n".join(_lines(found)))


def explain(home: Home, prediction: str) -> dict[str, Any]:
    """Everything that led to a prediction, JSON-able."""
    from davy.events.client import connect
    from davy.features.evidence import evidence
    from davy.gate.record import standing
    from davy.registry.definitions import get_feature_set
    from davy.registry.lineage import lineage
    from davy.registry.models import get_version
    from davy.release.status import behind
    from davy.serving.predictions import OK, find_prediction

    record = find_prediction(home, prediction)
    log = connect(home)
    try:
        log.flush()
    finally:
        log.close()
    with home.database.read() as connection:
        features = get_feature_set(connection, record.feature_set)
        line = lineage(connection, get_version(connection, record.model, record.version))
        gate = standing(connection, record.model, record.version)
        release = behind(connection, record.model, record.version, record.release, record.logged)
    read = record.status == OK or record.kernel != ""
    events = evidence(home, features, record.entities, at=record.time, watermarks=record.watermarks) if read else {}
    answer = {"prediction": record.id, "output": record.output, "model": record.model, "version": record.version, "arm": record.arm, "pinned": record.pinned,
              "share": record.share, "status": record.status, "answered": record.answered or None, "time": record.time, "logged": record.logged,
              "routing_key": record.routing_key, "latency_us": record.latency}
    kinds = {field.name: field.kind for field in (*features.entities, *features.request)}
    return {**answer, "entities": record.entities, "request": record.request, "kinds": kinds, "watermarks": record.watermarks,
            "vector": _vector(record, features, events), "gate": msgspec.to_builtins(gate), "release": release,
            **{name: line[name] for name in ("run", "training_set", "feature_set", "commit", "registered")},
            "code": [path.removeprefix(_CODE) for path in sorted(line["files"]) if path.startswith(_CODE)]}


def _vector(record: PredictionRecord, features: FeatureSet, behind: dict[str, Evidence]) -> list[dict[str, Any]]:
    from davy.features.describe import describe

    words = describe(features)
    inputs = {derived.name: list(derived.inputs) for derived in features.derived}
    rows = []
    for name, kind, value in zip(features.outputs, features.kinds, record.values, strict=True):
        row: dict[str, Any] = {"feature": name, "value": value, "kind": kind, "definition": words[name]}
        if name in behind:
            row |= msgspec.to_builtins(behind[name])
        if name in inputs:
            row["inputs"] = inputs[name]
        rows.append(row)
    return rows


def _lines(found: dict[str, Any]) -> list[str]:
    """The walk as a tree of lines."""
    run, training_set = found["run"], found["training_set"]
    head = f"{found['prediction']}  {found['model']} answered {found['output']}"
    lines = [head, f"├─ as of {when(found['time'])}, asked with {_pairs({**found['entities'], **found['request']}, found['kinds'])}", "├─ vector"]
    width = max((len(row["feature"]) for row in found["vector"]), default=0)
    values = [_value(row["value"]) for row in found["vector"]]
    wide = max(map(len, values), default=0)
    for index, (row, value) in enumerate(zip(found["vector"], values, strict=True)):
        branch = "└─" if index == len(values) - 1 else "├─"
        lines.append(f"│  {branch} {row['feature']:{width}}  {value:>{wide}}  {row['definition']}{_events(row)}")
    lines.append(f"├─ {_answered(found)}")
    lines.append(f"├─ {_gate(found['gate'])}")
    lines.append(f"├─ {_released(found['release'])}")
    lines.append(f"├─ run {run['name']} ({run['id']}), {run['status'].lower()} {when(run['started'])} by {run['user']}" if run else "├─ run not recorded")
    lines.append(f"├─ training set {training_set['digest'][7:19]}, {training_set['rows']:,} rows" if training_set else "├─ training set not recorded")
    lines += [f"├─ code {', '.join(found['code'])}, kept with the version"] if found["code"] else []
    lines.append(f"└─ commit {found['commit'] or 'not recorded'}")
    return lines


def _gate(standing: dict[str, Any]) -> str:
    """How the version stands with its gate, with the evidence."""
    if standing["state"] == "none":
        return "gate not run"
    told = f"gate {standing['state']} {when(standing['time'])} by {standing['actor']}, evidence {standing['digest'][7:19]}"
    why = standing["reason"] or ", ".join(standing["failed"])
    return f"{told}: {why}" if why else told


def _answered(found: dict[str, Any]) -> str:
    """Who answered, or failed to."""
    who = f"{found['model']}@{found['version']}, arm {found['arm']}{', pinned' if found['pinned'] else ''}"
    if found["status"] == "fallback":
        return f"answered by {who}, because the version that it was routed to had failed"
    if found["status"] != "ok":
        instead = f"; answered by prediction {found['answered']}" if found["answered"] else ""
        return f"not answered by {who}: {found['status']}{instead}"
    share = "" if found["pinned"] else f", which had {found['share']:.4g} of the traffic"
    return f"answered by {who}{share}"


def _released(release: dict[str, Any] | None) -> str:
    """The release behind it, and what was decided on which evidence."""
    if release is None:
        return "no release: the weights were set by hand"
    what = f"release {release['release']} of {release['model']}@{release['version']} ({release['strategy']})"
    decided = "; ".join(reason.rstrip(".") for reason in release["reasons"])
    return f"{'during' if release['during'] else 'there by'} {what}: {release['state']} {when(release['updated'])}: {decided}"


def _events(row: dict[str, Any]) -> str:
    if "events" not in row:
        return ""
    newest = f" ({', '.join(map(str, row['newest']))}{', …' if row['events'] > len(row['newest']) else ''})" if row["newest"] else ""
    return f": {row['events']:,} events up to offset {row['watermark']}{newest}"


def _pairs(values: dict[str, Any], kinds: dict[str, str]) -> str:
    return " ".join(f"{name}={format_time(value) if kinds[name] == 'time' and value is not None else _value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    return "null" if value is None else repr(value) if isinstance(value, float) else str(value)
