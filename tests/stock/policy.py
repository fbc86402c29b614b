"""What may differ between stock MLflow's answers and Davy's, and why. The table in docs/concepts/mlflow.md is this one.

An allowance that no call needs any more fails the tests, so that the list can't rot.
"""

from __future__ import annotations

import json
import re
from itertools import takewhile

from stock_kit import Allowance, Difference

_TIMES = ("creation_time", "last_update_time", "creation_timestamp", "last_updated_timestamp", "creation_timestamp_ms", "last_updated_timestamp_ms")
RECENT = 1_600_000_000_000  # a time of a server's clock in milliseconds, not 0 and not seconds


def _field(difference: Difference) -> str:
    return difference.where.rpartition(".")[2]


def _times(difference: Difference) -> bool:
    both = difference.stock, difference.ours
    if difference.where.endswith("assessment.last_update_time"):
        return all(isinstance(value, str) and re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:]{8}(\.\d{3})?Z", value) for value in both)
    return _field(difference) in _TIMES and all(isinstance(value, int) and value > RECENT for value in both)


def _names(difference: Difference) -> bool:
    shape = re.compile(r"[a-z]+-[a-z]+-\d+")
    return all(isinstance(value, str) and shape.fullmatch(value) for value in (difference.stock, difference.ours))


def _known(difference: Difference, name: str) -> bool:
    return difference.known == name


def _refused(difference: Difference) -> bool:
    stock, ours = difference.statuses
    return stock >= 500 and 400 <= ours < 500


def _position(difference: Difference) -> bool:
    """The texts that tools match on stand first; the position, which stock has not, comes after them."""
    if difference.where != "message" or not isinstance(difference.ours, str) or " at character " not in difference.ours or difference.statuses != (400, 400):
        return False
    first = difference.ours.split("\n")[0]
    return str(difference.stock) == first or str(difference.stock).split()[:2] == first.split()[:2]


def _json(difference: Difference) -> bool:
    try:
        stock, ours = json.loads(difference.stock), json.loads(difference.ours)
    except (TypeError, ValueError):
        return False
    return isinstance(stock, list) and [{name: value for name, value in item.items() if value is not None} for item in stock] == ours


def _advice(difference: Difference) -> bool:
    both = difference.stock, difference.ours
    return (
        difference.where == "message"
        and all(isinstance(text, str) for text in both)
        and len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*both, strict=False)))) >= 30
        and len(set(difference.statuses)) == 1
    )


def _sql(difference: Difference) -> bool:
    return difference.where == "message" and "[SQL:" in str(difference.stock) and "[SQL:" not in str(difference.ours) and len(set(difference.statuses)) == 1


POLICY = [
    Allowance("server times", "each server has its own clock; both are milliseconds of now", _times),
    Allowance("made-up run names", "adjective-noun-number, drawn at random", _names),
    Allowance(
        "error details",
        "`sqlstate` and `error_class` are new in 3.17; no client reads them",
        lambda d: d.where in ("sqlstate", "error_class") and d.ours is None,
    ),
    Allowance("workspaces", "Davy has no workspaces, so it names none", lambda d: _field(d) == "workspace" and (d.stock, d.ours) == ("default", None)),
    Allowance(
        "order of tags, params, metrics and stages",
        "unspecified; Davy's is by key or version",
        lambda d: (
            bool(re.search(r"(tags|params|metrics|aliases|latest_versions) order$", d.where)) or (d.where.endswith("order") and "latest-versions" in d.call)
        ),
    ),
    Allowance("refused, not broken", "where stock answers 500 to a bad request, and its client tries again for minutes, Davy answers 4xx", _refused),
    Allowance("positions in filters", "Davy's text begins like stock's and then says where in the filter it went wrong", _position),
    Allowance(
        "sets in messages",
        "stock prints Python sets, in no order",
        lambda d: d.where == "message" and d.stock != d.ours and sorted(re.findall(r"\w+", str(d.stock))) == sorted(re.findall(r"\w+", str(d.ours))),
    ),
    Allowance("advice", "Davy's text begins like stock's and goes on otherwise: what is allowed, what to type", _advice),
    Allowance(
        "a version's logged model",
        "is named as soon as the source says it",
        lambda d: _field(d) == "model_id" and d.stock is None and str(d.ours).startswith("$"),
    ),
    Allowance(
        "empty answers",
        "`{}` where stock sends no body at all",
        lambda d: d.stock in ("", None) and d.ours in ({}, "application/json") and d.statuses == (200, 200),
    ),
    Allowance(
        "marks of stock's store",
        "stock notes in a trace's metadata how it came to be stored",
        lambda d: d.where.endswith("mlflow.trace.infoFinalized") and d.ours is None,
    ),
    Allowance("sizes of empty files", "0, which stock leaves out", lambda d: _field(d) == "file_size" and (d.stock, d.ours) == (None, 0)),
    Allowance(
        "errors of one shape", "stock's proxy has errors of its web framework among MLflow's", lambda d: "detail" in d.shapes and d.statuses[0] == d.statuses[1]
    ),
    Allowance("no SQL in messages", "stock quotes the statement that failed", _sql),
    Allowance(
        "page tokens",
        "opaque; Davy's say where to go on, so that a page neither skips nor repeats under writes",
        lambda d: (
            (_field(d) == "next_page_token" and None not in (d.stock, d.ours))
            or (d.where == "message" and "page token" in str(d.stock) and d.statuses == (400, 400))
        ),
    ),
    Allowance("JSON in tags", "the same JSON in other spaces, without nulls", _json),
    Allowance(
        "who made it",
        "a run or version without `user_id` is of whom the request comes from, not of nobody",
        lambda d: _field(d) == "user_id" and d.stock in ("", None) and bool(d.ours),
    ),
    *(
        Allowance(name, reason, lambda d, name=name: _known(d, name))
        for name, reason in (
            ("malformed JSON", "stock takes what isn't JSON for an empty request; Davy refuses it"),
            ("mistyped fields", "stock drops every field of a request in which one is mistyped, or takes it for 0; Davy names it"),
            ("camelCase", "proto3 allows both spellings; stock's checks look for one of them only"),
            ("unknown route", "JSON with ENDPOINT_NOT_FOUND instead of a page"),
            ("wrong method", "JSON with ENDPOINT_NOT_FOUND, which names the methods that are there, instead of a page"),
            ("infinity", "stock clamps infinities to the largest double; Davy keeps them"),
            ("a filter beyond stock's", "OR, NOT, parentheses and IN are understood"),
            ("one field twice in order_by", "is refused; stock ignores the second or fails"),
            ("a filter that stock misreads", "stock drops what it can't parse and answers something else; Davy says what is wrong"),
            ("another reason", "of two things that are wrong, or two ways to say it: an unknown attribute, say, not a clause that can't be parsed"),
            ("status of logged models", "can be searched for by name; stock compares names with its numbers"),
            ("what the server can", "multipart downloads, presigned uploads and the gateway: each says of itself"),
            ("uploads in parts", "Davy takes them on a local disk too"),
            ("times that are not milliseconds", "a run's start or end more than 290,000 years from now is refused; stock keeps it"),
            ("tags of no trace", "404, as for reading it"),
            ("page sizes", "below 1 and above the maximum are refused alike everywhere"),
            ("nothing is not something else", "where there is no run, run_id != 'x' does not hold, as for params and tags; stock stores an empty text"),
            ("datasets by name", "a dataset is found by name alone; stock compares a digest that was not given"),
            ("a digest without a name", "is refused in an order as it is in a filter"),
            ("keys of logged models", "are checked as those of runs are: lengths, emptiness, one value for a param"),
            ("missing parameters", "are named in JSON"),
            ("paths within the run", "are shown as they were asked for"),
            (
                "paths that need cleaning",
                "//, ./ and an encoded / are taken for what they mean within the root; backslashes, drives and control characters are refused",
            ),
            ("a page without a size", "1000 experiments, as for runs; stock demands max_results"),
            ("tags of a new run", "are checked like all tags: keys, lengths; of one key the last wins"),
            ("links to no model", "an input or output that names no logged model is refused; stock keeps the dangling link"),
            ("links that are there", "may be made again, as a client's second try does"),
            ("artifact locations", "a location that climbs with `..` is refused when the experiment is made, not when it is used"),
            ("a name that is taken", "RESOURCE_ALREADY_EXISTS, as when it is created"),
            ("a run without an experiment", "goes into Default, as the documentation promises; stock fails on its own foreign key"),
            ("incomplete datasets", "a dataset without a name, digest or source is refused; stock keeps an empty one"),
            ("the history of no run", "404 instead of an empty history"),
            ("samples for charts", "each slice keeps its lowest and highest point, so that spikes stay visible; stock keeps the first"),
            ("health and version", "Davy's health is JSON, which says more than OK; the version is plain text, not called HTML"),
        )
    ),
]
