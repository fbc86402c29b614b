"""A project is checked before anything runs: each wrong definition is one error that names the file, the line and what to type."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from davy.errors import DavyError, DefinitionError, InvalidInput, NotFound
from davy.project import load_project

FEATURES = """\
import davy
from davy import Stream, View, agg

flights = Stream("flights", time="at", fields={"origin": str, "tail": str, "delay": float, "seats": int, "landed": davy.Time, "late": bool})
weather = Stream("weather", time="at", fields={"origin": str, "wind": float})


class Airport(View):
    stream, entity = flights, "origin"
    departures_1h = agg.count(window="1h")
    mean_delay_3h = agg.mean("delay", window="3h")


@davy.derive
def rush(departures_1h, distance):
    return departures_1h * distance
"""
MODELS = """\
import davy
from features import Airport, rush


@davy.model(entities=["origin"], request={"distance": int}, features=[Airport, rush, "distance"], outcome=davy.Outcome("arr_delay"))
def late(data):
    return None
"""


def write(root: Path, features: str = FEATURES, models: str = MODELS) -> Path:
    (root / "davy.toml").touch()
    (root / "features.py").write_text(features)
    (root / "models.py").write_text(models)
    return root


def refusal(root: Path) -> DavyError:
    with pytest.raises(DavyError) as caught:
        load_project(root)
    assert isinstance(caught.value, InvalidInput), "the user's mistake, not ours"
    assert caught.value.fix, "it says what to type"
    return caught.value


def run(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False)


def line_of(text: str, mark: str) -> int:
    """The last line with this mark."""
    return max(number for number, line in enumerate(text.splitlines(), 1) if mark in line)


def test_a_right_project_is_loaded(tmp_path: Path) -> None:
    project = load_project(write(tmp_path))
    assert list(project.streams) == ["flights", "weather"]
    assert list(project.views) == ["Airport"]
    assert list(project.derived) == ["rush"]
    assert project.model("late").spec.feature_set.outputs == ("departures_1h", "mean_delay_3h", "rush", "distance")
    assert [view.name for _, view in project.view_specs()] == ["Airport"]
    with pytest.raises(NotFound, match="did you mean 'late'"):
        project.model("lte")
    with pytest.raises(NotFound, match="did you mean 'flights'"):
        project.stream("flight")


def test_an_empty_folder_is_an_empty_project(tmp_path: Path) -> None:
    assert not load_project(tmp_path).models


def view(*lines: str, stream: str = "flights", entity: str = '"origin"', name: str = "Wrong") -> str:
    return "\n".join([f"\nclass {name}(View):", f"    stream, entity = {stream}, {entity}", *(f"    {line}" for line in lines)]) + "\n"


COUNT = 'n = agg.count(window="1h")'
WRONG_FEATURES = {
    "unknown field": (view('n = agg.mean("dely", window="1h")'), ["'dely'", "did you mean 'delay'"], "class Wrong"),
    "window and hop": (view('n = agg.count(window="1h", hop="7min")'), ["1h is not a multiple of its hop 7min", 'hop="exact"'], "class Wrong"),
    "hop beyond window": (view('n = agg.count(window="1h", hop="2h")'), ["not a multiple"], "class Wrong"),
    "hop of nothing": (view('n = agg.count(window="1h", hop="0s")'), ["not a multiple"], "class Wrong"),
    "no window": (view('n = agg.mean("delay", window=None)'), ["has no window"], "class Wrong"),
    "window of nothing": (view('n = agg.count(window="0s")'), ["longer than nothing"], "class Wrong"),
    "not a duration": (view('n = agg.count(window="an hour")'), ["'an hour' is not a duration"], "n = agg.count"),
    "window and ttl": (view('n = agg.last("tail", window="1h", ttl="1h")'), ["a window and a ttl"], "class Wrong"),
    "hop without window": (view('n = agg.last("tail", hop="1h")'), ["a hop but no window"], "class Wrong"),
    "two of one name": (view(COUNT, COUNT + "  # second"), ["two features named 'n'"], "# second"),
    "a feature hidden": (view(COUNT, "n = 3  # second"), ["two features named 'n'"], "# second"),
    "no stream": ("class Wrong(View):\n    " + COUNT, ["has no stream"], "class Wrong"),
    "a stream's name": (view(COUNT, stream='"flights"'), ["has no stream"], "class Wrong"),
    "no entity": ("class Wrong(View):\n    stream = flights\n    " + COUNT, ["has no entity"], "class Wrong"),
    "unknown entity": (view(COUNT, entity='"orign"'), ["'orign'", "did you mean 'origin'"], "class Wrong"),
    "float entity": (view(COUNT, entity='"delay"'), ["'delay', a float", "str or an int"], "class Wrong"),
    "bool entity": (view(COUNT, entity='("origin", "late")'), ["'late', a bool"], "class Wrong"),
    "no features": (view(), ["has no features"], "class Wrong"),
    "sum over text": (view('n = agg.sum("tail", window="1h")'), ["sum of 'tail', a str", "int, float"], "class Wrong"),
    "max over text": (view('n = agg.max("tail", window="1h")'), ["max of 'tail', a str"], "class Wrong"),
    "mean over time": (view('n = agg.mean("landed", window="1h")'), ["mean of 'landed', a time"], "class Wrong"),
    "stream's name": ('\nwrong = Stream("my flights", time="at", fields={})\n', ["'my flights'", "Python variable"], "wrong ="),
    "field's type": ('\nwrong = Stream("w", time="at", fields={"x": list})\n', ["'x'", "int, float, str"], "wrong ="),
    "field's name": ('\nwrong = Stream("w", time="at", fields={"_offset": int})\n', ["'_offset'", "underscore"], "wrong ="),
    "time as a field": ('\nwrong = Stream("w", time="at", fields={"at": davy.Time})\n', ["time column 'at' among its fields"], "wrong ="),
    "unknown id": ('\nwrong = Stream("w", time="at", fields={"number": str}, id="nmber")\n', ["'nmber'", "did you mean 'number'"], "wrong ="),
    "scale": ('\nwrong = Stream("w", time="at", fields={"x": davy.Float(scale=40)})\n', ["scale 40", "0 to 15"], "wrong ="),
    "tolerance": ('\nwrong = Stream("w", time="at", fields={}, tolerance="soon")\n', ["'soon' is not a duration"], "wrong ="),
    "two streams": ('\nagain = Stream("flights", time="at", fields={})\n', ["two streams named 'flights'"], "again ="),
    "two views": ("Other = Airport\n" + view('wind = agg.last("wind")', stream="weather", name="Airport"),
                  ["'Airport' is defined already, in line 8"], "class Airport"),
    "two derived": ("\n@davy.derive\ndef rush(departures_1h):\n    return departures_1h\n", ["'rush' is defined already, in line 15"], "def rush"),
    "syntax": ("\nx = (1,\n", ["features.py"], "x = (1,"),
    "exception": ("\nx = 1 / 0\n", ["ZeroDivisionError: division by zero", "top to bottom"], "x = 1 / 0"),
    "count without a window": (view("n = agg.count()"), ["agg.count lacks window=", "Add window="], "n = agg.count"),
    "unknown aggregate": (view('n = agg.median("delay", window="1h")'), ["davy.agg has no 'median'", "did you mean 'mean'"], "n = agg.median"),
    "misspelt argument": ('\nwrong = Stream("w", time="at", fields={}, dealy="1h")\n', ["davy.Stream has no argument 'dealy'", "'delay'"], "wrong ="),
    "no time": ('\nwrong = Stream("w", fields={})\n', ["davy.Stream lacks time=", "It takes name, time=, fields="], "wrong ="),
    "by position": ('\nwrong = Stream("w", "at", {})\n', ["davy.Stream got 3 arguments without a name"], "wrong ="),
    "a feature that is none": ("\nwrong = Airport.departures\n", ["view 'Airport' has no feature 'departures'", "did you mean 'departures_1h'"], "wrong ="),
    "missing import": ("\nimport no_such_package\n", ["ModuleNotFoundError", "no_such_package"], "import no_such"),
}


@pytest.mark.parametrize("case", WRONG_FEATURES)
def test_a_wrong_definition_is_named_with_its_line(case: str, tmp_path: Path) -> None:
    more, expected, mark = WRONG_FEATURES[case]
    text = FEATURES + more
    error = refusal(write(tmp_path, text))
    assert f"features.py:{line_of(text, mark)}: " in error.came
    for part in expected:
        assert part in str(error)


def model(arguments: str, before: str = "", name: str = "late") -> str:
    return f"import davy\nfrom features import *\n{before}\n@davy.model({arguments})\ndef {name}(data):\n    return None\n"


def derived(name: str, argument: str, returned: str = "") -> str:
    return f"@davy.derive\ndef {name}({argument}):\n    return {returned or argument}\n"


OUTCOME = 'outcome=davy.Outcome("arr_delay")'
LABEL = ["its outcome 'arr_delay' as a feature"]
PLAIN = f'entities=["origin"], request={{"distance": int}}, {OUTCOME}, '
WRONG_MODELS = {
    "unknown name": (model(PLAIN + 'features=[Airport, "distnce"]'), ["'distnce', which is not defined", "did you mean 'distance'"]),
    "unknown argument": (model(PLAIN + "features=[off]", derived("off", "departure_1h")),
                         ["'departure_1h' (an argument of 'off')", "did you mean 'departures_1h'"]),
    "not a feature": (model(PLAIN + "features=[Airport, 3]"), ["lists 3 among its features"]),
    "a plain function": (model(PLAIN + "features=[Airport, off]", "def off(departures_1h):\n    return departures_1h\n"), ["@davy.derive"]),
    "a circle": (model(PLAIN + "features=[a]", derived("a", "b") + derived("b", "a")), ["a -> b -> a", "need each other"]),
    "itself": (model(PLAIN + "features=[a]", derived("a", "a")), ["a -> a"]),
    "twice": (model(PLAIN + "features=[Airport, Airport.departures_1h]"), ["'departures_1h' twice"]),
    "two views, one name": (model(PLAIN + "features=[Airport, Port]", view('departures_1h = agg.count(window="1h")', stream="weather", name="Port")),
                            ["two features named 'departures_1h'"]),
    "ambiguous": (model(PLAIN + 'features=["n"]', view(COUNT, stream="weather", name="A") + view(COUNT, name="B")), ["'n' is a feature of A and B"]),
    "a feature named as a field": (model(PLAIN + "features=[A]", view('distance = agg.count(window="1h")', stream="weather", name="A")),
                                   ["two features named 'distance'"]),
    "derived named as a field": (model(PLAIN + "features=[Airport, distance]", derived("distance", "departures_1h")),
                                 ["two features named 'distance'"]),
    "derived named as a feature": (model(PLAIN + "features=[Airport, departures_1h]", derived("departures_1h", "distance")),
                                   ["two features named 'departures_1h'"]),
    "a feature named as a key": (model('entities=["origin", "tail"], ' + OUTCOME + ", features=[Plane, Airport]",
                                       view('origin = agg.last("origin")', entity='"tail"', name="Plane")),
                                 ["'origin' as an entity key and as a feature"]),
    "a key of two types": (model(PLAIN + "features=[Airport, Other]",
                                 'numbered = Stream("numbered", time="at", fields={"origin": int})\n' + view(COUNT, stream="numbered", name="Other")),
                           ["'origin' is str in one view and int"]),
    "missing entity": (model('entities=[], request={"distance": int}, ' + OUTCOME + ", features=[Airport]"), ["entity key 'origin'", "Add 'origin'"]),
    "a passed key that is missing": (model(PLAIN + 'features=[Airport, "tail"]', view(COUNT, entity='"tail"', name="Plane")),
                                     ["entity key 'tail'", "Add 'tail'"]),
    "unknown key": (model('entities=["origin", "orign"], ' + OUTCOME + ", features=[Airport]"), ["'orign', which no view is about", "did you mean 'origin'"]),
    "key and field": (model('entities=["origin"], request={"origin": str}, ' + OUTCOME + ", features=[Airport]"), ["entity key and as a request field"]),
    "field's type": (model('entities=["origin"], request={"distance": "int"}, ' + OUTCOME + ", features=[Airport]"), ["'distance'", "'int'"]),
    "label as an output": (model('entities=["origin"], request={"arr_delay": float}, ' + OUTCOME + ', features=[Airport, "arr_delay"]'), LABEL),
    "label in the request": (model('entities=["origin"], request={"arr_delay": float}, ' + OUTCOME + ", features=[Airport]"), LABEL),
    "label as an argument": (model(PLAIN + "features=[hint]", view('arr_delay = agg.last("delay")', name="Past") + derived("hint", "arr_delay")), LABEL),
    "label as an entity": (model('entities=["origin", "tail"], outcome=davy.Outcome("tail", kind=str), features=[Plane, Airport]',
                                 view(COUNT, entity='"tail"', name="Plane")), ["its outcome 'tail' as a feature"]),
    "label as a name": (model(PLAIN + 'features=[Airport, "arr_delay"]'), LABEL),
    "label as a derived feature's argument": (model(PLAIN + "features=[hint]", derived("hint", "arr_delay")), LABEL),
    "misspelt key": (model('entities=["orign"], ' + OUTCOME + ", features=[Airport]"), ["'orign', which no view is about", "did you mean 'origin'"]),
    "a key as a text": (model('entities="origin", ' + OUTCOME + ", features=[Airport]"), ["entities='origin' is not a list", "Write entities=['origin']"]),
    "one view alone": (model(PLAIN + "features=Airport"), ["features=Airport is not a list", "Write features=[Airport]"]),
    "no entities": (model(OUTCOME + ", features=[Airport]"), ["davy.model lacks entities="]),
    "outcome as a text": (model('entities=["origin"], features=[Airport], outcome="arr_delay"'),
                          ["'late' has the outcome 'arr_delay'", "outcome=davy.Outcome('arr_delay')"]),
    "outcome misspelt": (model('entities=["origin"], features=[Airport], outcome=davy.Outcome("arr_delay", mature="1h")'),
                         ["davy.Outcome has no argument 'mature'", "did you mean 'matures_after'"]),
    "untraceable": (model(PLAIN + "features=[deep]", derived("deep", "distance", "[distance][distance]")), ["models.py:5 uses a symbol as an index"]),
}


@pytest.mark.parametrize("case", WRONG_MODELS)
def test_a_wrong_model_is_named_with_its_line(case: str, tmp_path: Path) -> None:
    text, expected = WRONG_MODELS[case]
    error = refusal(write(tmp_path, models=text))
    assert f"models.py:{line_of(text, '@davy.model')}: " in error.came
    for part in expected:
        assert part in str(error)


@pytest.mark.parametrize(("line", "expected"), [
    ("return amuont * distance", ["NameError: name 'amuont' is not defined"]),
    ("return numpy.log(distance)", ["TypeError", "davy.log", "@davy.udf"]),
    ("return davy.when(distance > 1, distance)", ["davy.when lacks otherwise="]),
    ("return distance * (1 / 0)", ["ZeroDivisionError: division by zero"]),
])
def test_a_mistake_in_a_derived_feature_is_named_with_its_line(line: str, expected: list[str], tmp_path: Path) -> None:
    text = model(PLAIN + "features=[wrong]", f"import numpy\n@davy.derive\ndef wrong(distance):\n    {line}\n")
    error = refusal(write(tmp_path, models=text))
    assert f"models.py:{line_of(text, line)}" in str(error) or "davy.when" in line
    assert "'wrong'" in str(error) or "davy.when" in line
    for part in expected:
        assert part in str(error)


def test_two_models_of_one_name(tmp_path: Path) -> None:
    text = model(PLAIN + "features=[Airport]") + "\nfirst = late\n" + model(PLAIN + "features=[Airport]")
    error = refusal(write(tmp_path, models=text))
    assert "'late' is defined already, in line 5" in str(error)


def test_the_same_name_in_both_files(tmp_path: Path) -> None:
    text = model(PLAIN + "features=[Airport]", 'flights = Stream("flights", time="at", fields={"origin": str})\n')
    error = refusal(write(tmp_path, models=text))
    assert error.came == "models.py:3: there are two streams named 'flights'."


def test_an_error_in_a_file_that_is_imported_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "shared_aggregates.py").write_text("a = 1\nb = = 2\n")
    error = refusal(write(tmp_path, FEATURES + "import shared_aggregates\n"))
    assert error.came.startswith("shared_aggregates.py:2: ")
    (tmp_path / "shared_numbers.py").write_text("a = 1\nb = a / 0\n")
    error = refusal(write(tmp_path, FEATURES + "import shared_numbers\n"))
    assert error.came.startswith("shared_numbers.py:2: ZeroDivisionError")


def test_the_line_is_the_users_also_where_davy_is_installed_inside_the_project(tmp_path: Path) -> None:
    """A virtual environment usually lies in the project's folder."""
    write(tmp_path, FEATURES + 'wrong = Stream("w", time="at", fields={"x": list})\n')
    installed = tmp_path / ".venv" / "davy"
    installed.parent.mkdir()
    installed.symlink_to(Path(__file__).parent.parent / "src" / "davy")
    code = "from davy.project import load_project\nfrom pathlib import Path\nload_project(Path.cwd())"
    done = run(code, tmp_path, PYTHONPATH=str(installed.parent))
    assert f"DefinitionError: features.py:{line_of((tmp_path / 'features.py').read_text(), 'wrong')}: " in done.stderr


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    load_project(write(tmp_path))
    write(tmp_path, FEATURES.replace("departures_1h", "starts_1h"), MODELS)
    assert load_project(tmp_path).model("late").spec.feature_set.outputs[0] == "starts_1h"


def test_digests_are_the_same_in_every_process(tmp_path: Path) -> None:
    write(tmp_path)
    code = dedent("""
        from pathlib import Path
        from davy.project import load_project
        project = load_project(Path.cwd())
        found = project.model("late").spec.feature_set
        print(found.digest, *(view.digest for view in found.views))
    """)
    seen = set()
    for seed in ("1", "2"):
        seen.add(run(code, tmp_path, PYTHONHASHSEED=seed).stdout)
    assert len(seen) == 1
    here = load_project(tmp_path).model("late").spec.feature_set
    assert seen.pop().split() == [here.digest, *(view.digest for view in here.views)]


def test_an_error_is_a_definition_error(tmp_path: Path) -> None:
    assert isinstance(refusal(write(tmp_path, FEATURES + "x = 1 / 0\n")), DefinitionError)
