"""The model registry through MlflowClient, and the prompt registry. Runs with MLflow 2 and 3."""

from __future__ import annotations

import warnings

import mlflow
from checks import refused, same, step, true
from mlflow import MlflowClient

client = MlflowClient()
new = int(mlflow.__version__.split(".")[0]) >= 3
warnings.simplefilter("ignore")

with step("registered models"):
    client.create_registered_model("late", tags={"a": "1"}, description="How late?")
    with refused("RESOURCE_ALREADY_EXISTS", "already exists"):
        client.create_registered_model("late")
    client.update_registered_model("late", description="How late, really?")
    client.set_registered_model_tag("late", "b", "2")
    client.delete_registered_model_tag("late", "a")
    found = client.get_registered_model("late")
    same((found.name, found.description, found.tags, found.latest_versions, found.aliases), ("late", "How late, really?", {"b": "2"}, [], {}))
    client.rename_registered_model("late", "later")
    with refused("RESOURCE_DOES_NOT_EXIST", "Registered Model with name=late not found"):
        client.get_registered_model("late")
    for name in ("ünï cödé", "with space", "dots.and-dashes_"):
        client.create_registered_model(name)
        same(client.get_registered_model(name).name, name)
        client.delete_registered_model(name)
    with refused("INVALID_PARAMETER_VALUE"):
        client.create_registered_model("")

with step("versions"):
    run = client.create_run("0", run_name="trainer")
    for number in range(1, 5):
        version = client.create_model_version(
            "later", f"s3://bucket/{number}", run_id=run.info.run_id if number < 3 else None, tags={"n": str(number)}, description=f"number {number}"
        )
        same((int(version.version), version.current_stage, version.status), (number, "None", "READY"))
    client.update_model_version("later", "1", "first")
    client.set_model_version_tag("later", "1", "k", "v")
    client.delete_model_version_tag("later", "1", "n")
    found = client.get_model_version("later", "1")
    same((found.description, found.tags, found.source, found.run_id), ("first", {"k": "v"}, "s3://bucket/1", run.info.run_id))
    same(client.get_model_version_download_uri("later", "2"), "s3://bucket/2")
    client.delete_model_version("later", "4")
    with refused("RESOURCE_DOES_NOT_EXIST", "Model Version (name=later, version=4) not found"):
        client.get_model_version("later", "4")
    same(int(client.create_model_version("later", "s3://bucket/5").version) >= 4, True)

with step("aliases"):
    client.set_registered_model_alias("later", "champion", "1")
    client.set_registered_model_alias("later", "champion", "2")
    client.set_registered_model_alias("later", "old", "1")
    same(int(client.get_model_version_by_alias("later", "champion").version), 2)
    same({alias: int(version) for alias, version in client.get_registered_model("later").aliases.items()}, {"champion": 2, "old": 1})
    client.delete_registered_model_alias("later", "old")
    with refused("INVALID_PARAMETER_VALUE", "alias old not found"):
        client.get_model_version_by_alias("later", "old")
    with refused("INVALID_PARAMETER_VALUE"):
        client.set_registered_model_alias("later", "v1", "1")

with step("stages"):
    client.transition_model_version_stage("later", "1", "Staging")
    client.transition_model_version_stage("later", "2", "Production")
    client.transition_model_version_stage("later", "3", "Production", archive_existing_versions=True)
    same(client.get_model_version("later", "2").current_stage, "Archived")
    same(
        sorted((one.current_stage, int(one.version)) for one in client.get_latest_versions("later", ["Staging", "Production"])),
        [("Production", 3), ("Staging", 1)],
    )

with step("searches"):
    for number in range(3):
        client.create_registered_model(f"search-{number}", tags={"parity": str(number % 2)})
    same([one.name for one in client.search_registered_models("name LIKE 'search-%'", order_by=["name DESC"])], ["search-2", "search-1", "search-0"])
    same([one.name for one in client.search_registered_models("tags.parity = '0'")], ["search-0", "search-2"])
    page = client.search_registered_models("name LIKE 'search-%'", max_results=2)
    same(
        ([one.name for one in page], [one.name for one in client.search_registered_models("name LIKE 'search-%'", max_results=2, page_token=page.token)]),
        (["search-0", "search-1"], ["search-2"]),
    )
    same(
        [int(one.version) for one in client.search_model_versions(f"name = 'later' AND run_id = '{run.info.run_id}'", order_by=["version_number ASC"])], [1, 2]
    )
    same([int(one.version) for one in client.search_model_versions("tags.n = '3'")], [3])
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_model_versions("nothing = 'x'")

with step("deletion"):
    client.delete_registered_model("later")
    same(list(client.search_model_versions("name = 'later'")), [])
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.delete_registered_model("later")

if new:
    with step("prompts"):
        prompt = mlflow.genai.register_prompt("ask", "How late is {{ flight }}?", commit_message="first", tags={"author": "ada"})
        same((prompt.version, prompt.variables), (1, {"flight"}))
        mlflow.genai.register_prompt("ask", [{"role": "user", "content": "Will {{ flight }} be late?"}], commit_message="second")
        mlflow.genai.set_prompt_alias("ask", "production", 1)
        same(mlflow.genai.load_prompt("prompts:/ask@production").format(flight="UA1"), "How late is UA1?")
        same(mlflow.genai.load_prompt("prompts:/ask/2").template, [{"role": "user", "content": "Will {{ flight }} be late?"}])
        same(mlflow.genai.load_prompt("prompts:/nobody/1", allow_missing=True), None)
        same([one.name for one in mlflow.genai.search_prompts(filter_string="name = 'ask'")], ["ask"])
        same("ask" in [one.name for one in client.search_registered_models()], False, "prompts aren't models")
        client.set_prompt_tag("ask", "k", "v")
        true("k" in client.get_prompt("ask").tags, "a prompt's tag")
        mlflow.genai.delete_prompt_alias("ask", "production")
        client.delete_prompt_version("ask", "1")
        same(mlflow.genai.load_prompt("prompts:/ask/1", allow_missing=True), None)
