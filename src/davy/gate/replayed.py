"""The last requests that were really asked, once more through stable and candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from davy.errors import DavyError
from davy.gate.check import Check, Finding, failed, passed

if TYPE_CHECKING:
    from davy.gate.candidate import Candidate

NOTABLE = 0.1


def replayed(candidate: Candidate) -> Finding:
    """Fails when the candidate errs where stable answers, or when its answers as a whole lie elsewhere than stable's."""
    logged, stable = candidate.logged, candidate.stable
    ours = candidate.stand.predict_each(candidate.version.version, logged.matrix(candidate.version))
    errors = [row for row, answer in enumerate(ours) if not _answered(answer)]
    evidence: dict[str, Any] = {"requests": len(logged), "errors": len(errors)}
    if stable is None:
        if errors:
            return failed(f"{len(errors)} of the last {len(logged):,} requests get no answer: {_why(ours[errors[0]])}.", **evidence)
        return passed(f"The last {len(logged):,} requests are answered; {candidate.alone}.", **evidence)
    theirs = candidate.stand.predict_each(stable.version, logged.matrix(stable))
    broken = [row for row in errors if _answered(theirs[row])]
    evidence |= {"stable": stable.reference, "errors_of_stable": sum(not _answered(answer) for answer in theirs), "only_the_candidate_errs": len(broken)}
    if broken:
        return failed(f"{len(broken)} of the last {len(logged):,} requests, which {stable.reference} answers, get no answer: {_why(ours[broken[0]])}.",
                      fix="The model must answer every row that is really asked.", **evidence)
    pairs = [(mine, its) for mine, its in zip(ours, theirs, strict=True) if _answered(mine) and _answered(its)]
    return _compared(candidate, pairs, evidence)


def _compared(candidate: Candidate, pairs: list[tuple[Any, Any]], evidence: dict[str, Any]) -> Finding:
    """How far the answers lie apart."""
    assert candidate.stable is not None
    limit, output, beside = candidate.settings.shift, candidate.signature.output, candidate.stable.reference
    if not pairs or np.ndim(pairs[0][0]) != 0 or isinstance(pairs[0][0], (str, bool)) or output == "label":
        apart = float(np.mean([mine != its for mine, its in pairs])) if pairs else 0.0
        return passed(f"{len(pairs):,} of the last requests are answered by both; {apart:.1%} otherwise than by {beside}.", disagreement=apart, **evidence)
    mine, its = np.array([pair[0] for pair in pairs], dtype=np.float64), np.array([pair[1] for pair in pairs], dtype=np.float64)
    spread = 1.0 if output == "probability" else float(its.std()) or 1.0
    shift = float((mine - its).mean()) / spread
    apart = float(np.mean(np.abs(mine - its) / spread > NOTABLE))
    unit = "" if output == "probability" else " standard deviations"
    evidence |= {"mean": float(mine.mean()), "mean_of_stable": float(its.mean()), "shift": shift, "limit": limit, "apart_by_more_than_a_tenth": apart,
                 "changed_side_of_a_half": float(np.mean((mine > 0.5) != (its > 0.5))) if output == "probability" else None}
    words = f"on the last {len(pairs):,} requests its mean answer is {mine.mean():.4g}, that of {beside} {its.mean():.4g}: a shift of {shift:+.3f}{unit}"
    if abs(shift) > limit:
        return failed(f"{words[0].upper()}{words[1:]}; at most {limit:g} is allowed.",
                      fix="Find out why its answers moved as a whole; if they are meant to, raise [gate] shift.", **evidence)
    return passed(f"{words[0].upper()}{words[1:]}; {apart:.1%} lie apart by more than a tenth, and no request fails.", **evidence)


def _answered(answer: Any) -> bool:
    if isinstance(answer, DavyError) or answer is None:
        return False
    return isinstance(answer, (str, bool)) or bool(np.isfinite(np.asarray(answer, dtype=np.float64)).all())


def _why(answer: Any) -> str:
    return answer.came.rstrip(".") if isinstance(answer, DavyError) else f"it answers {answer}"


CHECKS = (Check("requests", "The last requests really asked are answered, and much as stable answers them", replayed),)
