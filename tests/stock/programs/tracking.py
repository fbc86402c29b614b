"""Experiments, runs, metrics, params, tags, inputs and searches, as training code calls them. Runs with MLflow 2 and 3."""

from __future__ import annotations

import math
import threading

import mlflow
import pandas as pd
from checks import refused, same, step, true
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType

client = MlflowClient()

with step("set_experiment makes it, then finds it"):
    experiment = mlflow.set_experiment("tracking")
    same(mlflow.set_experiment("tracking").experiment_id, experiment.experiment_id)
    same(mlflow.get_experiment_by_name("nobody's"), None)
    same(mlflow.get_experiment(experiment.experiment_id).name, "tracking")

with step("fluent logging"):
    with mlflow.start_run(run_name="fluent", tags={"team": "air"}, description="a note") as run:
        mlflow.log_param("lr", 0.1)
        mlflow.log_params({"depth": 3, "empty": "", "ünï": "日本"})
        mlflow.log_metric("loss", 1.0, step=0)
        mlflow.log_metrics({"loss": 0.5, "acc": 0.75, "inf like": 1e308}, step=1)
        mlflow.log_metric("late", 5.0, step=2)
        mlflow.log_metric("late", 4.0, step=1)
        mlflow.log_metric("nan", math.nan)
        mlflow.set_tag("a", 1)
        mlflow.set_tags({"b": 2, "c": "x" * 3000})
        mlflow.delete_tag("a")
        same(mlflow.active_run().info.run_id, run.info.run_id)
    found = mlflow.get_run(run.info.run_id)
    same(found.data.params, {"lr": "0.1", "depth": "3", "empty": "", "ünï": "日本"})
    same({key: value for key, value in found.data.metrics.items() if key != "nan"}, {"loss": 0.5, "acc": 0.75, "inf like": 1e308, "late": 5.0})
    true(math.isnan(found.data.metrics["nan"]), "NaN comes back")
    same(
        {key: found.data.tags[key] for key in ("team", "b", "mlflow.runName", "mlflow.note.content")},
        {"team": "air", "b": "2", "mlflow.runName": "fluent", "mlflow.note.content": "a note"},
    )
    true("a" not in found.data.tags, "a tag was deleted")
    same((found.info.status, found.info.run_name, found.info.lifecycle_stage), ("FINISHED", "fluent", "active"))
    true(found.info.end_time >= found.info.start_time > 1_600_000_000_000, "times")
    same(mlflow.last_active_run().info.run_id, run.info.run_id)

with step("a run that fails"):
    try:
        with mlflow.start_run(run_name="failing") as failing:
            raise RuntimeError("no")
    except RuntimeError:
        pass
    same(client.get_run(failing.info.run_id).info.status, "FAILED")

with step("a run goes on"):
    with mlflow.start_run(run_id=failing.info.run_id):
        mlflow.log_metric("again", 1)
    same(client.get_run(failing.info.run_id).info.status, "FINISHED")

with step("nested runs"):
    with mlflow.start_run(run_name="parent") as parent:
        children = []
        for number in range(3):
            with mlflow.start_run(run_name=f"child-{number}", nested=True) as child:
                mlflow.log_metric("n", number)
                children.append(child.info.run_id)
    found = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", order_by=["metrics.n DESC"], output_format="list")
    same([one.info.run_id for one in found], children[::-1])
    same(mlflow.get_parent_run(children[0]).info.run_id, parent.info.run_id)

with step("batches, larger than one request takes"):
    with mlflow.start_run(run_name="batch") as run:
        client.log_batch(
            run.info.run_id,
            metrics=[Metric("m", number / 2, 1000 + number, number) for number in range(900)],
            params=[Param(f"p{number}", "v") for number in range(50)],
            tags=[RunTag(f"t{number}", "v") for number in range(50)],
        )
        mlflow.log_params({f"q{number}": number for number in range(250)})
        mlflow.log_metrics({f"many{number}": number for number in range(1500)})
    found = client.get_run(run.info.run_id)
    same((len(found.data.params), len(found.data.metrics)), (300, 1501))
    history = client.get_metric_history(run.info.run_id, "m")
    same([(one.value, one.timestamp, one.step) for one in history], [(number / 2, 1000 + number, number) for number in range(900)])

with step("a history of more than one page"):
    with mlflow.start_run(run_name="long") as run:
        for start in range(0, 27_000, 1000):
            client.log_batch(run.info.run_id, metrics=[Metric("long", float(number), 1000 + number, number) for number in range(start, start + 1000)])
    history = client.get_metric_history(run.info.run_id, "long")
    same((len(history), history[0].step, history[-1].value), (27_000, 0, 26_999.0))
    same(client.get_metric_history(run.info.run_id, "nothing"), [])

with step("runs without the fluent API"):
    run = client.create_run(experiment.experiment_id, start_time=1234, tags={"mlflow.user": "ada"}, run_name="plain")
    client.log_metric(run.info.run_id, "x", 1.5, timestamp=5, step=-3)
    client.log_param(run.info.run_id, "k", "v")
    client.set_tag(run.info.run_id, "t", "v")
    client.delete_tag(run.info.run_id, "t")
    client.update_run(run.info.run_id, status="SCHEDULED", name="renamed")
    client.set_terminated(run.info.run_id, status="KILLED", end_time=9999)
    found = client.get_run(run.info.run_id)
    same((found.info.run_name, found.info.status, found.info.start_time, found.info.end_time), ("renamed", "KILLED", 1234, 9999))
    same([(one.step, one.timestamp) for one in client.get_metric_history(run.info.run_id, "x")], [(-3, 5)])
    client.delete_run(run.info.run_id)
    same(client.get_run(run.info.run_id).info.lifecycle_stage, "deleted")
    client.restore_run(run.info.run_id)
    same(client.get_run(run.info.run_id).info.lifecycle_stage, "active")

with step("datasets"):
    frame = pd.DataFrame({"a": [1, 2, 3], "y": [0.5, 1.5, 2.5]})
    with mlflow.start_run(run_name="data") as run:
        dataset = mlflow.data.from_pandas(frame, source="https://example.com/data.csv", name="flights", targets="y")
        mlflow.log_input(dataset, context="training", tags={"more": "x"})
    found = client.get_run(run.info.run_id).inputs.dataset_inputs
    same((len(found), found[0].dataset.name, found[0].dataset.digest), (1, "flights", dataset.digest))
    same({tag.key: tag.value for tag in found[0].tags}, {"mlflow.data.context": "training", "more": "x"})
    same(len(mlflow.search_runs(filter_string="dataset.name = 'flights' AND dataset.context = 'training'")), 1)

with step("search_runs gives a data frame"):
    frame = mlflow.search_runs(
        experiment_names=["tracking"],
        filter_string="metrics.loss < 1 AND params.depth = '3' AND tags.team ILIKE 'AIR'",
        order_by=["metrics.acc DESC", "attributes.start_time ASC"],
    )
    same((len(frame), frame["metrics.loss"][0], frame["params.lr"][0], frame["tags.team"][0], frame["status"][0]), (1, 0.5, "0.1", "air", "FINISHED"))
    same(len(mlflow.search_runs(search_all_experiments=True)) >= 9, True)
    page = client.search_runs([experiment.experiment_id], max_results=2)
    walked = list(page)
    while page.token:
        page = client.search_runs([experiment.experiment_id], max_results=2, page_token=page.token)
        walked += page
    every = client.search_runs([experiment.experiment_id])
    same([one.info.run_id for one in walked], [one.info.run_id for one in every])
    same(
        [one.info.run_id for one in every], [one.info.run_id for one in sorted(every, key=lambda one: (-one.info.start_time, one.info.run_id))], "default order"
    )

with step("search_experiments"):
    for number in range(4):
        mlflow.create_experiment(f"search-{number}", tags={"n": str(number % 2)})
    client.delete_experiment(client.get_experiment_by_name("search-3").experiment_id)
    same([one.name for one in mlflow.search_experiments(filter_string="name LIKE 'search-%'", order_by=["name DESC"])], ["search-2", "search-1", "search-0"])
    same([one.name for one in mlflow.search_experiments(filter_string="tags.n = '1'", view_type=ViewType.ALL, order_by=["name"])], ["search-1", "search-3"])
    same([one.name for one in client.search_experiments(view_type=ViewType.DELETED_ONLY)], ["search-3"])

with step("experiments change"):
    client.rename_experiment(client.get_experiment_by_name("search-0").experiment_id, "renamed")
    renamed = client.get_experiment_by_name("renamed")
    client.set_experiment_tag(renamed.experiment_id, "k", "v")
    same(client.get_experiment(renamed.experiment_id).tags, {"n": "0", "k": "v"})
    client.delete_experiment(renamed.experiment_id)
    same(client.get_experiment(renamed.experiment_id).lifecycle_stage, "deleted")
    with refused("INVALID_PARAMETER_VALUE", "active"):
        client.create_run(renamed.experiment_id)
    client.restore_experiment(renamed.experiment_id)
    mlflow.set_experiment(experiment_id=experiment.experiment_id)

with step("errors' codes"):
    with refused("RESOURCE_DOES_NOT_EXIST", "Run with id=nobody not found"):
        client.get_run("nobody")
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_experiment("99999")
    with refused("RESOURCE_ALREADY_EXISTS", "already exists"):
        client.create_experiment("tracking")
    client.log_param(run.info.run_id, "once", "1")
    with refused("INVALID_PARAMETER_VALUE", "Changing param values is not allowed"):
        client.log_param(run.info.run_id, "once", "2")
    with refused("INVALID_PARAMETER_VALUE", "Invalid clause"):
        client.search_runs([experiment.experiment_id], "metrics.loss <")
    with refused("INVALID_PARAMETER_VALUE", "Invalid comparator"):
        client.search_runs([experiment.experiment_id], "params.lr > '1'")
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_runs([experiment.experiment_id], max_results=60_000)
    with refused("INVALID_PARAMETER_VALUE", "Names may only contain"):
        client.log_metric(run.info.run_id, "what?", 1)
    with refused("RESOURCE_DOES_NOT_EXIST", "No tag with name"):
        client.delete_tag(run.info.run_id, "nothing")

with step("asynchronous logging"):
    with mlflow.start_run(run_name="async") as run:
        for number in range(200):
            mlflow.log_metric("a", number, step=number, synchronous=False)
        mlflow.log_params({"p": 1}, synchronous=False).wait()
        mlflow.set_tag("s", "t", synchronous=False).wait()
        mlflow.flush_async_logging()
    same(len(client.get_metric_history(run.info.run_id, "a")), 200)
    mlflow.config.enable_async_logging(True)
    with mlflow.start_run(run_name="async by default") as run:
        for number in range(100):
            mlflow.log_metric("a", number, step=number)
        mlflow.log_param("p", 2)
    mlflow.flush_async_logging()
    mlflow.config.enable_async_logging(False)
    found = client.get_run(run.info.run_id)
    same((found.data.metrics, found.data.params), ({"a": 99.0}, {"p": "2"}))

with step("many threads"):
    run = client.create_run(experiment.experiment_id, run_name="threads")
    failures: list[Exception] = []

    def work(thread: int) -> None:
        try:
            for number in range(15):
                client.log_metric(run.info.run_id, f"t{thread}", number, step=number)
                client.set_tag(run.info.run_id, f"t{thread}", str(number))
                client.log_param(run.info.run_id, f"t{thread}-{number}", number)
        except Exception as error:  # noqa: BLE001 - told in the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(failures, [])
    found = client.get_run(run.info.run_id)
    same((found.data.metrics, len(found.data.params)), ({f"t{number}": 14.0 for number in range(6)}, 90))

with step("system metrics"):
    from importlib.util import find_spec

    if find_spec("psutil"):
        mlflow.config.set_system_metrics_sampling_interval(0.1)
        with mlflow.start_run(run_name="system", log_system_metrics=True) as run:
            threading.Event().wait(1.5)
        mlflow.config.set_system_metrics_sampling_interval(None)
        true("system/cpu_utilization_percentage" in client.get_run(run.info.run_id).data.metrics, "system metrics")
