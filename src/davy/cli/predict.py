"""`davy predict`: one prediction from a running server."""

from __future__ import annotations

import http.client
import os
from typing import Any
from urllib.parse import quote, urlsplit

import click
import msgspec

from davy import errors
from davy.cli import open_home
from davy.cli.output import print_json, table
from davy.errors import DavyError, InvalidInput, Unavailable


@click.command
@click.argument("model")
@click.argument("fields", nargs=-1, metavar="NAME=VALUE...")
@click.option("--key", help="The routing key: the same key is answered by the same version (default: the entity keys).")
@click.option("--at", "address", metavar="URL", help="The server's address (default: the one that davy up runs for this project).")
@click.option("--json", "as_json", is_flag=True, help="The answer as it came.")
def command(model: str, fields: tuple[str, ...], key: str | None, address: str | None, as_json: bool) -> None:
    """Ask for one prediction of MODEL (or of one version, as late@2): davy predict returned customer=c07 amount=120.5

    Every entity key and every request field of the model is named; a missing one is told.

    A VALUE is JSON where it reads as JSON (1089, true, null), and else a text; quote a text that reads as a number: carrier='"9"'.
    """
    name, _, version = model.partition("@")
    path = f"/predict/{quote(name, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
    answer = post(address or _running(), path, msgspec.json.encode(_body(fields)), key)
    if as_json:
        print_json(answer)
    else:
        table([{"prediction": answer["prediction"], "version": f"{answer['model']}@{answer['version']}", "arm": answer["arm"], "id": answer["prediction_id"]}])


def post(address: str, path: str, body: bytes, key: str | None = None) -> Any:
    """The decoded answer; an error answer is raised as the error it was."""
    parts = urlsplit(address if "://" in address else f"http://{address}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=30)
    headers = {"content-type": "application/json", **({"davy-routing-key": key} if key is not None else {})}
    token = os.environ.get("DAVY_TOKEN", "").strip()
    if token:
        headers["authorization"] = f"Bearer {token}"
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        found = msgspec.json.decode(response.read())
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise Unavailable(f"{address} does not answer: {error}.", "", "Start the server: davy up") from error
    finally:
        connection.close()
    if response.status != 200:
        raised = getattr(errors, found.get("error", ""), DavyError)
        raise raised(found.get("message", f"The server answered {response.status}."), found.get("allowed", ""), found.get("fix", ""))
    return found


def _running() -> str:
    from davy.server.supervisor import running

    home = open_home()
    try:
        found = running(home)
    finally:
        home.close()
    if found is None:
        raise Unavailable(f"No server runs for {home.path}.", "", "Start it: davy up")
    return found.address


def _body(fields: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields:
        name, value = _pair(field)
        if name in found:
            raise InvalidInput(f"The field {name!r} is given twice.", "Each field has one value.", "Remove one of them.")
        found[name] = value
    return found


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidInput(f"{text!r} is not a field.", "A field is NAME=VALUE.", "Write for example origin=JFK")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
