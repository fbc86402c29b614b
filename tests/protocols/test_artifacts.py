"""The artifact proxy and its kin, as clients and browsers ask them."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import msgspec
import pytest

from databases import write_settings
from davy.home import Home
from davy.schema.tables import logged_models, model_versions, registered_models
from davy.tracking.sweep import sweep
from protocols.artifacts_kit import API, PROXY, Answer, Tracking
from server_kit import until
from store.disk import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MB = 1 << 20
LARGEST = 128 * MB
BIG = hashlib.shake_128(b"artifact").digest(5 * MB + 17)
MODEL = "m-" + "ab" * 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    root = tmp_path_factory.mktemp("tracking")
    (root / "allowed").mkdir()
    write_settings(root, f'project = "shop"\n[tracking]\nlargest_artifact = {LARGEST}\nartifact_roots = ["{root / "allowed"}"]\n')
    with Tracking(root) as running:
        yield running


@pytest.fixture
def run(server: Tracking) -> str:
    return server.run()


@pytest.fixture
def root(run: str) -> str:
    return f"0/{run}/artifacts"


def test_what_is_uploaded_is_listed_by_its_base_name_and_downloaded(server: Tracking, root: str) -> None:
    assert server.listed(f"{root}/model") == []
    for path, body in (("model/MLmodel", b"flavors"), ("model/code/x.py", b"pass"), ("big.bin", BIG), ("empty", b"")):
        assert (server.put(f"{root}/{path}", body).status, server.fetch(f"{root}/{path}").body) == (200, body)
    assert server.listed(root) == [{"path": "big.bin", "is_dir": False, "file_size": len(BIG)}, {"path": "empty", "is_dir": False, "file_size": 0},
                                   {"path": "model", "is_dir": True}]
    assert [item["path"] for item in server.listed(f"{root}/model")] == ["MLmodel", "code"]
    assert server.listed(f"{root}/model/MLmodel") == server.listed(f"{root}/nowhere") == []
    assert server.ask("GET", f"{PROXY}/artifacts?path={root}/nowhere").json == {}
    assert server.put(f"{root}/model/MLmodel", b"other").status == 200
    assert server.fetch(f"{root}/model/MLmodel").body == b"other"


def test_what_is_not_a_file_is_told_in_mlflows_words(server: Tracking, root: str) -> None:
    server.put(f"{root}/model/MLmodel", b"flavors")
    assert server.fetch(f"{root}/absent").error == (404, "RESOURCE_DOES_NOT_EXIST", f"No such artifact: '{root}/absent'")
    told = f"Artifact path refers to a directory, not a file: '{root}/model'"
    assert server.fetch(f"{root}/model").error == (400, "INVALID_PARAMETER_VALUE", told)
    assert server.fetch("0/" + "f" * 32 + "/artifacts/x").status == 404


def test_files_and_folders_do_not_mix(server: Tracking, root: str) -> None:
    server.put(f"{root}/a", b"file")
    server.put(f"{root}/b/c", b"file")
    assert server.put(f"{root}/a/below", b"x").error[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert server.put(f"{root}/b", b"x").error[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert [item["path"] for item in server.listed(root)] == ["a", "b"]


@pytest.mark.parametrize(("name", "kind", "disposition"), [
    ("MLmodel", "text/plain", "attachment; filename=MLmodel"), ("x.json", "text/plain", "attachment; filename=x.json"),
    ("page.html", "text/html", "attachment; filename=page.html"), ("x.unknown7", "application/octet-stream", "attachment; filename=x.unknown7"),
    ("a b.txt", "text/plain", 'attachment; filename="a b.txt"'), ('q"x.csv', "text/plain", 'attachment; filename="q\\"x.csv"'),
    ("né.txt", "text/plain", "attachment; filename=ne.txt; filename*=UTF-8''n%C3%A9.txt"),
    ("日本", "application/octet-stream", "attachment; filename=download; filename*=UTF-8''%E6%97%A5%E6%9C%AC")])
def test_a_browser_saves_and_runs_nothing(server: Tracking, root: str, name: str, kind: str, disposition: str) -> None:
    assert server.put(f"{root}/{quote(name)}", b"<script>").status == 200
    headers = server.fetch(f"{root}/{quote(name)}").headers
    assert (headers["content-type"], headers["content-disposition"], headers["x-content-type-options"]) == (kind, disposition, "nosniff")


@pytest.mark.parametrize(("asked", "start", "end"), [("bytes=0-0", 0, 1), ("bytes=5-", 5, None), ("bytes=-7", -7, None), ("bytes=10-2000000", 10, 2000001),
                                                     (f"bytes=3-{10**12}", 3, None), ("bytes=-999999999", 0, None)])
def test_a_part_of_a_file(server: Tracking, root: str, asked: str, start: int, end: int | None) -> None:
    server.put(f"{root}/big.bin", BIG)
    found = server.fetch(f"{root}/big.bin", {"range": asked})
    assert (found.status, found.body) == (206, BIG[start:end])
    first = start % len(BIG)
    assert found.headers["content-range"] == f"bytes {first}-{first + len(found.body) - 1}/{len(BIG)}"


@pytest.mark.parametrize(("asked", "status"), [("bytes=99999999-", 416), ("bytes=-0", 416), ("bytes=0-1,3-4", 200), ("lines=0-1", 200), ("bytes=9-2", 200)])
def test_a_part_that_can_not_be(server: Tracking, root: str, asked: str, status: int) -> None:
    server.put(f"{root}/big.bin", BIG)
    found = server.fetch(f"{root}/big.bin", {"range": asked})
    assert found.status == status
    assert found.body == (BIG if status == 200 else b"")


def test_what_a_client_has_already_is_not_sent_again(server: Tracking, root: str) -> None:
    server.put(f"{root}/x", b"content")
    tag = server.fetch(f"{root}/x").headers["etag"]
    assert tag == f'"sha256:{hashlib.sha256(b"content").hexdigest()}"'
    assert server.fetch(f"{root}/x", {"if-none-match": tag}).status == 304
    assert server.fetch(f"{root}/x", {"range": "bytes=0-1", "if-range": '"older"'}).body == b"content"


def test_an_empty_file_comes_without_a_length_and_nothing_else_may(server: Tracking, root: str) -> None:
    assert server.put(f"{root}/empty", iter(())).status == 200
    assert server.listed(root) == [{"path": "empty", "is_dir": False, "file_size": 0}]
    refused = server.ask("PUT", f"{PROXY}/artifacts/{root}/chunked", iter([b"abc", b"def"]))
    assert refused.error[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert "Content-Length" in refused.error[2]


@pytest.mark.parametrize("head", [b"Content-Length: 4000000", b"Transfer-Encoding: chunked"])
def test_a_client_that_dies_leaves_nothing(server: Tracking, root: str, head: bytes) -> None:
    before = set(server.blobs())
    server.dies(f"{root}/half", head, (b"200000\r\n" if b"chunked" in head else b"") + b"x" * 2 * MB)
    assert until(lambda: not server.blobs("incoming"))
    time.sleep(0.1)
    assert server.fetch(f"{root}/half").status == 404
    assert set(server.blobs()) == before


def test_where_nobody_lives_nothing_is_uploaded(server: Tracking, run: str) -> None:
    other = "f" * 32
    assert server.put(f"0/{other}/artifacts/x", b"x" * MB).error == (404, "RESOURCE_DOES_NOT_EXIST", f"Run with id={other} not found")
    assert server.put(f"99/{run}/artifacts/x", b"x").error == (404, "RESOURCE_DOES_NOT_EXIST", "No Experiment with id=99 exists")
    assert server.put(f"0/models/{MODEL}/artifacts/x", b"x").error == (404, "RESOURCE_DOES_NOT_EXIST", f"Logged model with ID '{MODEL}' not found.")
    server.call("runs/delete", run_id=run)
    told = f"The run {run} must be in the 'active' state. Current state is deleted."
    assert server.put(f"0/{run}/artifacts/x", b"x").error == (400, "INVALID_PARAMETER_VALUE", told)


def test_other_paths_are_files_too_and_upper_folders_are_listed(server: Tracking) -> None:
    number = server.experiment("listed")
    run = server.run(number)
    for path in (f"{number}/{run}/artifacts/x", f"{number}/traces/tr-1/artifacts/traces.json", "free/notes.txt"):
        assert server.put(path, path.encode()).status == 200
        assert server.fetch(path).body == path.encode()
    assert {number, "free"} <= {item["path"] for item in server.listed("")}
    assert [item["path"] for item in server.listed(number)] == [run, "traces"]
    assert [item["path"] for item in server.listed(f"{number}/{run}")] == ["artifacts"]
    assert [item["path"] for item in server.listed(f"{number}/traces/tr-1/artifacts")] == ["traces.json"]


def test_an_experiment_with_its_own_place_in_the_proxy(server: Tracking) -> None:
    number = server.experiment("own", artifact_location="mlflow-artifacts:/my/own")
    run = server.run(number)
    assert server.put(f"my/own/{run}/artifacts/x", b"x").status == 200
    assert server.ask("GET", f"/get-artifact?run_id={run}&path=x").body == b"x"
    assert server.listed("my") == [{"path": "own", "is_dir": True}]
    assert [item["path"] for item in server.listed("my/own")] == [run]


def test_deleting_takes_files_and_folders_out(server: Tracking, run: str, root: str) -> None:
    for path in ("a/b/c", "a/d", "e"):
        server.put(f"{root}/{path}", b"x")
    for path in ("a/b", "a/b", "e"):
        assert server.ask("DELETE", f"{PROXY}/artifacts/{root}/{path}").json == {}
    assert [item["path"] for item in server.listed(root)] == ["a"]
    assert server.ask("DELETE", f"{PROXY}/artifacts/0").status == 400
    assert server.ask("DELETE", f"{PROXY}/artifacts/{root}").status == 200
    assert server.listed(root) == []
    assert [(entry.action, entry.details) for entry in server.journal(run)] == [
        ("artifacts.delete", {"path": path, "files": 1}) for path in ("", "e", "a/b")]


BAD = ("..", "../x", "a/../x", "a/..", "/etc/passwd", "%2e%2e/x", "%252e%252e%252fx", "a/%2e%2e/%2e%2e/x", "%2Fetc%2Fpasswd", "//etc/passwd", "a#b", "a%23b",
       "C:/x", "C%3A%5Cx", "a\\b", "..%5C..%5Cx", "a%00b", "%00", "file:///etc/passwd", "file:x", "a/file:%2F%2F/../../x", "%25252525252525252525252e",
       "x" * 3000, "//[", "%ff%2e%2e%2f..", "a/%2500")


@pytest.mark.parametrize("path", BAD)
def test_no_path_leads_out(server: Tracking, run: str, root: str, path: str) -> None:
    asked = quote(path)
    fine = (400, 404) if path in ("%ff%2e%2e%2f..",) else (400,)
    found: list[Answer] = [
        server.ask("GET", f"{API}/artifacts/list?run_id={run}&path={asked}"), server.ask("GET", f"/get-artifact?run_id={run}&path={asked}"),
        server.ask("GET", f"{PROXY}/artifacts?path={asked}"),
        server.ask("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path={asked}", b"x"),
        server.ask("POST", f"{PROXY}/mpu/create/{asked}", b'{"path": "..", "num_parts": 1}', {"content-type": "application/json"})]
    if not path.startswith(("/", "..", "%2F", "file:")):  # beneath a run's folder these are names like others
        found.append(server.put(f"{root}/{asked}", b"x"))
    for number, answer in enumerate(found):
        assert answer.status in fine, (number, answer)
        assert answer.json["error_code"] in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
    assert server.listed(root) == []


@pytest.mark.parametrize("name", ["loss%step%100%timestamp%7", "a/./b", "a//b", "a b/c.d", "näme", "x?y", "a;b", "http:x", "%", "50%"])
def test_odd_names_are_names(server: Tracking, root: str, name: str) -> None:
    assert server.put(f"{root}/{quote(name)}", b"odd").status == 200
    assert server.fetch(f"{root}/{quote(name)}").body == b"odd"


def test_too_large_is_refused_before_it_is_stored(server: Tracking, root: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("PUT", f"{PROXY}/artifacts/{root}/huge")
    connection.putheader("content-length", str(LARGEST + 1))
    connection.endheaders()
    for _ in range(20):
        connection.send(b"x" * MB)
    connection.sock.shutdown(socket.SHUT_WR)
    answer = connection.getresponse()
    assert (answer.status, msgspec.json.decode(answer.read())["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    connection.close()
    assert server.listed(root) == []


def test_a_large_file_fills_no_memory_however_slow_the_client(server: Tracking, root: str) -> None:
    size = 96 * MB
    server.put(f"{root}/warm", BIG)
    before = server.memory()
    blocks = itertools.repeat(BIG[:MB], size // MB)
    assert server.put(f"{root}/large", blocks, {"content-length": str(size)}).status == 200
    assert server.memory() - before < 40 * MB
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"GET {PROXY}/artifacts/{root}/large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        read = len(connection.recv(MB))
        time.sleep(0.5)
        assert server.memory() - before < 40 * MB
        while read < size:
            read += len(connection.recv(MB))
    assert server.get("/version")[0] == 200


def test_a_client_that_goes_away_while_it_downloads_holds_nothing(server: Tracking, root: str) -> None:
    server.put(f"{root}/big.bin", BIG)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(f"GET {PROXY}/artifacts/{root}/big.bin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            connection.recv(10)
    assert until(lambda: not list((server.root / ".davy" / "run" / "pipes").iterdir()))
    assert server.fetch(f"{root}/big.bin").body == BIG


def test_damage_is_never_sent_as_if_it_were_whole(server: Tracking, root: str) -> None:
    small = b"small" + os.urandom(8)
    large = os.urandom(16) + BIG
    for name, body in (("small", small), ("large", large)):
        server.put(f"{root}/{name}", body)
        path = next(path for path in server.blobs() if path.name == hashlib.sha256(body).hexdigest())
        path.write_bytes(body[:-1] + b"!")
    assert server.fetch(f"{root}/small").error[:2] == (500, "DATA_LOSS")
    with pytest.raises(http.client.IncompleteRead):
        server.fetch(f"{root}/large")


def test_a_full_disk_is_told_and_nothing_is_half_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "8m") as disk:
        if not disk.mounted:
            pytest.skip("this user may not mount a small file system")
        write_settings(tmp_path, f'project = "shop"\n[storage]\nblobs = "file://{disk.folder}/blobs"\n')
        with Tracking(tmp_path) as server:
            root = f"0/{server.run()}/artifacts"
            assert server.put(f"{root}/small", b"x" * MB).status == 200
            refused = server.put(f"{root}/large", os.urandom(30 * MB))
            assert refused.error[:2] == (503, "TEMPORARILY_UNAVAILABLE")
            assert "No space is left" in refused.error[2]
            assert [item["path"] for item in server.listed(root)] == ["small"]
            assert not list((disk.folder / "blobs" / "incoming").iterdir())
            assert server.put(f"{root}/again", b"y" * MB).status == 200


def test_runs_list_their_files_by_path(server: Tracking, run: str, root: str) -> None:
    server.put(f"{root}/model/MLmodel", b"flavors")
    found = server.ask("GET", f"{API}/artifacts/list?run_id={run}").json
    assert found == {"root_uri": f"mlflow-artifacts:/{root}", "files": [{"path": "model", "is_dir": True}]}
    found = server.ask("GET", f"{API}/artifacts/list?run_uuid={run}&path=model").json
    assert found["files"] == [{"path": "model/MLmodel", "is_dir": False, "file_size": 7}]
    assert "files" not in server.ask("GET", f"{API}/artifacts/list?run_id={run}&path=nowhere").json
    assert server.ask("GET", f"{API}/artifacts/list?run_id=nope").error[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


def test_a_page_uploads_and_reads(server: Tracking, run: str) -> None:
    asked = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}"
    assert server.ask("POST", f"{asked}&path=notes/a.txt", b"note").status == 200
    assert server.ask("GET", f"/get-artifact?run_id={run}&path=notes/a.txt").body == b"note"
    assert server.ask("GET", f"/get-artifact?run_uuid={run}&path=notes").status == 400
    assert server.ask("GET", f"/get-artifact?run_id={run}&path=absent").error[2] == "No such artifact: 'absent'"
    for path, body, told in (("", b"x", "Request must specify path."), ("x", b"", "Request must specify data."),
                             ("x", b"x" * (10 * MB + 1), "Artifact size is too large. Max size is 10MB.")):
        assert server.ask("POST", f"{asked}&path={path}", body).error == (400, "INVALID_PARAMETER_VALUE", told)
    assert server.ask("POST", "/ajax-api/2.0/mlflow/upload-artifact?path=x", b"x").error[2] == "Request must specify run_uuid."


def test_a_purge_beside_uploads_loses_none_that_was_acknowledged(server: Tracking, root: str) -> None:
    """The same few contents come and go while a collector that spares nothing runs without a pause."""
    stop, collected = threading.Event(), [0]

    def collect() -> None:
        home = Home(server.root)
        while not stop.is_set():
            collected[0] += sum(found.blobs for found in sweep(home, freed=(), grace=0, actor="collector"))
        home.close()

    collector = threading.Thread(target=collect)
    collector.start()
    taken = 0
    for turn in range(60):
        body = b"content %d" % (turn % 3)
        answer = server.put(f"{root}/x", body)
        assert answer.status in (200, 503), answer
        if answer.status == 200:
            taken += 1
            assert server.fetch(f"{root}/x").body == body
            server.ask("DELETE", f"{PROXY}/artifacts/{root}/x")
    stop.set()
    collector.join()
    assert taken > 5
    assert collected[0] > 0


@pytest.mark.parametrize("location", ["", "mlflow-artifacts:/far/away"])
def test_the_spans_of_a_deleted_trace_go_too(server: Tracking, location: str) -> None:
    number = server.experiment(f"traced {location}", **({"artifact_location": location} if location else {}))
    place = f"{location.removeprefix('mlflow-artifacts:/') or number}/traces"
    for trace in ("tr-1", "tr-2"):
        info = {"trace_id": trace, "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": number}},
                "request_time": "2026-01-01T00:00:00Z", "state": "OK"}
        answer = server.ask("POST", "/api/3.0/mlflow/traces", msgspec.json.encode({"trace": {"trace_info": info}}), {"content-type": "application/json"})
        assert answer.status == 200, answer
        assert server.put(f"{place}/{trace}/artifacts/traces.json", b"{}").status == 200
    assert server.call("traces/delete-traces", experiment_id=number, request_ids=["tr-1"]) == {"traces_deleted": 1}
    assert [item["path"] for item in server.listed(place)] == ["tr-2"]
    assert next((entry.action, entry.details) for entry in server.journal(f"traced {location}")) == ("traces.delete", {"id": int(number), "traces": 1})


def test_a_large_file_of_a_page_is_streamed(server: Tracking, run: str, root: str) -> None:
    large = BIG + BIG
    server.put(f"{root}/a%20b.txt", large)
    found = until(lambda: (answer := server.ask("GET", f"/runs/{run}/artifacts/a%20b.txt")).status != 503 and answer)
    assert (found.status, found.headers["location"]) == (307, f"/get-artifact?run_id={run}&path=a+b.txt")
    assert server.ask("GET", found.headers["location"]).body == large


def test_files_of_logged_models_and_versions(server: Tracking) -> None:
    home = Home(server.root)
    digest = home.blobs.put(b"native")
    moment = {"creation_time": 1, "last_update_time": 1}
    with home.database.begin() as connection:
        connection.execute(logged_models.insert().values(
            model_id=MODEL, experiment_id=0, name="late", artifact_uri=f"mlflow-artifacts:/0/models/{MODEL}/artifacts", status="READY",
            lifecycle_stage="active", **moment))
        connection.execute(registered_models.insert().values(name="late", **moment))
        version = {"name": "late", "user_id": "ada", "current_stage": "None", "status": "READY", "deleted": False, **moment}
        connection.execute(model_versions.insert().values(version=1, files=msgspec.json.encode({"model.txt": digest}).decode(), **version))
        connection.execute(model_versions.insert().values(version=2, source=f"mlflow-artifacts:/0/models/{MODEL}/artifacts", **version))
    home.close()
    assert server.put(f"0/models/{MODEL}/artifacts/code/x.py", b"pass").status == 200
    assert {"path": "models", "is_dir": True} in server.listed("0")
    assert [item["path"] for item in server.listed("0/models")] == [MODEL]
    found = server.ask("GET", f"{API}/logged-models/{MODEL}/artifacts/directories").json
    assert found == {"root_uri": f"mlflow-artifacts:/0/models/{MODEL}/artifacts", "files": [{"path": "code", "is_dir": True}]}
    found = server.ask("GET", f"{API}/logged-models/{MODEL}/artifacts/directories?artifact_directory_path=code").json
    assert found["files"] == [{"path": "code/x.py", "is_dir": False, "file_size": 4}]
    browser = f"/ajax-api/2.0/mlflow/logged-models/{MODEL}/artifacts/files"
    assert server.ask("GET", f"{browser}?artifact_file_path=code/x.py").body == b"pass"
    assert server.ask("GET", browser).error[:2] == (400, "BAD_REQUEST")
    asked = "/model-versions/get-artifact?name=late&version="
    assert server.ask("GET", f"{asked}1&path=model.txt").body == b"native"
    assert server.ask("GET", f"{asked}2&path=code/x.py").body == b"pass"
    assert server.ask("GET", f"{asked}3&path=x").error == (404, "RESOURCE_DOES_NOT_EXIST", "Model Version (name=late, version=3) not found")


def test_a_root_that_clients_reach_by_themselves(server: Tracking) -> None:
    allowed = server.root / "allowed"
    run = server.run(server.experiment("files", artifact_location=f"file://{allowed}/exp"))
    folder = allowed / "exp" / run / "artifacts"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_bytes(BIG)
    (folder / "out").symlink_to("/etc")
    found = server.ask("GET", f"{API}/artifacts/list?run_id={run}").json
    assert found == {"root_uri": f"file://{allowed}/exp/{run}/artifacts", "files": [{"path": "model", "is_dir": True}]}
    assert server.ask("GET", f"{API}/artifacts/list?run_id={run}&path=model").json["files"] == [
        {"path": "model/MLmodel", "is_dir": False, "file_size": len(BIG)}]
    assert server.ask("GET", f"/get-artifact?run_id={run}&path=model/MLmodel").body == BIG
    assert server.ask("GET", f"/get-artifact?run_id={run}&path=model/MLmodel", headers={"range": "bytes=1-3"}).body == BIG[1:4]
    assert server.ask("GET", f"/get-artifact?run_id={run}&path=out/passwd").error[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    for location in ("file:///etc", "/etc", f"file://{server.root}", "s3://bucket/prefix"):
        run = server.run(server.experiment(f"not {location}", artifact_location=location))
        assert server.ask("GET", f"{API}/artifacts/list?run_id={run}").error[:2] == (403, "PERMISSION_DENIED")


class TestParts:
    """Uploads in parts, at URLs that the server hands out."""

    @staticmethod
    def _post(server: Tracking, what: str, where: str, headers: dict[str, str] | None = None, **given: object) -> Answer:
        return server.ask("POST", f"{PROXY}/mpu/{what}/{where}", msgspec.json.encode(given), {"content-type": "application/json", **(headers or {})})

    def _begin(self, server: Tracking, where: str, parts: int = 3, headers: dict[str, str] | None = None) -> tuple[str, list[dict[str, object]]]:
        found = self._post(server, "create", where, headers, path="big.bin", num_parts=parts).json
        return found["upload_id"], found["credentials"]

    def _send(self, server: Tracking, credential: dict[str, object], body: bytes) -> str:
        url = urlsplit(str(credential["url"]))
        assert url.netloc == f"127.0.0.1:{server.port}"
        answer = server.ask("PUT", url.path, body)
        assert answer.status == 200, answer
        return answer.headers["etag"]

    def test_parts_come_in_any_order_and_twice(self, server: Tracking, root: str) -> None:
        upload, credentials = self._begin(server, root)
        assert [item["part_number"] for item in credentials] == [1, 2, 3]
        pieces = [BIG[:2 * MB], BIG[2 * MB:4 * MB], BIG[4 * MB:]]
        self._send(server, credentials[0], b"an attempt that broke off")
        tags = {number: self._send(server, credentials[number], pieces[number]) for number in (2, 0, 1)}
        assert server.fetch(f"{root}/big.bin").status == 404
        parts = [{"part_number": number + 1, "etag": tags[number]} for number in range(3)]
        for _ in range(2):
            assert self._post(server, "complete", root, path="/home/ada/big.bin", upload_id=upload, parts=parts).status == 200
        assert server.fetch(f"{root}/big.bin").body == BIG

    def test_what_is_not_complete_is_not_completed(self, server: Tracking, root: str) -> None:
        upload, credentials = self._begin(server, root)
        tag = self._send(server, credentials[0], b"one")
        for parts in ([{"part_number": 1, "etag": "other"}], [{"part_number": 2, "etag": tag}], [{"part_number": 1, "etag": tag}] * 2,
                      [{"part_number": 1, "etag": "../../upload.json"}], [{"part_number": 1}], []):
            assert self._post(server, "complete", root, path="big.bin", upload_id=upload, parts=parts).error[:2] == (400, "INVALID_PARAMETER_VALUE")
        other = self._post(server, "complete", root, path="other.bin", upload_id=upload, parts=[{"part_number": 1, "etag": tag}])
        assert other.error[:2] == (400, "INVALID_PARAMETER_VALUE")
        assert server.listed(root) == []

    def test_an_upload_that_is_aborted_is_gone(self, server: Tracking, root: str) -> None:
        upload, credentials = self._begin(server, root)
        tag = self._send(server, credentials[0], b"one")
        assert self._post(server, "abort", root, path="big.bin", upload_id=upload).json == {}
        assert not (server.root / ".davy" / "uploads" / upload).exists()
        found = self._post(server, "complete", root, path="big.bin", upload_id=upload, parts=[{"part_number": 1, "etag": tag}])
        assert found.error[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
        assert server.ask("PUT", urlsplit(str(credentials[1]["url"])).path, b"late").status == 404

    @pytest.mark.parametrize("upload", ["", "x", "../../..", "f" * 32])
    def test_an_upload_that_never_was(self, server: Tracking, root: str, upload: str) -> None:
        parts = [{"part_number": 1, "etag": "x"}]
        assert self._post(server, "complete", root, path="big.bin", upload_id=upload, parts=parts).status in (400, 404)
        assert server.ask("PUT", f"{PROXY}/mpu/part/{quote(upload, safe='')}/1", b"x").status in (400, 404)

    def test_a_part_can_not_be_empty_nor_bear_any_number(self, server: Tracking, root: str) -> None:
        upload, _ = self._begin(server, root)
        for number, body in (("1", b""), ("0", b"x"), ("-1", b"x"), ("1e3", b"x"), ("100001", b"x")):
            assert server.ask("PUT", f"{PROXY}/mpu/part/{upload}/{number}", body).status == 400
        for count in (0, -1, 100_001):
            assert self._post(server, "create", root, path="x", num_parts=count).status == 400

    def test_who_shows_credentials_is_told_to_show_them_again(self, server: Tracking, root: str) -> None:
        _, credentials = self._begin(server, root, headers={"authorization": "Bearer secret"})
        assert credentials[0]["headers"] == {"Authorization": "Bearer secret"}
        found = self._post(server, "create", root, {"x-forwarded-proto": "https", "x-forwarded-prefix": "/mlflow"}, path="x", num_parts=1).json
        assert found["credentials"][0]["url"].startswith(f"https://127.0.0.1:{server.port}/mlflow/api/2.0/mlflow-artifacts/mpu/part/")

    def test_a_url_to_read_by(self, server: Tracking, root: str) -> None:
        server.put(f"{root}/{quote('ä b.bin')}", BIG)
        found = server.ask("GET", f"{PROXY}/presigned/{root}/{quote('ä b.bin')}").json
        assert (found["headers"], found["file_size"]) == ({}, len(BIG))
        url = urlsplit(found["url"])
        assert server.ask("GET", url.path, headers={"range": "bytes=7-8"}).body == BIG[7:9]
        assert server.ask("GET", f"{PROXY}/presigned/{root}/absent").status == 404

    def test_other_stores_are_not_signed_for(self, server: Tracking, run: str) -> None:
        def ask(what: str, **given: object) -> tuple[int, str, str]:
            return server.ask("POST", f"{API}/artifacts/presigned-{what}-url", msgspec.json.encode(given), {"content-type": "application/json"}).error

        assert ask("upload", run_id=run, path="x")[2].startswith("Presigned upload is not supported for proxied artifact storage (artifact URI scheme: mlflow-")
        assert ask("upload", path="x") == (400, "INVALID_PARAMETER_VALUE", "Exactly one of run_id and model_id must be provided.")
        assert ask("download", run_id=run, path="x")[2].startswith("Presigned download is not supported for runs with proxied artifact storage")
        assert ask("download", run_id=run, path="x", expiration=0)[2] == "expiration must be between 1 and 604800 seconds (got 0)."
        assert ask("download", run_id=run, path="../x")[2] == "Invalid path"
        other = server.run(server.experiment("far", artifact_location="s3://bucket/far"))
        assert ask("upload", run_id=other, path="x") == (501, "NOT_IMPLEMENTED", "Presigned upload is not supported for the current artifact repository")
