"""davy.toml, typed. An unknown key is an error that names its nearest match."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from davy.core.time import parse_duration
from davy.errors import ConfigError, InvalidInput, nearest

FILE = "davy.toml"
_TOML = {"str": "text", "int": "whole number", "bool": "true or false", "array": "list", "object": "table"}


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[storage]: where things live. Empty values mean inside the `.davy` folder. `options` go to the object store of `blobs`."""

    home: str = ".davy"
    database: str = ""
    blobs: str = ""
    tables: str = ""
    options: dict[str, str] = {}


class Events(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[events]: how the log moves into tables."""

    flush_every: str = "5s"
    flush_rows: int = 50_000


class Predictions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[predictions]: whether an answer waits until its log entry is on disk."""

    durability: Literal["buffered", "acknowledged"] = "buffered"


class Serving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[serving]: the address, how long a model may take and how much memory its process, which further modules a pickled model may name, and
    whether models of MLflow's may be loaded by MLflow, which runs any code that they bring."""

    host: str = "127.0.0.1"
    port: int = 8080
    timeout: str = "2s"
    allow_globals: tuple[str, ...] = ()
    memory_mb: int = 0
    allow_pyfunc: bool = False


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[server]: the names it is reached by from elsewhere, its certificate, and the proxies whose word on a client's address is taken."""

    hosts: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    proxies: tuple[str, ...] = ()


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[auth]: whether a login is needed on this machine too, whether it may cross a network in the clear, and how long a session lasts."""

    required: bool = False
    insecure: bool = False
    session: str = "7d"
    idle: str = "12h"


class Tracking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[tracking]: what an acknowledged write of runs and models has survived: the end of every process (and within 100 ms the loss of power), or both.

    `largest_artifact` is in bytes; `artifact_roots` are the folders and buckets that experiments may keep their artifacts in by themselves.
    """

    durability: Literal["process", "fsync"] = "process"
    largest_artifact: int = 1 << 40
    artifact_roots: tuple[str, ...] = ()


class Registry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[registry]: the aliases, as production or late@production, that only a releaser or a release may move."""

    protected: tuple[str, ...] = ()


class Kpi(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[release.kpis.NAME]: a KPI that a release is judged on: bad events, or the mean of a capped value."""

    kind: Literal["event", "mean"] = "event"
    better: Literal["lower", "higher"] = "lower"
    cap: float = 1.0
    delta: float = 0.2
    tolerated: float = 0.0


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[release]: how traffic moves to a new version, and what it is judged by."""

    strategy: Literal["canary", "blue-green", "shadow", "all-at-once"] = "canary"
    steps: tuple[float, ...] = (1, 5, 25, 50, 100)
    alpha: float = 0.05
    beta: float = 0.05
    unit: Literal["key", "request"] = "key"
    delta: dict[str, float] = {}
    tolerated: dict[str, float] = {}
    latency_slack: str = "1ms"
    min_time: str = "1min"
    min_requests: int = 100
    max_time: str = "1d"
    deadline: str = "7d"
    at_deadline: Literal["pause", "rollback", "promote"] = "pause"
    approval: bool = False
    alias: str = ""
    kpis: dict[str, Kpi] = {}


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[gate]: what a version must show before it may take traffic. Limits are what a check fails beyond."""

    required: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    quality: dict[str, float] = {}
    margin: float = 0.01
    slice_margin: float = 0.05
    slice_rows: int = 200
    calibration: float = 0.05
    shift: float = 0.2
    latency: str = "50ms"
    slowdown: float = 2.0
    memory_mb: int = 1024
    requests: int = 500


class Monitoring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[monitoring]: how often what was served is looked at, and how much drift counts."""

    every: str = "10s"
    evaluate_every: str = "30s"
    replay_every: str = "1h"
    window: str = "1d"
    false_alarms_per_year: float = 1.0
    drift_tolerance: float = 0.01
    keep_slices: str = "14d"


class AlertRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[[alerts]]: a number that is watched. It fires when it has been `above` or `below` its limit for so long."""

    name: str
    metric: str
    model: str = ""
    above: float | None = None
    below: float | None = None
    held: str = msgspec.field(name="for", default="0s")
    window: str = "1h"
    webhook: str = ""
    format: Literal["json", "slack"] = "json"

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise ValueError(f"the alert {self.name!r} needs either above or below")
        if self.webhook and not self.webhook.startswith(("http://", "https://")):
            raise ValueError(f"the webhook of {self.name!r} is no http or https address")
        for text in (self.held, self.window):
            try:
                parse_duration(text)
            except InvalidInput as error:
                raise ValueError(f"the alert {self.name!r}: {error.came}") from None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of davy.toml."""

    project: str = ""
    storage: Storage = Storage()
    events: Events = Events()
    predictions: Predictions = Predictions()
    serving: Serving = Serving()
    server: Server = Server()
    auth: Auth = Auth()
    tracking: Tracking = Tracking()
    registry: Registry = Registry()
    release: Release = Release()
    gate: Gate = Gate()
    monitoring: Monitoring = Monitoring()
    alerts: tuple[AlertRule, ...] = ()

    @classmethod
    def load(cls, root: Path) -> Config:
        """Read `root/davy.toml`; an absent file is all defaults.

        Raises:
            ConfigError: not TOML, an unknown key, or a value of another type.
        """
        path = root / FILE
        if not path.exists():
            return cls(project=root.name)
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}.", "", "Mend the line that it names.") from error
        _refuse_unknown(cls, raw, path, "")
        try:
            config = msgspec.convert(raw, cls)
        except msgspec.ValidationError as error:
            raise _mistyped(path, raw, str(error)) from error
        return config if config.project else msgspec.structs.replace(config, project=root.name)


def _mistyped(path: Path, raw: dict[str, Any], said: str) -> ConfigError:
    """What msgspec says of a value, in the words of the file."""
    what, _, where = said.partition(" - at `$.")
    found = re.fullmatch(r"Expected `(.+?)`, got `(.+?)`", what)
    keys = re.sub(r"\[.*?\]", "", where.rstrip("`")).split(".")
    value: Any = raw
    default: Any = Config()
    for key in keys:
        value, default = value.get(key) if isinstance(value, dict) else None, getattr(default, key, None)
    inside = isinstance(value, list)
    shown = f"{value!r}, a {_TOML.get(found[2], found[2])}" if found and not inside else f"{value!r}"
    allowed = f"It is a {'list of ' * inside}{_TOML.get(found[1], found[1])}." if found else f"{what}."
    return ConfigError(f"{path}: {'.'.join(keys)} is {shown}.", allowed, f"Mend the value; the default is {msgspec.json.encode(default).decode()}.")


def _refuse_unknown(kind: type[msgspec.Struct], raw: dict[str, Any], path: Path, prefix: str) -> None:
    hints = get_type_hints(kind)
    known = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}
    for key, value in raw.items():
        if key not in known:
            raise ConfigError(f"{path} has the unknown setting {prefix + key!r}.", nearest(key, known), "Rename or remove it.")
        section = known[key]
        if isinstance(value, dict) and isinstance(section, type) and issubclass(section, msgspec.Struct):
            _refuse_unknown(section, value, path, f"{prefix}{key}.")
        item = get_args(section)[0] if get_origin(section) is tuple else None
        if isinstance(value, list) and isinstance(item, type) and issubclass(item, msgspec.Struct):
            for row in value:
                if isinstance(row, dict):
                    _refuse_unknown(item, row, path, f"{prefix}{key}.")
