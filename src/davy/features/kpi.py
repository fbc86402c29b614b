"""KPIs: numbers that the business cares about, as plain functions of a prediction and its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from davy.errors import DefinitionError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Kpi:
    """A number that the business cares about: a plain function of a prediction and its outcome.

    Attributes:
        unit: such as "USD".
        worse: whether more of it is worse (a cost), or less (a gain).
        bad: which values count as a bad event when versions are compared; by default any cost above 0, or any gain below 0.
    """

    def __init__(self, function: Callable[[Any, Any], float], *, unit: str = "", worse: str = "higher", bad: Callable[[float], bool] | None = None) -> None:
        self.function, self.name, self.unit, self.worse, self._bad = function, function.__name__, unit, worse, bad
        self.__doc__ = function.__doc__
        if worse not in ("higher", "lower"):
            raise DefinitionError(f"The KPI {self.name!r} has worse={worse!r}.", "It is 'higher' (a cost) or 'lower' (a gain).",
                                  nearest(str(worse), ["higher", "lower"]))

    def __call__(self, prediction: Any, outcome: Any) -> float:
        """The value of one prediction."""
        return self.function(prediction, outcome)

    def is_bad(self, value: float) -> bool:
        """Whether this value is a bad event."""
        if self._bad is not None:
            return bool(self._bad(value))
        return value > 0 if self.worse == "higher" else value < 0

    def __repr__(self) -> str:
        return f"KPI {self.name!r}"


def kpi(function: Callable[[Any, Any], float] | None = None, *, unit: str = "", worse: str = "higher", bad: Callable[[float], bool] | None = None) -> Any:
    """Say more of a KPI than its function does: `@davy.kpi(unit="USD")` above `def cost(prediction, outcome)`.

    Args:
        unit, worse, bad: see `Kpi`.
    """
    if function is not None:
        return Kpi(function)
    return lambda decorated: Kpi(decorated, unit=unit, worse=worse, bad=bad)


def as_kpis(listed: Sequence[Any], where: str) -> tuple[Kpi, ...]:
    """The KPIs of a model: decorated or plain functions, each of a name of its own.

    Raises:
        DefinitionError: not a function, or two of one name.
    """
    found: dict[str, Kpi] = {}
    for item in listed:
        if not isinstance(item, Kpi) and not (callable(item) and getattr(item, "__name__", "").isidentifier()):
            raise DefinitionError(f"{where} lists {item!r} among its KPIs.", "A KPI is a named function of (prediction, outcome).",
                                  "Write: def cost(prediction, outcome): ...")
        made = item if isinstance(item, Kpi) else Kpi(item)
        if made.name in found:
            raise DefinitionError(f"{where} has two KPIs named {made.name!r}.", "Each has a name of its own.", "Rename one of them.")
        found[made.name] = made
    return tuple(found.values())
