"""Definitions in words: what a feature is, as one line to show beside its value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from davy.core.time import format_duration

if TYPE_CHECKING:
    from davy.features.definition import DerivedSpec, FeatureSet, FeatureSpec, ViewSpec

_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "floor_divide": "//", "modulo": "%", "power": "**", "equal": "==", "not_equal": "!=",
          "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "and": "and", "or": "or"}


def describe(feature_set: FeatureSet) -> dict[str, str]:
    """For each output of a feature set, what it is."""
    known = {name: text for view in feature_set.views for name, text in describe_view(view).items()}
    known |= {derived.name: expression(derived) for derived in feature_set.derived}
    known |= {field.name: f"request field ({field.kind})" for field in feature_set.request}
    known |= {field.name: f"entity key ({field.kind})" for field in feature_set.entities}
    return {name: known.get(name, "") for name in feature_set.outputs}


def describe_view(view: ViewSpec) -> dict[str, str]:
    """For each feature of a view, what it is."""
    return {feature.name: _feature(view, feature) for feature in view.features}


def _feature(view: ViewSpec, feature: FeatureSpec) -> str:
    what = f"{feature.aggregate} of {view.stream}.{feature.field}" if feature.field else f"{feature.aggregate} of {view.stream}"
    span = ""
    if feature.window is not None:
        hop = "exact" if feature.hop == 1 else f"hop {format_duration(feature.hop)}"
        span = f" over {format_duration(feature.window)} ({hop})"
    elif feature.ttl is not None:
        span = f", at most {format_duration(feature.ttl)} old"
    return f"{what} by {', '.join(view.entity)}{span}"


def expression(derived: DerivedSpec) -> str:
    """A traced expression as one line of what the user wrote, near enough to recognise it."""
    if derived.program is not None:
        return f"udf {derived.name}({', '.join(derived.inputs)})"
    texts: list[tuple[str, bool]] = []
    for operation, _, operands, parameter in derived.expression:
        texts.append(_text(operation, [texts[index] for index in operands], parameter))
    return texts[-1][0] if texts else ""


def _text(operation: str, operands: list[tuple[str, bool]], parameter: Any) -> tuple[str, bool]:
    """The text, and whether it needs parentheses inside another operator."""
    if operation == "input":
        return str(parameter), False
    if operation == "literal":
        return json.dumps(parameter), False
    if operation in _INFIX and len(operands) == 2:
        left, right = (f"({text})" if infix else text for text, infix in operands)
        return f"{left} {_INFIX[operation]} {right}", True
    arguments = [*(text for text, _ in operands), *([] if parameter is None else [json.dumps(parameter)])]
    return f"{operation}({', '.join(arguments)})", False
