"""What differs between a run and its repetition, in the order in which one thing causes the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from davy.training.environment import Environment, Machine, Package, Seeds, Threads

Grade = Literal["same bytes", "same predictions", "within tolerance", "different"]
Cause = Literal["code", "seed", "python", "package", "threads", "machine", "definition", "spine", "training set", "model", "unused package"]
ORDER: tuple[Cause, ...] = ("code", "seed", "python", "package", "definition", "spine", "training set", "threads", "machine", "model", "unused package")


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not as it was, in a sentence without its full stop."""

    cause: Cause
    what: str


def grade(*, same_bytes: bool, same_predictions: bool, largest: float | None, tolerance: float) -> Grade:
    """How near a repetition came.

    Args:
        largest: the largest absolute difference of two answers, None when they can't be subtracted.
    """
    if same_bytes:
        return "same bytes"
    if same_predictions:
        return "same predictions"
    return "within tolerance" if largest is not None and largest <= tolerance else "different"


def environments(then: Environment, now: Environment, *, imported: Collection[str], inside: Collection[str] = ()) -> Iterator[Difference]:
    """Python, platform and packages, in order of their names.

    Args:
        imported: distributions that training imported; a difference in another can't have mattered.
        inside: editable installs that are part of the captured code itself.
    """
    for name in ("python", "implementation", "platform", "libc"):
        old, new = getattr(then, name), getattr(now, name)
        if old != new:
            yield Difference("python", f"{name} {new}, then {old}")
    before, after = ({package.name: package for package in lock.packages} for lock in (then, now))
    for name in sorted({*before, *after} - {*inside}):
        text = _package(before.get(name), after.get(name))
        if text is not None:
            yield Difference("package" if name in imported else "unused package", f"{name} {text}")


def _package(then: Package | None, now: Package | None) -> str | None:
    if then is None:
        return "is installed now and was not"
    if now is None:
        return f"{then.version} is not installed any more"
    if then.version != now.version:
        return f"{now.version}, then {then.version}"
    if (then.commit, then.dirty) != (now.commit, now.dirty) and then.editable:
        return f"(editable) is at {_state(now)}, then at {_state(then)}"
    if then.contents and now.contents and then.contents != now.contents:
        return f"{now.version} has other files than then"
    return None


def _state(package: Package) -> str:
    return f"{(package.commit or 'no commit')[:12]}{' with changes' if package.dirty else ''}"


def circumstances(then: tuple[Seeds, Threads, Machine], now: tuple[Seeds, Threads, Machine]) -> Iterator[Difference]:
    """Seeds, thread settings and hardware."""
    (old_seeds, old_threads, old_machine), (new_seeds, new_threads, new_machine) = then, now
    if old_seeds.seed != new_seeds.seed:
        yield Difference("seed", f"seed {new_seeds.seed}, then {old_seeds.seed}")
    if old_seeds.hash_seed != new_seeds.hash_seed:
        yield Difference("seed", f"PYTHONHASHSEED {new_seeds.hash_seed}, then {old_seeds.hash_seed}")
    for name in sorted({*old_threads.variables, *new_threads.variables}):
        old, new = old_threads.variables.get(name, "not set"), new_threads.variables.get(name, "not set")
        if old != new:
            yield Difference("threads", f"{name} {new}, then {old}")
    # Which libraries are loaded depends on who calls; only their settings matter.
    for name in sorted({*old_threads.effective} & {*new_threads.effective}):
        if old_threads.effective[name] != new_threads.effective[name]:
            yield Difference("threads", f"{new_threads.effective[name]} threads of {name}, then {old_threads.effective[name]}")
    if (old_machine.processor, old_machine.usable_cores) != (new_machine.processor, new_machine.usable_cores):
        yield Difference("machine", f"{new_machine.processor} with {new_machine.usable_cores} cores, then {old_machine.processor} with "
                                    f"{old_machine.usable_cores}")
    flags = sorted({*old_machine.flags} ^ {*new_machine.flags})
    if flags:
        yield Difference("machine", f"the processors differ in {', '.join(flags[:5])}")
