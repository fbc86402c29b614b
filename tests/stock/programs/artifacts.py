"""Artifacts of every kind and name, up and down through the server. Runs with MLflow 2 and 3."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import mlflow
import numpy as np
import pandas as pd
from checks import same, step, true
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts, load_dict, load_image, load_text
from mlflow.exceptions import MlflowException

client = MlflowClient()
mlflow.set_experiment("artifacts")
folder = Path(tempfile.mkdtemp())
NAMES = (
    "plain.txt",
    "with space.txt",
    "ünïcödé.txt",
    "日本語.txt",
    "100%.txt",
    "a+b&c=d.txt",
    "semi;colon,comma.txt",
    "quote'.txt",
    "(round) [square].txt",
    "no extension",
    ".hidden",
    "empty.bin",
    "tilde~.txt",
    "at@.txt",
    "plus+.txt",
)

with mlflow.start_run(run_name="artifacts") as run:
    uri = run.info.artifact_uri
    with step("an empty list"):
        same(client.list_artifacts(run.info.run_id), [])

    with step("text, dict, figure, table, image"):
        mlflow.log_text("grüße\n", "texts/hello.txt")
        mlflow.log_dict({"a": [1, {"b": None}]}, "config.json")
        mlflow.log_dict({"a": [1, 2]}, "config.yaml")
        figure, axes = plt.subplots()
        axes.plot([1, 2])
        mlflow.log_figure(figure, "figure.png")
        mlflow.log_table({"question": ["a", "b"], "score": [1, 2]}, "table.json")
        mlflow.log_table(pd.DataFrame({"question": ["c"], "score": [3]}), "table.json")
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), "black.png")
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), key="live", step=3)
        same(load_text(f"{uri}/texts/hello.txt"), "grüße\n")
        same(load_dict(f"{uri}/config.json"), {"a": [1, {"b": None}]})
        same(load_image(f"{uri}/black.png").size, (4, 4))
        same(list(mlflow.load_table("table.json")["score"]), [1, 2, 3])
        same("table.json" in mlflow.get_run(run.info.run_id).data.tags["mlflow.loggedArtifacts"], True)

    with step("files with odd names"):
        for number, name in enumerate(NAMES):
            (folder / name).write_bytes(b"" if name == "empty.bin" else f"{number} {name}".encode())
            mlflow.log_artifact(folder / name, "odd")
        same({one.path for one in client.list_artifacts(run.info.run_id, "odd")}, {f"odd/{name}" for name in NAMES})
        for name in NAMES:
            same(Path(download_artifacts(run_id=run.info.run_id, artifact_path=f"odd/{name}")).read_bytes(), (folder / name).read_bytes(), name)

    with step("a folder"):
        (folder / "tree" / "ä b" / "deep").mkdir(parents=True)
        (folder / "tree" / "ä b" / "deep" / "x.json").write_text("{}")
        (folder / "tree" / "top.csv").write_text("a\n1\n")
        mlflow.log_artifacts(folder / "tree", "tree")
        copy = Path(download_artifacts(f"runs:/{run.info.run_id}/tree"))
        same({str(path.relative_to(copy)): path.read_text() for path in copy.rglob("*") if path.is_file()}, {"ä b/deep/x.json": "{}", "top.csv": "a\n1\n"})
        same(
            [(one.path, one.is_dir, one.file_size) for one in client.list_artifacts(run.info.run_id, "tree")],
            [("tree/top.csv", False, 4), ("tree/ä b", True, None)],
        )
        whole = Path(download_artifacts(uri))
        same(json.loads((whole / "config.json").read_text()), {"a": [1, {"b": None}]})
        same((whole / "odd" / "100%.txt").read_bytes(), (folder / "100%.txt").read_bytes())

    with step("40 MB, streamed"):
        content = np.random.default_rng(0).bytes(1 << 20) * 40
        (folder / "large.bin").write_bytes(content)
        mlflow.log_artifact(folder / "large.bin")
        back = Path(download_artifacts(run_id=run.info.run_id, artifact_path="large.bin", dst_path=folder / "down"))
        same(hashlib.sha256(back.read_bytes()).hexdigest(), hashlib.sha256(content).hexdigest())
        same({one.path: one.file_size for one in client.list_artifacts(run.info.run_id)}["large.bin"], 40 << 20)

    with step("in parts, up and down"):
        for name in ("UPLOAD", "DOWNLOAD"):
            os.environ[f"MLFLOW_ENABLE_PROXY_MULTIPART_{name}"] = "true"
            os.environ[f"MLFLOW_MULTIPART_{name}_MINIMUM_FILE_SIZE"] = os.environ[f"MLFLOW_MULTIPART_{name}_CHUNK_SIZE"] = str(6 << 20)
        mlflow.log_artifact(str(folder / "large.bin"), "parts")  # the client fails on a Path here
        back = Path(download_artifacts(run_id=run.info.run_id, artifact_path="parts/large.bin", dst_path=folder / "parts"))
        same(hashlib.sha256(back.read_bytes()).hexdigest(), hashlib.sha256(content).hexdigest())

    with step("a file is written over"):
        mlflow.log_text("one", "again.txt")
        mlflow.log_text("two, longer", "again.txt")
        same(load_text(f"{uri}/again.txt"), "two, longer")

    with step("what is not there"):
        same(client.list_artifacts(run.info.run_id, "nothing"), [])
        same(list_artifacts(run_id=run.info.run_id, artifact_path="config.json"), [])
        try:
            download_artifacts(run_id=run.info.run_id, artifact_path="nothing.txt")
        except (MlflowException, OSError) as error:  # a bare HTTPError of requests is an OSError
            true("nothing.txt" in str(error), error)
        else:
            raise SystemExit("wrong: nothing.txt was downloaded")
        for path in ("../x", "/etc/passwd", "a/../../x", "%2e%2e/x"):
            try:
                client.list_artifacts(run.info.run_id, path)
            except (MlflowException, OSError) as error:  # a bare HTTPError of requests is an OSError
                true("Invalid path" in str(error), error)
            else:
                raise SystemExit(f"wrong: {path} was listed")

    with step("a run's artifacts are deleted"):
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(uri).delete_artifacts("again.txt")
        same("again.txt" in {one.path for one in client.list_artifacts(run.info.run_id)}, False)
