"""davy.toml, typed. An unknown key is an error that names its nearest match."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec

from davy.errors import ConfigError, nearest

FILE = "davy.toml"
_TOML = {"str": "text", "int": "whole number", "bool": "true or false", "array": "list", "object": "table"}


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[storage]: where things live. Empty values mean inside the `.davy` folder."""

    home: str = ".davy"
    database: str = ""
    blobs: str = ""
    tables: str = ""


class Events(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[events]: how the log moves into tables."""

    flush_every: str = "5s"
    flush_rows: int = 50_000


class Predictions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[predictions]: whether an answer waits until its log entry is on disk."""

    durability: Literal["buffered", "acknowledged"] = "buffered"


class Serving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[serving]: the address, how long a model may take, and which further modules a pickled model may name."""

    host: str = "127.0.0.1"
    port: int = 8080
    timeout: str = "2s"
    allow_globals: tuple[str, ...] = ()


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of davy.toml."""

    project: str = ""
    storage: Storage = Storage()
    events: Events = Events()
    predictions: Predictions = Predictions()
    serving: Serving = Serving()

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
    known = get_type_hints(kind)
    for key, value in raw.items():
        if key not in known:
            raise ConfigError(f"{path} has the unknown setting {prefix + key!r}.", nearest(key, known), "Rename or remove it.")
        section = known[key]
        if isinstance(value, dict) and isinstance(section, type) and issubclass(section, msgspec.Struct):
            _refuse_unknown(section, value, path, f"{prefix}{key}.")
