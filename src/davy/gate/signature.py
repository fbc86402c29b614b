"""The contract with clients: whoever can ask stable can ask the candidate, and reads its answers the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from davy.gate.check import Check, Finding, failed, passed

if TYPE_CHECKING:
    from davy.core.fields import Field
    from davy.features.definition import FeatureSet
    from davy.gate.candidate import Candidate


def signature(candidate: Candidate) -> Finding:
    now = candidate.feature_set(candidate.version)
    asked = _fields(now)
    if candidate.stable is None:
        return passed(f"There is no contract to break: {candidate.alone}.", request={name: _said(*asked[name]) for name in asked})
    assert candidate.stable.signature is not None
    then = _fields(candidate.feature_set(candidate.stable))
    breaks = [f"the field {name!r} is new, and clients do not send it" for name in asked if name not in then]
    breaks += [f"the field {name!r} is gone, and a request that sends it is refused" for name in then if name not in asked]
    breaks += [f"the field {name!r} is {_said(*asked[name])} and was {_said(*then[name])}" for name in asked if name in then and asked[name] != then[name]]
    new, old = candidate.signature, candidate.stable.signature
    if new.output != old.output:
        breaks.append(f"the answer is a {new.output} and was a {old.output}")
    elif list(new.classes) != list(old.classes):
        breaks.append(f"the classes are {list(new.classes)} and were {list(old.classes)}")
    if breaks:
        return failed(f"Beside {candidate.stable.reference}: {'; '.join(breaks)}.", breaks=breaks,
                      fix="Keep the request fields and the output, or publish the change under another model's name.")
    inputs = sorted({*new.names} ^ {*old.names})
    return passed(f"It takes the requests of {candidate.stable.reference} and answers in kind.", request={name: _said(*asked[name]) for name in asked},
                  output=new.output, columns_that_differ=inputs)


def _fields(features: FeatureSet) -> dict[str, tuple[str, Field]]:
    return {field.name: (role, field) for role, fields in (("entity key", features.entities), ("request field", features.request)) for field in fields}


def _said(role: str, field: Field) -> str:
    return f"{field.described}, {role}"


CHECKS = (Check("signature", "Stable's clients can ask it, and read its answers, unchanged", signature),)
