"""Read a profile: a TOML file in which every number has a unit and a source.

    kind = "link"                         # or "device"
    [sources.huang2012]
    text = "Huang et al., MobiSys 2012"
    date = "2012-06"
    [values]
    uplink = { value = 5.85, unit = "Mbit/s", source = "huang2012" }

What is wrong with a file is said with its name, the field and the way to fix it.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from irsplit.base.errors import PlanError
from irsplit.base.reading import read_text, reading
from irsplit.profiles.model import CodecEstimate, CodecSpeed, Device, Link
from irsplit.profiles.units import convert, parse

FOLDER = Path(__file__).parent
THIS_MACHINE = "this-machine"
"""A device that is measured, not shipped: a file of this name in the working folder."""


@dataclass(frozen=True, slots=True)
class _Field:
    """What a field may hold. `least` is the smallest value allowed, None for strictly positive."""

    dimension: str
    required: bool = False
    least: int | None = 0
    most: int | None = None


_LINK_FIELDS = {
    "uplink": _Field("rate", required=True, least=None),
    "downlink": _Field("rate", required=True, least=None),
    "rtt": _Field("time"),
    "jitter": _Field("time"),
    "loss": _Field("part", most=999_999),
    "corruption": _Field("part", most=999_999),
    "reordering": _Field("part", most=999_999),
    "burst": _Field("size"),
    "alpha_up": _Field("power per rate"),
    "alpha_down": _Field("power per rate"),
    "beta": _Field("power"),
    "tail": _Field("energy"),
}
OPERATOR_CLASSES = ("conv", "depthwise", "matmul")
_DEVICE_FIELDS = {
    **{name: _Field("work rate", required=True, least=None) for name in OPERATOR_CLASSES},
    "memory_rate": _Field("bytes rate", required=True, least=None),
    "overhead": _Field("time"),
    "active_power": _Field("power"),
    "idle_power": _Field("power"),
    "memory": _Field("size"),
}
_CODEC_FIELDS = {
    name: _Field("bytes rate", required=True, least=None) for name in ("encode", "decode")
}
_ESTIMATE_FIELDS = {
    **{
        name: _Field("ratio", required=True, least=None)
        for name in ("eight_bits", "f32", "f16", "bf16")
    },
    **_CODEC_FIELDS,
}
_LINK_OVERRIDES = {
    "up": ("rate", "up_bit_s"),
    "down": ("rate", "down_bit_s"),
    "rtt": ("time", "rtt_ns"),
    "jitter": ("time", "jitter_ns"),
    "loss": ("part", "loss_ppm"),
    "corruption": ("part", "corruption_ppm"),
    "reordering": ("part", "reordering_ppm"),
    "burst": ("size", "burst_bytes"),
    "tail": ("energy", "tail_nj"),
}


def names(kind: str) -> list[str]:
    """Profiles that come with irsplit, of kind `link` or `device`."""
    return sorted(path.stem for path in FOLDER.glob("*.toml") if _read(path).get("kind") == kind)


def link(text: str) -> Link:
    """A link by name or file, with changes after commas: `lte`, `my-link.toml`, `wifi,rtt=20ms,up=5Mbit/s`.

    `tail=published` charges the published tail energy, which is 0 otherwise.
    """
    name, *changes = text.split(",")
    found = _link(_find(name, "link"))
    for change in changes:
        found = _changed(found, change, text)
    return found


def device(text: str) -> Device:
    """A device by name or file."""
    return _device(_find(text, "device"))


@cache
def codec_estimates() -> dict[str, CodecEstimate]:
    """What the codecs of boundaries do where nothing was measured, by name."""
    path = _find("codecs", "codecs")
    found: dict[str, CodecEstimate] = {}
    for name, entry in _read(path)["codecs"].items():
        values = _fields(path, f"codecs.{name}", entry, _ESTIMATE_FIELDS)
        speed = CodecSpeed(round(values.pop("encode")), round(values.pop("decode")))
        found[name] = CodecEstimate(values, speed)
    return found


@cache
def level_speeds() -> dict[str, CodecSpeed]:
    """Of levels of these codecs that are faster or slower than their codec, as in `zstandard-19`."""
    path = _find("codecs", "codecs")
    return {
        name: _codec(path, f"levels.{name}", entry) for name, entry in _read(path)["levels"].items()
    }


@cache
def _read(path: Path) -> dict[str, Any]:
    with reading(path, "not a TOML file", "write a profile as in docs/planner.md", PlanError):
        return tomllib.loads(read_text(path), parse_float=Decimal)


def _find(name: str, kind: str) -> Path:
    path = Path(name) if name.endswith(".toml") or "/" in name else FOLDER / f"{name}.toml"
    if name == THIS_MACHINE:
        path = Path(f"{name}.toml")
        if not path.exists():
            raise PlanError(
                f"{path} is not here; measure it: irsplit profile MODEL -o MODEL.json --fit {path}"
            )
    if path.parent == FOLDER and not path.exists():
        raise PlanError(
            f"unknown {kind} {name!r}; known: {', '.join(names(kind))}, or give a .toml file"
        )
    found = _read(path).get("kind")
    if found != kind:
        raise PlanError(
            f"{path.name}: kind is {found!r}; a profile of kind {kind!r} is wanted here"
        )
    return path


def _link(path: Path) -> Link:
    values = _values(path, _LINK_FIELDS)
    up, down = values["uplink"], values["downlink"]
    beta = values.get("beta", Fraction(0))
    watts = {
        side: values.get(f"alpha_{side}", Fraction(0)) * rate / 10**6 + beta
        for side, rate in (("up", up), ("down", down))
    }
    return Link(
        name=path.stem,
        up_bit_s=round(up),
        down_bit_s=round(down),
        rtt_ns=round(values.get("rtt", 0)),
        jitter_ns=round(values.get("jitter", 0)),
        loss_ppm=round(values.get("loss", 0)),
        corruption_ppm=round(values.get("corruption", 0)),
        reordering_ppm=round(values.get("reordering", 0)),
        burst_bytes=round(values.get("burst", 0)),
        up_uw=round(watts["up"]),
        down_uw=round(watts["down"]),
        published_tail_nj=round(values.get("tail", 0)),
    )


def _device(path: Path) -> Device:
    values = _values(path, _DEVICE_FIELDS)
    codecs = _read(path).get("codecs", {})
    if not isinstance(codecs, dict):
        raise PlanError(f"{path.name}: codecs must be a table, one entry a codec")
    return Device(
        name=path.stem,
        macs_s={name: round(values[name]) for name in OPERATOR_CLASSES},
        bytes_s=round(values["memory_rate"]),
        overhead_ns=round(values.get("overhead", 0)),
        active_uw=round(values.get("active_power", 0)),
        idle_uw=round(values.get("idle_power", 0)),
        memory_bytes=round(values.get("memory", 0)),
        codecs={name: _codec(path, f"codecs.{name}", entry) for name, entry in codecs.items()},
    )


def _codec(path: Path, table: str, entry: object) -> CodecSpeed:
    values = _fields(path, table, entry, _CODEC_FIELDS)
    return CodecSpeed(round(values["encode"]), round(values["decode"]))


def _values(path: Path, fields: Mapping[str, _Field]) -> dict[str, Fraction]:
    sources = _read(path).get("sources", {})
    if not isinstance(sources, dict):
        raise PlanError(f"{path.name}: sources must be a table of tables with text and date")
    for name, source in sources.items():
        if not isinstance(source, dict) or not source.get("text") or not source.get("date"):
            raise PlanError(f"{path.name}: sources.{name} needs a text and a date")
    return _fields(path, "values", _read(path).get("values", {}), fields)


def _fields(
    path: Path, table: str, entries: object, fields: Mapping[str, _Field]
) -> dict[str, Fraction]:
    if not isinstance(entries, dict):
        raise PlanError(f"{path.name}: {table} must be a table of values")
    for name in entries:
        if name not in fields:
            raise PlanError(
                f"{path.name}: {table}.{name} is not a field of this profile; fields: {', '.join(fields)}"
            )
    for name, field in fields.items():
        if field.required and name not in entries:
            raise PlanError(
                f"{path.name}: {table}.{name} is missing; add it with value, unit and source"
            )
    return {
        name: _value(path, f"{table}.{name}", entry, fields[name])
        for name, entry in entries.items()
    }


def _value(path: Path, where: str, entry: object, field: _Field) -> Fraction:
    if not isinstance(entry, dict) or set(entry) != {"value", "unit", "source"}:
        raise PlanError(f"{path.name}: {where} must be {{ value = ..., unit = ..., source = ... }}")
    value, unit, source = entry["value"], entry["unit"], entry["source"]
    if not isinstance(source, str) or source not in _read(path).get("sources", {}):
        raise PlanError(
            f"{path.name}: {where} cites source {source!r}; describe it under [sources.{source}]"
        )
    if (
        isinstance(value, bool)
        or not isinstance(value, int | Decimal)
        or not Decimal(value).is_finite()
    ):
        raise PlanError(f"{path.name}: {where} is {value!r}; give a finite number")
    try:
        number = convert(value, str(unit), field.dimension)
    except ValueError as error:
        raise PlanError(f"{path.name}: {where}: {error}") from error
    if field.least is None and number < 1:
        raise PlanError(f"{path.name}: {where} is {value} {unit}; it must be positive")
    if field.least is not None and number < field.least:
        raise PlanError(f"{path.name}: {where} is {value} {unit}; it must not be negative")
    if field.most is not None and number > field.most:
        raise PlanError(f"{path.name}: {where} is {value} {unit}; it must be below 100 %")
    return number


def _changed(found: Link, change: str, text: str) -> Link:
    key, _, value = change.partition("=")
    if key == "tail" and value == "published":
        return replace(found, tail_nj=found.published_tail_nj)
    if key not in _LINK_OVERRIDES:
        raise PlanError(
            f"link {text!r}: unknown change {change!r}; known: {', '.join(_LINK_OVERRIDES)}, as in rtt=20ms"
        )
    dimension, attribute = _LINK_OVERRIDES[key]
    try:
        number = parse(value, dimension)
    except ValueError as error:
        raise PlanError(f"link {text!r}: {key}: {error}") from error
    if number < (1 if dimension == "rate" else 0) or (dimension == "part" and number > 999_999):
        raise PlanError(
            f"link {text!r}: {change!r} is out of range; rates must be positive, the rest not negative"
        )
    return replace(found, **{attribute: number})
