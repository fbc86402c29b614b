"""Filters read as MLflow's own parser reads them, and what is wrong is said in its words, with the place.

`mlflow_filters.json` holds what MLflow 3.17.2 answers: its parsers' output, or the text of its error.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from davy.errors import InvalidInput
from davy.registry.search import MODELS, VERSIONS
from davy.search.compiler import glob
from davy.search.fields import Attribute
from davy.search.grammar import DEEPEST, LONGEST, MOST_CONDITIONS, MOST_VALUES
from davy.search.language import Check, Language
from davy.search.select import conditions
from davy.search.tree import Condition, conjuncts
from davy.tracking.languages import EXPERIMENTS, RUNS
from davy.tracking.logged_search import LANGUAGE

LANGUAGES: dict[str, Language] = {"runs": RUNS, "experiments": EXPERIMENTS, "models": MODELS, "versions": VERSIONS, "logged": LANGUAGE}
GOLDEN = json.loads((Path(__file__).parent / "mlflow_filters.json").read_text())
# What differs between two runs of MLflow itself (the order of a set), what quotes a token as its lexer cut it, and what lists operators.
UNSTABLE = re.compile(
    r"(Invalid clause\(s\) in filter string: |Valid (keys|values) are |not one of |Expected one of |Invalid comparison operator for ).*", re.DOTALL)


def _read(language: Language, text: str) -> list[list[Any]]:
    found = []
    for node in conjuncts(language.read(text)):
        assert isinstance(node, Condition)
        check = language.check(text, node)
        value = (None if not check.values else list(check.values) if check.op in ("IN", "NOT IN") else check.values[0])
        found.append([check.target.entity, check.target.key, check.op, value])
    return found


def _plain(rows: list[list[Any]], language: Language) -> list[list[Any]]:
    """Theirs and ours in the same words: entities in the singular, other names of a field as the field, ids as numbers."""
    entities = {"attributes": "attribute", "metrics": "metric", "params": "parameter", "tags": "tag"}
    plain = []
    for entity, key, op, value in rows:
        entity = entities.get(entity, entity)
        field: Any = language.attributes.get(key) if entity == "attribute" else key
        if isinstance(field, Attribute) and field.kind != "text" and isinstance(value, (str, list)):
            value = [int(one) for one in value] if isinstance(value, list) else int(value)
        plain.append([entity, id(field) if entity == "attribute" else key, op, value])
    return plain


def _same(ours: list[list[Any]], theirs: list[list[Any]]) -> bool:
    return ours == [[*row[:3], float(row[3]) if isinstance(row[3], int) and abs(row[3]) >= 2**63 else row[3]] for row in theirs]


# Filters of logged models in which MLflow takes double quotes as part of the value or key.
JOINED = "run_id IN ('a' 'b')"  # Python's joining of texts, which nobody means
NONSENSE = {"lifecycle_stage = 'active'", "experiment_id LIKE '1'"}
QUOTED = {"params.a = \"b\"", "params.\"a b\" = 'x'", "params.'a b' = 'x'", 'name = "x"', "metrics.`a``b` > 1"}


@pytest.mark.parametrize("row", [row for row in GOLDEN if "filter" in row and "reads" in row], ids=lambda row: f"{row['of']}: {row['filter']}")
def test_what_mlflow_reads_reads_the_same(row: dict[str, Any]) -> None:
    language, text = LANGUAGES[row["of"]], row["filter"]
    if text == "AND":
        with pytest.raises(InvalidInput, match="a condition"):
            language.read(text)
        return
    if row["of"] == "logged" and text in QUOTED:
        assert len(_read(language, text)) == 1
        return
    if row["of"] == "logged" and text in NONSENSE:
        with pytest.raises(InvalidInput):
            _read(language, text)
        return
    if text == JOINED:
        with pytest.raises(InvalidInput, match="another value"):
            language.read(text)
        return
    assert _same(_plain(_read(language, text), language), _plain(row["reads"], language))


@pytest.mark.parametrize("row", [row for row in GOLDEN if "filter" in row and "refused" in row], ids=lambda row: f"{row['of']}: {row['filter']}")
def test_what_mlflow_refuses_is_refused_in_its_words_or_means_more(row: dict[str, Any]) -> None:
    language, text = LANGUAGES[row["of"]], row["filter"]
    found = _checks(language, text)
    if isinstance(found, InvalidInput):
        assert re.search(r"\n +\^ at character \d+", found.came)
        ours, theirs = _said(found.came.split("\n")[0]), _said(row["refused"].split("\n")[0])
        assert ours == theirs or text == JOINED or (theirs.startswith(CUT) and not (row["of"] == "runs" and text in MATCHED)), (ours, theirs)
        return
    assert found or not text.strip()
    assert any(re.search(pattern, text, re.IGNORECASE) for pattern in FURTHER), f"{text} reads as {found}, and MLflow says {row['refused']}"


def _said(text: str) -> str:
    return UNSTABLE.sub(r"\1", text).replace("`", "")


# What MLflow says when its lexer has cut the text otherwise; another mistake of the same filter may be named instead.
CUT = ("Invalid clause", "Invalid comparison clause", "Invalid comparison operator", "Invalid filter string", "Invalid comparison:")
# Filters of runs whose texts its own tests match on.
MATCHED = {"`metrics.A > 0.1", "param`.A > 0.1", "`dummy.A > 0.1", "dummy`.A > 0.1", "1.0 > metrics.acc", "params.'acc = LR", "params.acc = 'LR",
           "params.acc = LR'", "params.acc = \"LR'", "tags.acc = \"LR'", "tags.acc = = 'LR'", "attribute.status IS 'RUNNING'", "params.acc LR !=",
           "params.acc LR", "metric.acc !=", "1=1", "1==2", "metrics.A > 0.1 NAND params.B = 'LR'"}
# What Davy takes further than MLflow.
FURTHER = ("inf", r"\bOR\b", r"\bNOT\b", r"\(", r"\bIN\b", r"\bIS\b", "BETWEEN", r"params\.from", r"params\.a[-/]b", r"metrics\.123", "creation_timestamp",
           "last_updated_timestamp", r"\.5$", r"^\s*$", "^`tags`", "^name ilike")


def _checks(language: Language, text: str) -> list[Check] | InvalidInput:
    try:
        return [language.check(text, node) for node in conditions(language.read(text))]
    except InvalidInput as error:
        return error


@pytest.mark.parametrize("row", [row for row in GOLDEN if "order" in row], ids=lambda row: f"{row['of']}: {row['order']}")
def test_orders_read_as_mlflow_reads_them(row: dict[str, Any]) -> None:
    language, text = LANGUAGES[row["of"]], row["order"]
    try:
        (key,) = language.order([text])
    except InvalidInput as error:
        assert "refused" in row or text == "dataset.name"  # its store refuses it later
        if text == "dataset.name":
            return
        ours, theirs = _said(error.came.split("\n")[0]), _said(row["refused"])
        assert ours == theirs or theirs.startswith("Invalid order"), (ours, theirs)
        return
    if "refused" in row:
        assert text in ("params.my_param ", "creation_timestamp", "tags.x"), row["refused"]
    else:
        assert key.down is not row["reads"][-1]
        assert key.target.key == row["reads"][-2]


PLACES = [
    ("metrics.a > 1 and strt_time > 5", 19, "did you mean 'start_time'?"),
    ("metrics.a > 1 and params.b = c", 30, "in quotes"),
    ("metrics.a > 1 andd metrics.b > 2", 20, "an operator"),
    ("metrics.a >", 12, "a value"),
    ("(metrics.a > 1", 15, "')'"),
    ("metrics.a > 1)", 14, "AND, OR or the end"),
    ("not", 4, "a condition"),
    ("metrics.a > 1 or", 17, "a condition"),
    ("x = 'abc", 5, "not closed"),
    ("max(params.a) = 'x'", 1, "metrics only"),
    ("metrics.a = 1 and and metrics.b = 2 or metrics.c = 3", 19, "one AND or OR"),
    ("metrics.a\n  > 1 and\n  oops = 'x'", 23, "did you mean params.oops or tags.oops? known: artifact_uri, end_time"),
    ("loss < 0.2", 1, "did you mean metrics.loss? known: "),
    ("`a loss` < 0.2", 1, ": known: "),
    ("params.a like 'x!' escape '!'", 15, "escaped"),
    ("params.a like 'x' escape 'ab'", 26, "one character"),
    ("datasets.nme = 'x'", 1, "did you mean 'name'?"),
    ("metric.a = 1 and tagz.b = 'x'", 18, "did you mean 'tag'?"),
]


@pytest.mark.parametrize(("text", "place", "hint"), PLACES, ids=lambda value: str(value))
def test_an_error_names_the_place_and_what_is_allowed(text: str, place: int, hint: str) -> None:
    found = _checks(RUNS, text)
    assert isinstance(found, InvalidInput)
    said = found.came
    assert f"at character {place}: " in said
    assert hint in said
    shown, pointer = said.split("\n")[1:3]
    assert shown[pointer.index("^"):] == text[place - 1:].split("\n")[0]


@pytest.mark.parametrize(("language", "text"), [
    (EXPERIMENTS, "experiment_id = '\u00b2'"), (EXPERIMENTS, "experiment_id IN ('1', '\u00b2')"), (VERSIONS, "version_number = '--5'"),
    (VERSIONS, "version_number IN ('1', '--2')"), (VERSIONS, "version_number = '\u00b2'"), (VERSIONS, "version_number = '-'"),
])
def test_what_only_looks_like_a_number_is_none(language: Language, text: str) -> None:
    assert isinstance(_checks(language, text), InvalidInput)


def test_an_order_by_a_name_that_lacks_its_entity_is_told_how_it_is_written() -> None:
    with pytest.raises(InvalidInput, match=r"did you mean metrics\.loss\?"):
        RUNS.order(["loss DESC"])


def test_what_is_too_long_too_deep_or_too_large_is_refused() -> None:
    deep = "not " * (DEEPEST - 1) + "metrics.a = 1"
    assert RUNS.read(deep) is not None
    many = " and ".join(["metrics.a = 1"] * MOST_CONDITIONS)
    assert len(conjuncts(RUNS.read(many))) == MOST_CONDITIONS
    assert RUNS.read("(" * 20_000 + "metrics.a = 1" + ")" * 20_000) is not None
    nested = "(metrics.a = 1 and " * DEEPEST + "metrics.a = 1" + ")" * DEEPEST
    for text, hint in ((f"not {deep}", "levels deep"), (f"{many} and metrics.a = 1", "conditions"), (nested, "levels deep"),
                       ("x" * (LONGEST + 1), "characters"), ("(" * 20_000, "a condition")):
        with pytest.raises(InvalidInput, match=hint):
            RUNS.read(text)
    half = f"metrics.a in ({','.join(['1'] * (MOST_VALUES // 2 + 1))})"
    assert RUNS.read(half) is not None
    for text in (f"{half} and {half}", f"not ({half} or {half})", f"run_id in ({','.join(['1'] * (MOST_VALUES + 1))})"):
        with pytest.raises(InvalidInput, match="at most 20,000 values together"):
            RUNS.read(text)
    assert isinstance(_checks(RUNS, f"params.a like '{'x' * 10_000}'"), list)
    assert "at most 10,000" in str(_checks(RUNS, f"params.a ilike '{'x' * 10_001}'"))
    with pytest.raises(InvalidInput, match="at most 16"):
        RUNS.order([f"metrics.m{number}" for number in range(17)])


@pytest.mark.parametrize("text", ["params.a = '\0'", "params.a = '\ud800'", "params.a in ('\\x00')", "params.a in ('\\ud800')"])
def test_text_that_no_database_takes_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="NUL"):
        RUNS.check(text, RUNS.read(text))  # type: ignore[arg-type]


@pytest.mark.parametrize("items", [["metrics.a", "metric.a DESC"], ["start_time", "created"], ["params.x", "parameter.`x`"],
                                   ["max(metrics.a)", "max(metric.a)"]])
def test_a_field_comes_once_in_an_order(items: list[str]) -> None:
    with pytest.raises(InvalidInput, match="duplicate fields"):
        RUNS.order(items)
    assert len(RUNS.order(["metrics.a", "max(metrics.a)", "metrics.b", "params.a", "tags.a", "status"])) == 6


@pytest.mark.parametrize(("pattern", "escape", "made"), [("a%_", None, "a*?"), ("[*?]", None, "[[][*][?]]"), ("100!%%", "!", "100%*"), ("!!_", "!", "!?")])
def test_a_like_becomes_a_glob(pattern: str, escape: str | None, made: str) -> None:
    assert glob(pattern, escape) == made
