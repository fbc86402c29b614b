"""What a user writes: streams, views, derived features and models. Each becomes plain data (definition.py) and is checked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from davy.core.fields import Field, Kind, make_field
from davy.core.time import parse_duration
from davy.errors import DefinitionError, NotFound, nearest
from davy.features.aggregates import Agg
from davy.features.aggregates import agg as agg
from davy.features.calls import as_list, checked_call
from davy.features.definition import DerivedSpec, FeatureSet, FeatureSpec, ModelSpec, OutcomeSpec, StreamSpec, ViewSpec
from davy.features.derived import Derived as Derived
from davy.features.derived import Udf as Udf
from davy.features.derived import derive as derive
from davy.features.derived import udf as udf
from davy.features.kernel import output_kind
from davy.features.kpi import as_kpis


class Stream:
    """An append-only log of facts.

    Args:
        name: how it is called everywhere.
        time: the column with the event time; in UTC, or with a zone.
        fields: every other column, with its type: int, float, str, bool, davy.Time, davy.Float(scale=...), davy.Decimal(scale=...).
        source: a Parquet, CSV or Delta file or folder with its history, relative to the project.
        id: the field that makes an event unique; the same id twice is taken once.
        ingest: the column of the source that says when each event arrived. Without it, history counts as arrived `delay` after its event time.
        delay: how long after the event time an event of the history was known.
        tolerance: how far in the future an event may lie and still be taken at once; one further ahead is set aside until its time.

    Raises:
        DefinitionError: a name or type that can't be.

    >>> Stream("flights", time="dep_time", fields={"origin": str, "dep_delay": float}).spec.field("origin").kind
    'str'
    """

    @checked_call("davy.Stream")
    def __init__(
        self,
        name: str,
        *,
        time: str,
        fields: Mapping[str, Any],
        source: str | Path | None = None,
        id: str | None = None,
        ingest: str | None = None,
        delay: str = "0s",
        tolerance: str = "1s",
    ) -> None:
        if not name.isidentifier():
            raise DefinitionError(f"{name!r} can't be a stream's name.", "A stream is named like a Python variable.", "Rename it.")
        declared = tuple(make_field(field, kind) for field, kind in fields.items())
        make_field(time, int)
        if time in fields:
            raise DefinitionError(
                f"The stream {name!r} declares its time column {time!r} among its fields.",
                "The time column is declared by time= alone.",
                f"Remove {time!r} from fields.",
            )
        if id is not None and id not in fields:
            raise DefinitionError(f"The stream {name!r} has no field {id!r} to be its id.", nearest(id, fields), "Declare it in fields.")
        self.spec = StreamSpec(name, time, declared, id, ingest, parse_duration(delay), parse_duration(tolerance), str(source) if source else None)

    @property
    def name(self) -> str:
        """How it is called everywhere."""
        return self.spec.name

    def __repr__(self) -> str:
        return f"Stream({self.name!r})"


class FeatureRef:
    """One feature of a view, as `Airport.departures_1h`."""

    def __init__(self, view: type[View], name: str) -> None:
        self.view, self.name = view, name

    def __repr__(self) -> str:
        return f"{self.view.__name__}.{self.name}"


class _Body(dict[str, Any]):
    """A class body in which a feature's name can be given only once."""

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(self.get(key), Agg) or (key in self and isinstance(value, Agg)):
            raise DefinitionError(
                f"The view {self.get('__qualname__', '')!r} has two features named {key!r}.", "Each feature has a name of its own.", "Rename one."
            )
        super().__setitem__(key, value)


class _ViewType(type):
    spec: ViewSpec
    stream: Stream

    @classmethod
    def __prepare__(mcs, name: str, bases: tuple[type, ...], /, **_: Any) -> _Body:
        return _Body()

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _ViewType:
        new = super().__new__(mcs, name, bases, dict(body))
        if bases:
            new.spec = _view_spec(name, body)
            for feature in new.spec.features:
                setattr(new, feature.name, FeatureRef(new, feature.name))  # type: ignore[arg-type]
        return new

    def __getattr__(cls, name: str) -> Any:
        known = [feature.name for feature in cls.spec.features] if "spec" in vars(cls) else []
        raise AttributeError(f"The view {cls.__name__!r} has no feature {name!r}: {nearest(name, known)}")


class View(metaclass=_ViewType):
    """The features of one entity from one stream: a class with `stream`, `entity` and aggregates.

    Raises:
        DefinitionError: no stream or entity, an unknown field, a type that the aggregate can't take, two features of one name.
    """


def _view_spec(name: str, body: Mapping[str, Any]) -> ViewSpec:
    stream, entity = body.get("stream"), body.get("entity")
    if not isinstance(stream, Stream):
        raise DefinitionError(f"The view {name!r} has no stream.", "A view has one stream.", "Write: stream = flights")
    keys = (entity,) if isinstance(entity, str) else tuple(entity or ())
    if not keys:
        raise DefinitionError(
            f"The view {name!r} has no entity.", "An entity is the field (or fields) that the features are about.", 'Write: entity = "origin"'
        )
    for key in keys:
        kind = _field(stream, key, f"The view {name!r}").kind
        if kind not in ("str", "int"):
            raise DefinitionError(f"The view {name!r} has the entity {key!r}, a {kind}.", "An entity key is a str or an int.", "Choose another field.")
    features = []
    for attribute, value in body.items():
        if isinstance(value, Agg):
            features.append(_feature(stream, value, attribute, f"The feature {name}.{attribute}"))
    if not features:
        raise DefinitionError(f"The view {name!r} has no features.", "A view has at least one aggregate.", 'Write: departures_1h = agg.count(window="1h")')
    return ViewSpec(name, stream.name, keys, tuple(features)).sealed(stream.spec)


def _feature(stream: Stream, aggregate: Agg, name: str, where: str) -> FeatureSpec:
    if aggregate.field is not None:
        kind = _field(stream, aggregate.field, where).kind
        allowed = {
            "sum": ("int", "float", "decimal", "bool"),
            "mean": ("int", "float", "decimal", "bool"),
            "std": ("int", "float", "decimal", "bool"),
            "min": ("int", "float", "decimal", "bool", "time"),
            "max": ("int", "float", "decimal", "bool", "time"),
        }.get(aggregate.aggregate)
        if allowed is not None and kind not in allowed:
            raise DefinitionError(
                f"{where} takes the {aggregate.aggregate} of {aggregate.field!r}, a {kind}.",
                f"{aggregate.aggregate} takes {', '.join(allowed)}.",
                "Use agg.last or agg.count, or declare the field otherwise.",
            )
    return aggregate.spec(name, where)


def _field(stream: Stream, name: str, where: str) -> Field:
    try:
        return stream.spec.field(name)
    except NotFound as error:
        raise DefinitionError(f"{where}: {error.came}", error.allowed, error.fix) from None


class Outcome:
    """What turns out to be true later, and the label that a model learns from it.

    Args:
        value: the name of the value that arrives, such as "arr_delay".
        label: from that value to the label; the value itself when absent.
        matures_after: how long after the prediction the value is final.
        kind: the value's type.
    """

    @checked_call("davy.Outcome")
    def __init__(self, value: str, *, label: Callable[[Any], Any] | None = None, matures_after: str = "0s", kind: Any = float) -> None:
        self.label = label
        self.spec = OutcomeSpec(make_field(value, kind), parse_duration(matures_after))


class Model:
    """A declared model: features, outcome, where its examples come from, and the function that trains it."""

    def __init__(
        self, train: Callable[..., Any], *, entities: Sequence[str], features: Sequence[Any], outcome: Outcome, request: Mapping[str, Any], spine: Any,
        kpis: Sequence[Any] = (),
    ) -> None:
        self.train, self.name = train, train.__name__
        if not isinstance(outcome, Outcome):
            raise DefinitionError(f"The model {self.name!r} has the outcome {outcome!r}.", "An outcome names the value that arrives later, with its type.",
                                  f"Write outcome=davy.Outcome({outcome if isinstance(outcome, str) else 'arr_delay'!r}).")
        self.entities, self.features, self.request = as_list("entities", entities), as_list("features", features), dict(request)
        self.outcome, self.spine = outcome, spine
        self.kpis = as_kpis(kpis, f"The model {self.name!r}")
        self.__doc__ = train.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the training function itself."""
        return self.train(*args, **kwargs)

    def __repr__(self) -> str:
        return f"model {self.name!r}"


@checked_call("davy.model")
def model(
    *, entities: Sequence[str], features: Sequence[Any], outcome: Outcome, request: Mapping[str, Any] | None = None, spine: Any = None,
    kpis: Sequence[Any] = (),
) -> Callable[[Callable[..., Any]], Model]:
    """Declare a model; the decorated function trains it from a `TrainingSet` and returns an object with `predict`.

    Args:
        entities: the entity keys that a request names.
        request: further typed fields that a request carries.
        features: views, single features (`Airport.departures_1h`), derived features, and names of request fields or entity keys, in the vector's order.
        outcome: what turns out to be true later.
        spine: the moments to learn from: a function that returns a data frame with the entity keys, the request fields,
            `time` and the outcome's value, or a file of that shape. The function may take `start` and `end`.
        kpis: functions of (prediction, outcome) that give a number for each prediction, such as what it cost; see `kpi`.
    """
    return lambda train: Model(train, entities=entities, features=features, outcome=outcome, request=request or {}, spine=spine, kpis=kpis)


class Resolver:
    """Finds what a model's features stand for, among the listed ones and then in the whole project.

    Args:
        views, derived: everything that the project defines; a derived feature's arguments may name any of it.
    """

    def __init__(self, views: Iterable[type[View]] = (), derived: Iterable[Derived] = ()) -> None:
        self.views = list(views)
        self.derived = {item.name: item for item in derived}

    def feature_set(
        self, features: Sequence[Any], *, entities: Sequence[str] | None = None, request: Mapping[str, Any] | None = None, where: str = "The feature set"
    ) -> FeatureSet:
        """The complete feature set of a list of views, features, derived features and names.

        Raises:
            DefinitionError: an unknown or ambiguous name, two features of one name, an entity that no view knows.
        """
        return _Resolution(self, features, request or {}, where).finish(entities)

    def model(self, declared: Model) -> ModelSpec:
        """The checked specification of a model."""
        where = f"The model {declared.name!r}"
        label = declared.outcome.spec.value.name
        feature_set = _Resolution(self, declared.features, declared.request, where, label).finish(declared.entities)
        used = {*feature_set.outputs, *(field.name for field in (*feature_set.entities, *feature_set.request))}
        used |= {name for spec in feature_set.derived for name in spec.inputs}
        if label in used:
            raise _leak(where, label)
        return ModelSpec(declared.name, feature_set, declared.outcome.spec)


def _leak(where: str, label: str) -> DefinitionError:
    return DefinitionError(
        f"{where} uses its outcome {label!r} as a feature.",
        "What is predicted is not known when it is asked for.",
        f"Remove {label!r} from features, entities and request; what was known of the past is a view's aggregate under a name of its own.",
    )


class _Resolution:
    """One feature set being put together; `label` is the name of what it must not know."""

    def __init__(self, known: Resolver, listed: Sequence[Any], request: Mapping[str, Any], where: str, label: str | None = None) -> None:
        self.known, self.where, self.label = known, where, label
        self.request = {name: make_field(name, kind) for name, kind in request.items()}
        self.views: dict[str, type[View]] = {}
        self.kinds: dict[str, Kind] = {}
        self.derived: dict[str, DerivedSpec] = {}
        self.functions = dict(known.derived)
        self.keys: dict[str, None] = {}
        self.outputs: list[str] = []
        for field in self.request.values():
            self._name(field.name, field.kind)
        for item in listed:
            self._declare(item)
        for item in listed:
            self._list(item)

    def _declare(self, item: Any) -> None:
        if isinstance(item, type) and issubclass(item, View):
            self._use(item)
        elif isinstance(item, FeatureRef):
            self._use(item.view)
        elif isinstance(item, Derived):
            self.functions[item.name] = item
        elif not isinstance(item, str):
            raise DefinitionError(
                f"{self.where} lists {item!r} among its features.",
                "A feature is a view, View.feature, a derived feature, or a name in quotes.",
                "Decorate the function with @davy.derive, or name a request field.",
            )

    def _use(self, view: type[View]) -> None:
        known = self.views.get(view.__name__)
        if known is not None and known.spec != view.spec:
            raise DefinitionError(f"{self.where} has two views named {view.__name__!r}.", "Each view has a name of its own.", "Rename one of them.")
        if known is not None:
            return
        self.views[view.__name__] = view
        for feature in view.spec.features:
            field = view.stream.spec.field(feature.field) if feature.field else None
            self._name(feature.name, output_kind(feature, field))

    def _name(self, name: str, kind: Kind) -> None:
        if name in self.kinds:
            raise self._twice(name)
        self.kinds[name] = "float" if kind == "decimal" else kind

    def _twice(self, name: str) -> DefinitionError:
        return DefinitionError(f"{self.where} has two features named {name!r}.", "Each name means one thing.", "Rename one of them.")

    def _list(self, item: Any) -> None:
        if isinstance(item, type) and issubclass(item, View):
            names = [feature.name for feature in item.spec.features]
        else:
            names = [item if isinstance(item, str) else item.name]
        for name in names:
            if isinstance(item, Derived) and name in self.kinds and name not in self.derived:
                raise self._twice(name)
            self._resolve(name, ())
            if name in self.outputs:
                raise DefinitionError(f"{self.where} lists the feature {name!r} twice.", "A vector has each feature once.", "Remove one.")
            self.outputs.append(name)

    def _resolve(self, name: str, path: tuple[str, ...]) -> None:
        """Make sure that this name has a kind, defining what it needs on the way."""
        if name in self.kinds:
            return
        if name in path:
            raise DefinitionError(
                f"{self.where}: the derived features {' -> '.join((*path, name))} need each other.",
                "A derived feature can't depend on itself.",
                "Break the circle.",
            )
        if name in self.functions:
            self._derive(self.functions[name], (*path, name))
            return
        entity = self._entity_field(name)
        if entity is not None:
            self.kinds[name] = entity.kind
            self.keys[name] = None
            return
        holders = [view for view in self.known.views if any(feature.name == name for feature in view.spec.features)]
        if len({view.__name__ for view in holders}) == 1:
            self._use(holders[0])
            return
        if holders:
            raise DefinitionError(
                f"{self.where}: {name!r} is a feature of {' and '.join(view.__name__ for view in holders)}.",
                "A name must mean one feature.",
                f"List the view that you mean, or rename: {holders[0].__name__}.{name}",
            )
        if name == self.label:
            raise _leak(self.where, name)
        known = {*self.kinds, *self.functions, *(feature.name for view in self.known.views for feature in view.spec.features)}
        needs = f" (an argument of {path[-1]!r})" if path else ""
        raise DefinitionError(
            f"{self.where} needs {name!r}{needs}, which is not defined.",
            nearest(name, known),
            "Correct the name, add the view to the features, or declare it as a request field.",
        )

    def _derive(self, item: Derived, path: tuple[str, ...]) -> None:
        for name in item.inputs:
            self._resolve(name, path)
        spec = item.spec(self.kinds)
        self._name(item.name, spec.kind)
        self.derived[item.name] = spec

    def _entity_field(self, name: str) -> Field | None:
        for view in (*self.views.values(), *self.known.views):
            if name in view.spec.entity:
                return view.stream.spec.field(name)
        return None

    def finish(self, entities: Sequence[str] | None) -> FeatureSet:
        """Check the entity keys and seal the set."""
        needed = list(dict.fromkeys([*(key for view in self.views.values() for key in view.spec.entity), *self.keys]))
        named = needed if entities is None else list(dict.fromkeys(entities))
        fields = tuple(self._key(name, needed) for name in named)
        missing = [key for key in needed if key not in named]
        if missing:
            raise DefinitionError(
                f"{self.where} does not name the entity key {missing[0]!r}.", f"It needs: {', '.join(needed)}.", f"Add {missing[0]!r} to entities."
            )
        streams = {view.stream.name: view.stream.spec for view in self.views.values()}
        for view in self.views.values():
            if view.stream.spec != streams[view.stream.name]:
                raise DefinitionError(
                    f"{self.where} has two streams named {view.stream.name!r}.", "Each stream has a name of its own.", "Give both views the same one."
                )
        return FeatureSet(
            fields,
            tuple(self.request.values()),
            tuple(streams.values()),
            tuple(view.spec for view in self.views.values()),
            tuple(self.derived.values()),
            tuple(self.outputs),
            tuple(self.kinds[name] for name in self.outputs),
        ).sealed()

    def _key(self, name: str, needed: Sequence[str]) -> Field:
        """The entity key of this name, which must be one thing in every view."""
        if name in self.request:
            raise DefinitionError(f"{self.where} has {name!r} as an entity key and as a request field.", "It is one of the two.", "Remove it from request.")
        field = self._entity_field(name)
        if field is None:
            raise DefinitionError(
                f"{self.where} names the entity key {name!r}, which no view is about.", nearest(name, needed), "Declare it in request, or correct the name."
            )
        if name in self.kinds and name not in self.keys:
            raise DefinitionError(f"{self.where} has {name!r} as an entity key and as a feature.", "Each name means one thing.", "Rename the feature.")
        for view in self.views.values():
            other = view.stream.spec.field(name) if name in view.spec.entity else field
            if other.kind != field.kind:
                raise DefinitionError(
                    f"{self.where}: the entity key {name!r} is {field.kind} in one view and {other.kind} in {view.__name__}.",
                    "A key has one type, so that a request can name it once.",
                    "Declare the field alike on both streams.",
                )
        return field
