"""Make an mlflow.db as MLflow 2.22 left it at `argv[1]`, by MLflow's own migrations up to that release, with a run and a model in it."""

import sys

import sqlalchemy as sa
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base

HEAD = "0584bdc529eb"
RUN = "a" * 32
uri = f"sqlite:///{sys.argv[1]}"
engine = sa.create_engine(uri)
Base.metadata.create_all(engine)
config = _get_alembic_config(uri)
with engine.begin() as connection:
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
with engine.begin() as connection:
    def put(table: str, **values: object) -> None:
        connection.execute(sa.text(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)})"), values)

    put("experiments", experiment_id=7, name="old", artifact_location="mlflow-artifacts:/7", lifecycle_stage="active", creation_time=5, last_update_time=6)
    put("runs", run_uuid=RUN, name="old run", source_type="UNKNOWN", source_name="", entry_point_name="", user_id="ada", status="FINISHED", start_time=10,
        end_time=20, source_version="", lifecycle_stage="active", artifact_uri=f"mlflow-artifacts:/7/{RUN}/artifacts", experiment_id=7)
    for step in range(3):
        put("metrics", key="loss", value=step / 4, timestamp=step, run_uuid=RUN, step=step, is_nan=False)
    put("latest_metrics", key="loss", value=0.5, timestamp=2, step=2, is_nan=False, run_uuid=RUN)
    put("params", key="rate", value="0.1", run_uuid=RUN)
    put("tags", key="mlflow.runName", value="old run", run_uuid=RUN)
    put("registered_models", name="old", creation_time=30, last_updated_time=31, description="")
    put("model_versions", name="old", version=4, creation_time=32, last_updated_time=33, description="", user_id="ada", current_stage="Staging",
        source=f"mlflow-artifacts:/7/{RUN}/artifacts/model", run_id=RUN, status="READY", status_message="", run_link="")
engine.dispose()
print("{}")
