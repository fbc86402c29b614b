"""All tables, in one MetaData. Experiments, runs and the registry are laid out so that MLflow's protocol can be served from them.

Times named `*_time` and `timestamp` are milliseconds since 1970, as that protocol has them; `micros` columns are
microseconds. JSON is kept as text, because digests cover its bytes. A NaN is `is_nan` beside the value 0, and
infinities are themselves.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                                       "fk": "fk_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"})

_Name, _Key, _Id, _Digest, SHORT = String(500), String(250), String(34), String(71), 100


def is_short(value: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """What the indexes of values hold, from which a query is answered that says so too. PostgreSQL's take no long texts, and SQLite's would have them twice."""
    return sa.func.length(value) <= sa.literal_column(str(SHORT))


def _run(primary: bool = True) -> Column[str]:
    return Column("run_id", String(32), ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=primary, nullable=False)


def _trace() -> Column[str]:
    return Column("trace_id", String(250), ForeignKey("traces.trace_id", ondelete="CASCADE"), primary_key=True, nullable=False)


def _logged() -> Column[str]:
    return Column("model_id", _Id, ForeignKey("logged_models.model_id", ondelete="CASCADE"), primary_key=True, nullable=False)


def _registered() -> Column[str]:
    return Column("name", _Name, ForeignKey("registered_models.name", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True, nullable=False)


def _version_key(ending: str = "") -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["name", "version"], ["model_versions.name", "model_versions.version"], ondelete="CASCADE", onupdate="CASCADE")


experiments = Table(
    "experiments", metadata,
    Column("experiment_id", Integer, primary_key=True, autoincrement=True),
    Column("name", _Name, nullable=False, unique=True),
    Column("artifact_location", Text, nullable=False),
    Column("lifecycle_stage", String(10), nullable=False),
    Column("creation_time", BigInteger, nullable=False),
    Column("last_update_time", BigInteger, nullable=False),
)
experiment_tags = Table(
    "experiment_tags", metadata,
    Column("experiment_id", Integer, ForeignKey("experiments.experiment_id", ondelete="CASCADE"), primary_key=True),
    Column("key", _Key, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)
runs = Table(
    "runs", metadata,
    Column("run_id", String(32), primary_key=True),
    Column("experiment_id", Integer, ForeignKey("experiments.experiment_id"), nullable=False),
    Column("name", _Name, nullable=False),
    Column("user_id", String(256), nullable=False),
    Column("status", String(10), nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("end_time", BigInteger),
    Column("deleted_time", BigInteger),
    Column("lifecycle_stage", String(10), nullable=False),
    Column("artifact_uri", Text, nullable=False),
    Index("ix_runs_recent", "experiment_id", "lifecycle_stage", "start_time", "run_id"),
    Index("ix_runs_start", "start_time", "run_id"),
    sqlite_with_rowid=False,
)
params = Table("params", metadata, _run(), Column("key", _Key, primary_key=True), Column("value", Text, nullable=False), sqlite_with_rowid=False)
tags = Table("tags", metadata, _run(), Column("key", _Key, primary_key=True), Column("value", Text, nullable=False), sqlite_with_rowid=False)
for _table in (params, tags):
    Index(f"ix_{_table.name}_value", _table.c.key, _table.c.value, _table.c.run_id, sqlite_where=is_short(_table.c.value),
          postgresql_where=is_short(_table.c.value))

# Points are packed in `data` (see tracking/points.py), which comes last so that the other columns are read without it.
metric_chunks = Table(
    "metric_chunks", metadata, _run(),
    Column("key", _Key, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("count", Integer, nullable=False),
    Column("first_step", BigInteger, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    Column("first_time", BigInteger, nullable=False),
    Column("last_time", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
# One row for each curve. `step` to `is_nan` is its latest point, the highest by (step, timestamp, value) where NaN counts as 0; `lowest` and `highest`
# leave NaN out; `last` was written last. `newest` is its highest timestamp, `chunk` its newest chunk, with `filled` points in it.
latest_metrics = Table(
    "latest_metrics", metadata, _run(),
    Column("key", _Key, primary_key=True),
    Column("step", BigInteger, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("value", Float(53), nullable=False),
    Column("is_nan", Boolean, nullable=False),
    Column("lowest", Float(53)),
    Column("highest", Float(53)),
    Column("last", Float(53), nullable=False),
    Column("last_is_nan", Boolean, nullable=False),
    Column("newest", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("chunk", Integer, nullable=False),
    Column("filled", Integer, nullable=False),
    Index("ix_latest_metrics_order", "key", "is_nan", "value", "run_id"),
    Index("ix_latest_metrics_lowest", "key", "lowest", "run_id"),
    Index("ix_latest_metrics_highest", "key", "highest", "run_id"),
    Index("ix_latest_metrics_last", "key", "last_is_nan", "last", "run_id"),
    sqlite_with_rowid=False,
)
artifacts = Table(
    "artifacts", metadata,
    Column("owner", _Id, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("digest", _Digest, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("creation_time", BigInteger, nullable=False),
    Index("ix_artifacts_digest", "digest"),
    sqlite_with_rowid=False,
)
# Blobs at which nothing pointed when they were collected (store/garbage.py); seconds.
collected_blobs = Table(
    "collected_blobs", metadata,
    Column("digest", _Digest, primary_key=True),
    Column("began", BigInteger, nullable=False),
    Column("ended", BigInteger),
    sqlite_with_rowid=False,
)
datasets = Table(
    "datasets", metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("experiment_id", Integer, ForeignKey("experiments.experiment_id", ondelete="CASCADE"), nullable=False),
    Column("name", _Name, nullable=False),
    Column("digest", String(100), nullable=False),
    Column("source_type", String(36), nullable=False),
    Column("source", Text, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
    UniqueConstraint("experiment_id", "name", "digest"),
)
inputs = Table(
    "inputs", metadata, _run(),
    Column("dataset_id", String(32), ForeignKey("datasets.dataset_id", ondelete="CASCADE"), primary_key=True, index=True),
    sqlite_with_rowid=False,
)
input_tags = Table(
    "input_tags", metadata,
    Column("run_id", String(32), primary_key=True),
    Column("dataset_id", String(32), primary_key=True),
    Column("key", _Key, primary_key=True),
    Column("value", Text, nullable=False),
    ForeignKeyConstraint(["run_id", "dataset_id"], ["inputs.run_id", "inputs.dataset_id"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

logged_models = Table(
    "logged_models", metadata,
    Column("model_id", _Id, primary_key=True),
    Column("experiment_id", Integer, ForeignKey("experiments.experiment_id", ondelete="CASCADE"), nullable=False),
    Column("name", _Name, nullable=False),
    Column("artifact_uri", Text, nullable=False),
    Column("status", String(32), nullable=False),
    Column("status_message", Text),
    Column("model_type", _Name),
    Column("source_run_id", String(32), index=True),
    Column("creation_time", BigInteger, nullable=False),
    Column("last_update_time", BigInteger, nullable=False),
    Column("lifecycle_stage", String(10), nullable=False),
    Index("ix_logged_models_recent", "experiment_id", "lifecycle_stage", "creation_time", "model_id"),
)
logged_model_params = Table("logged_model_params", metadata, _logged(), Column("key", _Key, primary_key=True), Column("value", Text, nullable=False),
                            sqlite_with_rowid=False)
logged_model_tags = Table("logged_model_tags", metadata, _logged(), Column("key", _Key, primary_key=True), Column("value", Text, nullable=False),
                          sqlite_with_rowid=False)
logged_model_metrics = Table(
    "logged_model_metrics", metadata, _logged(), _run(),
    Column("key", _Key, primary_key=True),
    Column("timestamp", BigInteger, primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Float(53), nullable=False),
    Column("is_nan", Boolean, nullable=False),
    Column("dataset_name", _Name),
    Column("dataset_digest", String(100)),
    Index("ix_logged_model_metrics_order", "key", "value", "model_id"),
    sqlite_with_rowid=False,
)
model_inputs = Table("model_inputs", metadata, _run(), _logged(), sqlite_with_rowid=False)
outputs = Table("outputs", metadata, _run(), _logged(), Column("step", BigInteger, nullable=False), sqlite_with_rowid=False)

# A trace is what a program did for one request; its spans are a file among the experiment's artifacts. `assessments` is a JSON list.
traces = Table(
    "traces", metadata,
    Column("trace_id", String(250), primary_key=True),
    Column("experiment_id", Integer, ForeignKey("experiments.experiment_id", ondelete="CASCADE"), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("duration", BigInteger),
    Column("state", String(20), nullable=False),
    Column("client_request_id", _Name),
    Column("request_preview", Text),
    Column("response_preview", Text),
    Column("assessments", Text),
    Index("ix_traces_recent", "experiment_id", "time", "trace_id"),
)
trace_tags = Table("trace_tags", metadata, _trace(), Column("key", _Key, primary_key=True), Column("value", Text, nullable=False), sqlite_with_rowid=False)
trace_metadata = Table("trace_metadata", metadata, _trace(), Column("key", _Key, primary_key=True), Column("value", Text, nullable=False),
                       sqlite_with_rowid=False)

registered_models = Table(
    "registered_models", metadata,
    Column("name", _Name, primary_key=True),
    Column("creation_time", BigInteger, nullable=False),
    Column("last_update_time", BigInteger, nullable=False),
    Column("description", Text),
)
registered_model_tags = Table("registered_model_tags", metadata, _registered(), Column("key", _Key, primary_key=True), Column("value", Text, nullable=False),
                              sqlite_with_rowid=False)
feature_sets = Table(
    "feature_sets", metadata,
    Column("digest", _Digest, primary_key=True),
    Column("json", Text, nullable=False),
    Column("creation_time", BigInteger, nullable=False),
)
views = Table(
    "views", metadata,
    Column("digest", _Digest, primary_key=True),
    Column("name", _Name, nullable=False, index=True),
    Column("json", Text, nullable=False),
    Column("creation_time", BigInteger, nullable=False),
)
training_sets = Table(
    "training_sets", metadata,
    Column("digest", _Digest, primary_key=True),
    Column("feature_set", _Digest, ForeignKey("feature_sets.digest"), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("json", Text, nullable=False),
    Column("creation_time", BigInteger, nullable=False),
)
# The columns after `model_id` are what a worker loads and what a gateway computes: filled by training, or when a version from a source is adopted.
model_versions = Table(
    "model_versions", metadata, _registered(),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("creation_time", BigInteger, nullable=False),
    Column("last_update_time", BigInteger, nullable=False),
    Column("user_id", String(256), nullable=False),
    Column("current_stage", String(20), nullable=False),
    Column("description", Text),
    Column("source", Text),
    Column("storage_location", Text),
    Column("run_id", String(32), index=True),
    Column("run_link", Text),
    Column("status", String(20), nullable=False),
    Column("status_message", Text),
    Column("deleted", Boolean, nullable=False),
    Column("model_id", _Id),
    Column("format", String(32)),
    Column("files", Text),
    Column("signature", Text),
    Column("feature_set", _Digest, ForeignKey("feature_sets.digest")),
    Column("training_set", _Digest, ForeignKey("training_sets.digest")),
    Column("digest", _Digest, index=True),
    Index("ix_model_versions_stage", "name", "current_stage", "version"),
)
model_version_tags = Table(
    "model_version_tags", metadata,
    Column("name", _Name, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("key", _Key, primary_key=True),
    Column("value", Text, nullable=False),
    _version_key(),
    sqlite_with_rowid=False,
)
aliases = Table(
    "aliases", metadata, _registered(),
    Column("alias", String(255), primary_key=True),
    Column("version", Integer, nullable=False),
    _version_key(),
    sqlite_with_rowid=False,
)

# What a gate found, or that somebody has overruled it: one row each, never changed; `digest` covers `evidence`, and the journal names it.
gates = Table(
    "gates", metadata,
    Column("gate_id", String(32), primary_key=True),
    Column("name", _Name, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("stable", Integer),
    Column("time", BigInteger, nullable=False),
    Column("actor", String(256), nullable=False),
    Column("digest", _Digest, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    _version_key(),
    Index("ix_gates_version", "name", "version", "seq"),
)

traffic = Table(
    "traffic", metadata,
    Column("model", _Name, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("weights", Text, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("actor", String(256), nullable=False),
    Column("release", String(32), nullable=False, server_default=""),
    Column("stable", Integer),
    Column("shadow", Integer),
)
releases = Table(
    "releases", metadata,
    Column("id", String(32), primary_key=True),
    Column("model", _Name, nullable=False),
    Column("version", Integer, nullable=False),
    Column("stable", Integer, nullable=False),
    Column("strategy", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("policy", Text, nullable=False),
    Column("progress", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("ended", BigInteger),
    Column("actor", String(256), nullable=False),
    Index("ix_releases_recent", "model", "created"),
)
# Two releases at once on one model are refused by the database itself.
Index("uq_releases_open", releases.c.model, unique=True, sqlite_where=releases.c.ended.is_(None), postgresql_where=releases.c.ended.is_(None))
release_points = Table(
    "release_points", metadata,
    Column("release", String(32), ForeignKey("releases.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("json", Text, nullable=False),
    sqlite_with_rowid=False,
)
journal = Table(
    "journal", metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("actor", String(256), nullable=False),
    Column("action", String(100), nullable=False),
    Column("subject", _Name, nullable=False),
    Column("details", Text, nullable=False),
    Column("previous", _Digest, nullable=False),
    Column("digest", _Digest, nullable=False),
    Index("ix_journal_subject", "subject", "seq"),
)

# Who may ask. Secrets are never stored: a password is kept as scrypt's record, tokens and sessions as the SHA-256 of 256 random bits. Times are microseconds.
# Whatever changes one of these tables raises `revision`, so that who keeps them in memory reads them again only then.
users = Table(
    "users", metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password", Text),
    Column("created", BigInteger, nullable=False),
    Column("disabled", BigInteger),
)
tokens = Table(
    "tokens", metadata,
    Column("token_id", String(32), primary_key=True),
    Column("digest", _Digest, nullable=False, unique=True),
    Column("owner", String(64), ForeignKey("users.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("role", String(16)),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("used", BigInteger),
    Column("revoked", BigInteger),
)
sessions = Table(
    "sessions", metadata,
    Column("digest", _Digest, primary_key=True),
    Column("owner", String(64), ForeignKey("users.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("created", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
)
auth_revision = Table(
    "auth_revision", metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
)
log_segments = Table(
    "log_segments", metadata,
    Column("stream", _Name, primary_key=True),
    Column("first_offset", BigInteger, primary_key=True, autoincrement=False),
    Column("last_offset", BigInteger, nullable=False),
    Column("digest", _Digest, nullable=False),
    sqlite_with_rowid=False,
)

# What monitoring has found. `start`, `began` and the like are microseconds; `data` are packed records (see monitoring/packed.py).
monitor_cursors = Table(
    "monitor_cursors", metadata,
    Column("name", _Name, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("data", Text, nullable=False),
    sqlite_with_rowid=False,
)
monitor_references = Table(
    "monitor_references", metadata,
    Column("training_set", _Digest, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("creation_time", BigInteger, nullable=False),
)
monitor_profiles = Table(
    "monitor_profiles", metadata,
    Column("model", _Name, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("arm", String(100), primary_key=True),
    Column("span", BigInteger, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("rows", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("ix_monitor_profiles_recent", "model", "span", "start"),
)
monitor_banks = Table(
    "monitor_banks", metadata,
    Column("model", _Name, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("reference", _Digest, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
monitor_alarms = Table(
    "monitor_alarms", metadata,
    Column("id", String(32), primary_key=True),
    Column("model", _Name, nullable=False),
    Column("version", Integer, nullable=False),
    Column("feature", _Name, nullable=False),
    Column("began", BigInteger, nullable=False),
    Column("raised", BigInteger, nullable=False),
    Column("cleared", BigInteger),
    Column("evidence", Text, nullable=False),
    Index("ix_monitor_alarms_model", "model", "raised"),
)
monitor_cohorts = Table(
    "monitor_cohorts", metadata,
    Column("model", _Name, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("arm", String(100), primary_key=True),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("rows", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("ix_monitor_cohorts_recent", "model", "start"),
)
monitor_replays = Table(
    "monitor_replays", metadata,
    Column("model", _Name, primary_key=True),
    Column("until", BigInteger, primary_key=True, autoincrement=False),
    Column("start", BigInteger, nullable=False),
    Column("checked", BigInteger, nullable=False),
    Column("equal", BigInteger, nullable=False),
    Column("details", Text, nullable=False),
)
alerts = Table(
    "alerts", metadata,
    Column("rule", _Name, primary_key=True),
    Column("subject", _Name, primary_key=True),
    Column("state", String(10), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("value", Float(53)),
    Column("details", Text, nullable=False),
)
alert_deliveries = Table(
    "alert_deliveries", metadata,
    Column("id", String(32), primary_key=True),
    Column("rule", _Name, nullable=False),
    Column("subject", _Name, nullable=False),
    Column("url", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("ended", BigInteger),
    Column("problem", Text),
    Index("ix_alert_deliveries_due", "ended", "due"),
)
