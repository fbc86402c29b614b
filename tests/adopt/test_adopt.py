"""Folders that MLflow has logged, uploaded and registered as its clients do, then gated, released and asked. Expected is what mlflow.pyfunc answered."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import sqlalchemy as sa

from databases import write_settings
from davy.core.fields import Field
from davy.errors import CorruptData, DavyError, InvalidInput, NotFound, UnsafeModel
from davy.features.definition import FeatureSet, FeatureSpec, StreamSpec, ViewSpec
from davy.gate.candidate import Candidate
from davy.gate.run import run as gate
from davy.home import Home
from davy.registry.adopt import adopt
from davy.registry.models import get_version, register, store_files
from davy.registry.signature import Signature
from davy.release.releases import start_release
from davy.schema.tables import model_versions
from davy.store import journal
from protocols.artifacts_kit import API, PROXY
from server_kit import Running, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODELS = Path(__file__).parent / "models"
ANSWERS: dict[str, dict[str, list[Any]]] = msgspec.json.decode((MODELS / "answers.json").read_bytes())
CHECKED_WITHOUT_DATA = {"quality", "slices", "baseline", "calibration"}


class Client:
    """What MLflow's client would ask a server, as plain HTTP."""

    def __init__(self, server: Running) -> None:
        self.server = server

    def call(self, path: str, **given: Any) -> Any:
        status, answer = self.server.post(f"{API}/{path}", given)
        assert status == 200, answer
        return answer

    def upload(self, uri: str, files: dict[str, bytes]) -> None:
        with self.server.client() as client:
            for path, content in files.items():
                status, answer = client.request("PUT", f"{PROXY}/artifacts/{uri.removeprefix('mlflow-artifacts:/')}/{path}", content)
                assert status == 200, answer

    def run(self) -> tuple[str, str]:
        info = self.call("runs/create", experiment_id="0")["run"]["info"]
        return info["run_id"], info["artifact_uri"]

    def register(self, name: str, files: dict[str, bytes], folder: str = "model") -> str:
        """A version whose files lie in a run of its own; `name@number`."""
        run, uri = self.run()
        self.upload(f"{uri}/{folder}", files)
        return self.version(name, f"{uri}/{folder}", run_id=run)

    def version(self, name: str, source: str, **more: Any) -> str:
        self.server.post(f"{API}/registered-models/create", {"name": name})
        return f"{name}@{self.call('model-versions/create', name=name, source=source, **more)['model_version']['version']}"

    def log(self, name: str, files: dict[str, bytes], run: str) -> str:
        """A logged model, as MLflow 3 has them; its id."""
        info = self.call("logged-models", experiment_id="0", name=name, source_run_id=run)["model"]["info"]
        self.upload(info["artifact_uri"], files)
        return str(info["model_id"])


def folder(name: str, **changed: bytes | None) -> dict[str, bytes]:
    """A fixture's files; with other content for some, or without them."""
    files: dict[str, bytes | None] = {path.name: path.read_bytes() for path in (MODELS / name).iterdir()}
    files |= {key.replace("_", "."): value for key, value in changed.items()}
    return {path: content for path, content in files.items() if content is not None}


def rewritten(name: str, *pairs: tuple[str, str]) -> dict[str, bytes]:
    """A fixture whose MLmodel says something else."""
    files = folder(name)
    text = files["MLmodel"].decode()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return {**files, "MLmodel": text.encode()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("adopt") / "shop"
    root.mkdir()
    write_settings(root, 'project = "shop"\n[serving]\ntimeout = "20s"\n[gate]\nskip = ["latency"]\n')
    with Running(root) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Client:
    return Client(server)


@pytest.fixture(scope="module")
def shop(server: Running) -> Iterator[Home]:
    home = Home(server.root)
    yield home
    home.close()


def asked(server: Running, model: str, rows: list[Any], version: int | None = None) -> list[dict[str, Any]]:
    """The server's answers, waited for while a version is brought up."""
    path = f"/predict/{model}" + (f"/versions/{version}" if version else "")
    found: list[tuple[int, Any]] = []
    until(lambda: found.append(server.post(path, rows)) or found[-1][0] not in (404, 503), 60)
    assert found[-1][0] == 200, found[-1]
    answer: list[dict[str, Any]] = found[-1][1]
    return answer


@pytest.mark.parametrize("name", ["booster", "grades", "trees", "words", "chances", "columns", "tensor", "skops", "texts", "reviews"])
def test_a_logged_model_answers_what_pyfunc_answers(name: str, server: Running, client: Client) -> None:
    if name in ("skops", "reviews"):
        pytest.importorskip("skops")
    client.register(name, folder(name))
    rows, wanted = ANSWERS[name]["rows"], ANSWERS[name]["answers"]
    if name in ("chances", "reviews"):
        wanted = [pair[1] for pair in wanted]
    together = [row["prediction"] for row in asked(server, name, rows, version=1)]
    alone = [asked(server, name, [row], version=1)[0]["prediction"] for row in rows]
    for found in (together, alone):
        assert [type(answer) for answer in found] == [type(answer) for answer in wanted]
        if isinstance(wanted[0], (float, list)):
            assert all(mine == pytest.approx(its, rel=1e-12) for mine, its in zip(found, wanted, strict=True))
        else:
            assert found == wanted


def test_a_version_goes_from_the_client_to_a_canary_and_back_to_its_run(server: Running, client: Client, shop: Home) -> None:
    run, _ = client.run()
    first = client.log("late", folder("booster"), run)
    reference = client.version("late", f"models:/{first}", model_id=first)
    before = get_of(shop, "late", 1)
    assert before.format is None
    report, standing = gate(shop, reference)
    verdicts = {result.check: result.verdict for result in report.results}
    assert report.passed, report.failed
    assert standing.may_serve
    assert {check for check, verdict in verdicts.items() if verdict == "not enough data"} == {*CHECKED_WITHOUT_DATA, "features", "requests", "rollback"}
    adopted = get_of(shop, "late", 1)
    assert adopted.format == "lightgbm"
    assert adopted.signature is not None
    assert adopted.signature.output == "probability"
    assert (adopted.source, adopted.download_uri) == (before.source, before.download_uri)
    assert start_release(shop, reference).state.label == "promoted"
    rows, wanted = ANSWERS["booster"]["rows"], ANSWERS["booster"]["answers"]
    assert [row["prediction"] for row in asked(server, "late", rows)] == pytest.approx(wanted, rel=1e-12)

    better = client.log("late", folder("better"), run)
    second = client.version("late", f"models:/{better}", model_id=better)
    report, _ = gate(shop, second)
    verdicts = {result.check: result.verdict for result in report.results}
    assert report.passed, report.failed
    assert report.stable == 1
    assert {check for check, verdict in verdicts.items() if verdict == "not enough data"} == CHECKED_WITHOUT_DATA
    assert {verdicts[check] for check in ("signature", "requests", "rollback", "features")} == {"pass"}
    assert start_release(shop, second, strategy="canary", steps=[50, 100]).state.label == "pending"
    answers: list[dict[str, Any]] = []
    until(lambda: {row["version"] for row in answers} == {1, 2} or answers.extend(asked(server, "late", rows)), 60)
    by_version = {1: ANSWERS["booster"]["answers"], 2: ANSWERS["better"]["answers"]}
    for place, row in enumerate(answers):
        assert row["prediction"] == pytest.approx(by_version[row["version"]][place % len(rows)], rel=1e-12)

    for page in ("/models/late", "/models/late/1", "/models/late/2", "/models/late/monitoring", f"/feature-sets/{adopted.feature_set}", f"/runs/{run}"):
        assert server.get(page)[0] == 200, page
    told = davy(shop, "why", answers[0]["prediction_id"])
    assert run in told
    assert f"late@{answers[0]['version']}" in told
    davy(shop, "replay", "late")


def davy(home: Home, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "davy", *arguments], cwd=home.root, env={**os.environ}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    return done.stdout


def get_of(home: Home, name: str, version: int) -> Any:
    with home.database.read() as connection:
        return get_version(connection, name, version)


def test_what_was_adopted_stays_what_it_was(client: Client, shop: Home) -> None:
    run, uri = client.run()
    client.upload(f"{uri}/model", folder("booster"))
    reference = client.version("kept", f"runs:/{run}/model", run_id=run)
    found = adopt(shop, reference)
    client.upload(f"{uri}/model", folder("better"))
    assert adopt(shop, reference) == found
    with shop.database.read() as connection:
        entries = journal.entries(connection, subject="kept", action="version.adopt")
    assert [(entry.details["version"], entry.details["digest"]) for entry in entries] == [(1, found.digest)]
    assert adopt(shop, client.version("kept", f"runs:/{run}/model", run_id=run)).digest != found.digest


def test_features_come_from_the_store_when_a_native_version_has_the_same_columns(server: Running, client: Client, shop: Home) -> None:
    stream = StreamSpec("payments", "time", (Field("card", "str"), Field("paid", "float", 6)))
    view = ViewSpec("Card", "payments", ("card",), (FeatureSpec("amount", "last", "paid"),)).sealed(stream)
    features = FeatureSet((Field("card", "str"),), (Field("age", "int"), Field("member", "bool")), (stream,), (view,), (), ("amount", "age", "member"),
                          ("float", "int", "bool")).sealed()
    files = store_files(shop.blobs, {"model.txt": folder("booster")["model.lgb"]})
    for name, outputs, kinds in (("shared", features.outputs, features.kinds), ("turned", features.outputs[::-1], features.kinds[::-1])):
        made = FeatureSet(features.entities, features.request, features.streams, features.views, (), outputs, kinds).sealed()
        with shop.database.begin() as connection:
            register(connection, clock=shop.clock, actor="tester", name=name, format="lightgbm", files=files, feature_set=made,
                     signature=Signature.of(outputs, kinds, output="probability", classes=(0, 1)))
    plain = FeatureSet((), (Field("city", "str"), Field("plan", "str"), Field("seats", "int")), (), (), (), ("city", "plan", "seats"),
                       ("str", "str", "int")).sealed()
    with shop.database.begin() as connection:
        register(connection, clock=shop.clock, actor="tester", name="worded", format="lightgbm", files=files, feature_set=plain,
                 signature=Signature.of(plain.outputs, plain.kinds, {"city": ["paris"], "plan": ["free"]}, output="label"))
    worded = adopt(shop, client.register("worded", folder("texts")))
    assert worded.feature_set == plain.digest
    assert [row["prediction"] for row in asked(server, "worded", ANSWERS["texts"]["rows"], version=2)] == ANSWERS["texts"]["answers"]
    adopted = adopt(shop, client.register("shared", folder("booster")))
    assert (adopted.version, adopted.feature_set) == (2, features.digest)
    row = {"card": "c1", "age": 44, "member": True}
    native, logged = (asked(server, "shared", [row], version=version)[0] for version in (1, 2))
    assert native["prediction"] == logged["prediction"]
    assert native["watermarks"].keys() == logged["watermarks"].keys() == {"payments"}
    assert adopt(shop, client.register("turned", folder("booster"))).feature_set not in (features.digest, get_of(shop, "turned", 1).feature_set)


def test_a_run_that_only_has_the_logged_model_leads_to_it(client: Client, shop: Home) -> None:
    run, _ = client.run()
    client.log("model", folder("booster"), run)
    found = adopt(shop, client.version("through", f"runs:/{run}/model", run_id=run))
    assert found.format == "lightgbm"


def _unadopted(client: Client) -> Iterator[tuple[str, Callable[[], str], type[DavyError], str]]:
    """(what is wrong, a version, the error, what it says)."""
    texts = rewritten("booster", ('"double", "name": "amount"', '"string", "name": "amount"'))
    times = rewritten("booster", ('"double", "name": "amount"', '"datetime", "name": "amount"'))
    twice = rewritten("booster", ('"name": "age"', '"name": "amount"'))
    image = rewritten("tensor", ("[-1, 3]", "[-1, 3, 3]"))
    wide = rewritten("tensor", ("[-1, 3]", "[-1, 99000000000]"))
    classes = folder("grades", model_lgb=folder("grades")["model.lgb"].replace(b"num_class:3", b"num_class:99000000000"))
    complex_ = rewritten("tensor", ('"float64", "shape": [-1, 3]', '"complex128", "shape": [-1, 3]'))
    alone = rewritten("booster", ("  python_function:", "  another:"), ("  lightgbm:", "  unheard_of:"))
    yield "signature", lambda: client.register("bad", folder("unsigned")), InvalidInput, "infer_signature"
    yield "text", lambda: client.register("bad", texts), InvalidInput, "'amount' of bad@"
    yield "time", lambda: client.register("bad", times), InvalidInput, "is a time"
    yield "bytes", lambda: client.register("bad", rewritten("booster", ('"double", "name": "amount"', '"binary", "name": "amount"'))), InvalidInput, "'binary'"
    yield "name", lambda: client.register("bad", twice), InvalidInput, "a name of its own"
    yield "shape", lambda: client.register("bad", image), InvalidInput, "[-1, n]"
    yield "wide", lambda: client.register("bad", wide), InvalidInput, "99,000,000,000 columns"
    yield "classes", lambda: client.register("bad", classes), InvalidInput, "up to 10,000"
    yield "dtype", lambda: client.register("bad", complex_), InvalidInput, "complex128"
    yield "flavor", lambda: client.register("bad", alone), InvalidInput, "unheard_of"
    yield "pyfunc", lambda: client.register("bad", folder("python")), UnsafeModel, "allow_pyfunc = true"
    yield "code", lambda: client.register("bad", rewritten("words", ("code: null\n    pickled", "code: code\n    pickled"))), UnsafeModel, "any code"
    yield "lost", lambda: client.register("bad", folder("booster", model_lgb=None)), CorruptData, "'model.lgb', which is not there"
    yield "broken", lambda: client.register("bad", folder("booster", MLmodel=b"a: [")), CorruptData, "can't be read"
    yield "no mapping", lambda: client.register("bad", folder("booster", MLmodel=b"- 1")), CorruptData, "not what MLflow writes"
    yield "no model", lambda: client.register("bad", {"notes.txt": b"x"}), NotFound, "no MLmodel"
    yield "bucket", lambda: client.version("bad", "s3://bucket/model"), NotFound, "not among Davy's artifacts"
    yield "nothing", lambda: client.register("bad", {}), NotFound, "not among Davy's artifacts"


def test_what_cannot_be_adopted_says_why_and_stays_as_it_was(client: Client, shop: Home) -> None:
    seen = set()
    for what, make, error, said in _unadopted(client):
        reference = make()
        with pytest.raises(error) as caught:
            adopt(shop, reference)
        assert type(caught.value) is error, what
        assert said in str(caught.value), (what, str(caught.value))
        assert caught.value.fix, what
        seen.add(what)
    with shop.database.read() as connection:
        formats = connection.scalars(sa.select(model_versions.c.format).where(model_versions.c.name == "bad")).all()
    assert formats == [None] * len(seen)
    with pytest.raises(InvalidInput, match="infer_signature"):
        start_release(shop, "bad@1", override="it must be out today")


def test_a_pickle_that_names_more_than_it_may_fails_its_gate(client: Client, shop: Home) -> None:
    import pickle

    reference = client.register("evil", folder("words", model_pkl=pickle.dumps(os.system)))
    report, standing = gate(shop, reference, only=["safe-format", "loads"])
    assert {result.check for result in report.failed} == {"safe-format", "loads"}
    assert "system" in report.results[0].summary
    assert standing.state == "none" or not standing.may_serve


def test_of_a_huge_file_only_the_beginning_is_read(client: Client, shop: Home) -> None:
    """Else a file that calls itself MLmodel, or a booster of gigabytes, would fill the gateway's memory."""
    huge = 96 << 20
    booster = folder("booster")["model.lgb"]
    large = client.register("large", folder("booster", model_lgb=booster + b"\n" * huge))
    wrong = client.register("large", folder("booster", MLmodel=folder("booster")["MLmodel"] + b"\n#" + b"x" * huge))
    tracemalloc.start()
    found = adopt(shop, large)
    assert found.signature is not None
    assert found.signature.output == "probability"
    with pytest.raises(CorruptData, match="at most 4 MB"):
        adopt(shop, wrong)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_a_null_that_the_model_refuses_is_the_requests_fault(server: Running, client: Client) -> None:
    client.register("strict", folder("chances"))
    row = ANSWERS["chances"]["rows"][0]
    assert asked(server, "strict", [row], version=1)
    status, answer = server.post("/predict/strict/versions/1", {**row, "amount": None})
    assert status == 400
    assert "'amount'" in answer["message"]
    assert server.post("/predict/strict/versions/1", {**row, "amount": "much"})[0] == 400


def test_pyfunc_is_used_where_the_project_allows_it(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("mlflow")
    root = tmp_path / "shop"
    root.mkdir()
    write_settings(root, 'project = "shop"\n[serving]\nallow_pyfunc = true\ntimeout = "20s"\n')
    with Running(root) as server:
        Client(server).register("python", folder("python"))
        found = asked(server, "python", ANSWERS["python"]["rows"], version=1)
        assert [row["prediction"] for row in found] == pytest.approx(ANSWERS["python"]["answers"], rel=1e-12)
        status, answer = server.post("/predict/python/versions/1", {**ANSWERS["python"]["rows"][0], "age": None})
        assert (status, "'age'" in answer["message"]) == (400, True)


def test_texts_and_times_reach_pyfunc_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("mlflow")
    root = tmp_path / "shop"
    root.mkdir()
    write_settings(root, 'project = "shop"\n[serving]\nallow_pyfunc = true\ntimeout = "20s"\n[gate]\nskip = ["latency"]\n')
    with Running(root) as server:
        reference = Client(server).register("moments", folder("moments"))
        rows, wanted = ANSWERS["moments"]["rows"], ANSWERS["moments"]["answers"]
        assert [row["prediction"] for row in asked(server, "moments", rows, version=1)] == wanted
        elsewhere = {**rows[0], "when": rows[0]["when"].replace("T23:59:59.000123+00:00", "T18:59:59.000123-05:00")}
        assert elsewhere != rows[0]
        assert asked(server, "moments", [elsewhere], version=1)[0]["prediction"] == wanted[0]
        assert asked(server, "moments", [{"city": "東京", "when": None}], version=1)[0]["prediction"] == 4.0
        for wrong, said in (({"city": "atlantis"}, "atlantis"), ({"city": None}, "'city'"), ({"when": "2024-02-28T12:00:00"}, "zone"), ({"city": 7}, "'city'")):
            status, answer = server.post("/predict/moments/versions/1", {**rows[0], **wrong})
            assert (status, said in answer["message"]) == (400, True), answer
        home = Home(root)
        report, standing = gate(home, reference)
        assert report.passed, report.failed
        assert standing.may_serve
        home.close()


def test_a_pipeline_with_texts_is_gated_released_and_replayed(server: Running, client: Client, shop: Home) -> None:
    for number in (1, 2):
        reference = client.register("trips", folder("texts"))
        report, standing = gate(shop, reference)
        assert report.passed, report.failed
        assert standing.may_serve
        if number == 1:
            assert start_release(shop, reference).state.label == "promoted"
            rows, wanted = ANSWERS["texts"]["rows"], ANSWERS["texts"]["answers"]
            answers = asked(server, "trips", rows * 20)
            assert [row["prediction"] for row in answers] == wanted * 20
    verdicts = {result.check: result.verdict for result in report.results}
    assert {verdicts[check] for check in ("inputs", "batches", "requests", "signature")} == {"pass"}
    unseen, answer = server.post("/predict/trips", {**rows[0], "plan": "platinum"})
    assert (unseen, "'platinum'" in answer["message"]) == (400, True), answer
    assert rows[0]["city"] in davy(shop, "why", answers[0]["prediction_id"])
    davy(shop, "replay", "trips")


def test_a_pipeline_with_texts_that_knows_neither_example_nor_empty_texts_fails_its_gate(client: Client, shop: Home) -> None:
    files = folder("texts")
    del files["input_example.json"]
    report, standing = gate(shop, client.register("strangers", files))
    assert not standing.may_serve
    assert any("input_example" in str(result) for result in report.failed), report.failed


def test_a_model_that_knows_its_columns_by_other_names_is_not_served(server: Running, client: Client) -> None:
    client.register("swapped", rewritten("columns", ('"double", "name": "amount"', '"double", "name": "sum"')))
    status, answer = until(lambda: answered(server, "swapped"), 60)
    assert status == 400
    assert "trained on the columns amount, age, member" in answer["message"]


def answered(server: Running, name: str) -> tuple[int, Any] | None:
    found = server.post(f"/predict/{name}/versions/1", {"sum": 1.0, "age": 30, "member": True})
    return None if found[0] == 503 else found


def test_types_in_a_skops_file_are_judged_by_the_allow_list_and_not_by_the_model(client: Client, shop: Home) -> None:
    io = pytest.importorskip("skops.io")
    from fractions import Fraction

    trusting = rewritten("skops", ("skops_trusted_types: null", "skops_trusted_types: [fractions.Fraction]"))
    reference = client.register("trusting", {**trusting, "model.skops": io.dumps(Fraction(1, 2))})
    report, _ = gate(shop, reference, only=["safe-format", "loads"])
    assert {result.check for result in report.failed} == {"safe-format", "loads"}
    assert "fractions.Fraction" in report.results[0].summary


def test_the_gate_asks_with_the_example_that_was_logged_and_without_one_with_zeros(client: Client, shop: Home) -> None:
    example = msgspec.json.decode((MODELS / "booster" / "input_example.json").read_bytes())
    for name, wanted in (("booster", example["data"]), ("better", [[0.0, 0, False]])):
        candidate = Candidate(shop, client.register(f"asked-{name}", folder(name)))
        assert candidate.sample.tolist() == [[float(value) for value in row] for row in wanted]
        assert [list(row.values()) for row in candidate.requests] == wanted
        candidate.close()
