"""`traces/{trace_id}/assessments`: feedback and expectations, given, read, changed and deleted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from davy.protocols.mlflow.api import Call, endpoint
from davy.protocols.mlflow.checks import LONGEST_KEY, bad_value, check_length
from davy.protocols.mlflow.times import milliseconds, moment
from davy.protocols.mlflow.wire import Message, invalid
from davy.tracking.assessments import add_assessments, change_assessment, delete_assessment, get_assessment

if TYPE_CHECKING:
    from davy.core.clock import Clock

SOURCES = ("SOURCE_TYPE_UNSPECIFIED", "HUMAN", "LLM_JUDGE", "CODE")
_KINDS = ("feedback", "expectation", "issue")
_ONE = "traces/{trace_id}/assessments/{assessment_id}"
_LONGEST_ID = 50


class SourceMessage(Message):
    source_type: str | int | None = None
    source_id: str | None = None


class AssessmentMessage(Message):
    assessment_id: str | None = None
    assessment_name: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    source: SourceMessage | None = None
    create_time: str | None = None
    last_update_time: str | None = None
    feedback: dict[str, Any] | None = None
    expectation: dict[str, Any] | None = None
    issue: dict[str, Any] | None = None
    rationale: str | None = None
    metadata: dict[str, str] = {}
    overrides: str | None = None
    valid: bool | None = None


class CreateAssessment(Message):
    trace_id: str | None = None
    assessment: AssessmentMessage | None = None


class OneAssessment(Message):
    trace_id: str | None = None
    assessment_id: str | None = None


class UpdateAssessment(OneAssessment):
    assessment: AssessmentMessage | None = None
    update_mask: str | None = None


def checked(trace_id: str, given: AssessmentMessage, clock: Clock) -> dict[str, Any]:
    """An assessment as it is kept, without what is not set."""
    kinds = [kind for kind in _KINDS if getattr(given, kind) is not None]
    if not kinds:
        raise invalid("Unknown assessment type: None")
    if len(kinds) > 1:
        raise invalid(f"An assessment is one of {', '.join(_KINDS)}; this one is {' and '.join(kinds)}.")
    _check_value(given)
    check_length("assessment_id", given.assessment_id or "", _LONGEST_ID)
    now = moment(clock.now() // 1000)
    times = {name: moment(milliseconds(text, f"assessment.{name}")) if (text := getattr(given, name)) else now for name in ("create_time", "last_update_time")}
    source = given.source or SourceMessage()
    kept = msgspec.structs.replace(
        given, assessment_id=given.assessment_id or None, trace_id=trace_id, source=msgspec.structs.replace(source, source_type=_source(source.source_type)),
        assessment_name=check_length("assessment_name", given.assessment_name or "", LONGEST_KEY), rationale=given.rationale or None,
        feedback=_feedback(given), **times)
    found: dict[str, Any] = msgspec.to_builtins(kept)
    return found


@endpoint("POST", "traces/{trace_id}/assessments", CreateAssessment, required=("assessment",), write=True, api="3.0")
def create(call: Call, asked: CreateAssessment) -> dict[str, Any]:
    trace_id = asked.trace_id or ""
    assert asked.assessment is not None
    given = checked(trace_id, asked.assessment, call.clock)
    return {"assessment": add_assessments(call.connection, trace_id, [given], clock=call.clock)[0]}


@endpoint("GET", _ONE, OneAssessment, api="3.0")
def get(call: Call, asked: OneAssessment) -> dict[str, Any]:
    return {"assessment": get_assessment(call.connection, asked.trace_id or "", asked.assessment_id or "")}


@endpoint("PATCH", _ONE, UpdateAssessment, required=("assessment", "update_mask"), write=True, api="3.0")
def update(call: Call, asked: UpdateAssessment) -> dict[str, Any]:
    """The fields that the mask names are set; metadata are added to those that are there."""
    trace_id, assessment_id, given = asked.trace_id or "", asked.assessment_id or "", asked.assessment
    assert given is not None
    before = get_assessment(call.connection, trace_id, assessment_id)
    kind = next((kind for kind in _KINDS if kind in before), "assessment")
    values: dict[str, Any] = {}
    for path in re.split(r"[,\s]+", asked.update_mask or ""):
        name = re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", path)
        if name in _KINDS and name != kind:
            raise invalid(f"Cannot update {name} value on {'an' if kind[0] in 'aei' else 'a'} {kind.capitalize()} assessment.")
        if name in _KINDS:
            if getattr(given, name) is None:
                raise invalid("The `value` field must be specified.")
            _check_value(given)
            values[name] = _feedback(given) if name == "feedback" else getattr(given, name)
        elif name in ("assessment_name", "rationale"):
            values[name] = check_length(name, getattr(given, name) or "", LONGEST_KEY) if name == "assessment_name" else given.rationale or ""
        elif name == "metadata":
            values[name] = {**before.get("metadata", {}), **given.metadata}
        elif name == "valid":
            values[name] = bool(given.valid)
    values["last_update_time"] = moment(call.clock.now() // 1000)
    return {"assessment": change_assessment(call.connection, trace_id, assessment_id, values)}


@endpoint("DELETE", _ONE, OneAssessment, write=True, api="3.0")
def delete(call: Call, asked: OneAssessment) -> dict[str, Any]:
    delete_assessment(call.connection, asked.trace_id or "", asked.assessment_id or "")
    return {}


def _feedback(given: AssessmentMessage) -> dict[str, Any] | None:
    """Feedback that says nothing has a value all the same: none."""
    return None if given.feedback is None else {"value": None, **given.feedback}


def _check_value(given: AssessmentMessage) -> None:
    if given.expectation is not None and not {"value", "serialized_value"} & given.expectation.keys():
        raise invalid("The `value` field must be specified.")


def _source(found: str | int | None) -> str:
    if isinstance(found, int) and 0 <= found < len(SOURCES):
        return SOURCES[found]
    if found is None or found in SOURCES:
        return str(found or SOURCES[0])
    raise bad_value("assessment.source.source_type", found, f"It is one of {', '.join(SOURCES)}.")
