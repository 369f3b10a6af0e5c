"""Read a profile: a TOML file in which every number has a unit and a source.

    kind = "link"                         # or "device"
    [sources.huang2012]
    text = "Huang et al., MobiSys 2012"
    date = "2012-06"
    [values]
    uplink = { value = 5.85, unit = "Mbit/s", source = "huang2012" }

Every error names the file, the field and the way to fix it.
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
"""A device that is measured and not shipped: a file of this name in the working folder."""

_MOST_PPM = 999_999


@dataclass(frozen=True, slots=True)
class _Field:
    """What a field may hold.

    Attributes:
        dimension: What it measures; see `units.convert`.
        required: Whether a profile must have it.
        least: The smallest allowed value in the base unit; None for strictly positive.
        most: The largest allowed value, if there is one.
    """

    dimension: str
    required: bool = False
    least: int | None = 0
    most: int | None = None


_LINK_FIELDS = {
    "uplink": _Field("rate", required=True, least=None),
    "downlink": _Field("rate", required=True, least=None),
    "rtt": _Field("time"),
    "jitter": _Field("time"),
    "loss": _Field("part", most=_MOST_PPM),
    "corruption": _Field("part", most=_MOST_PPM),
    "reordering": _Field("part", most=_MOST_PPM),
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
_RATIO_FIELDS = {
    name: _Field("ratio", required=True, least=None)
    for name in ("eight_bits", "f32", "f16", "bf16")
}
_ESTIMATE_FIELDS = {**_RATIO_FIELDS, **_CODEC_FIELDS}

_LINK_CHANGES = {
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
"""The dimension and the attribute of every change that may follow the name of a link."""


def names(kind: str) -> list[str]:
    """The names of the profiles that come with irsplit, of kind `link` or `device`."""
    return sorted(path.stem for path in FOLDER.glob("*.toml") if _read(path).get("kind") == kind)


def link(text: str) -> Link:
    """Read the profile of a link.

    Args:
        text: The name of a shipped profile or a `.toml` file, then changes after commas: `lte`,
            `my-link.toml`, `wifi,rtt=20ms,up=5Mbit/s`. `tail=published` charges the published tail
            energy, which is 0 otherwise.

    Raises:
        PlanError: There is no such profile, its file is damaged, or a change is not possible.

    Example:
        >>> link("wifi,rtt=20ms").rtt_ns
        20000000
    """
    name, *changes = text.split(",")

    profile = _link(_find(name, "link"))
    for change in changes:
        profile = _changed(profile, change, text)
    return profile


def device(text: str) -> Device:
    """Read the profile of a device.

    Args:
        text: The name of a shipped profile, `this-machine`, or a `.toml` file.

    Raises:
        PlanError: There is no such profile, or its file is damaged.
    """
    return _device(_find(text, "device"))


@cache
def codec_estimates() -> dict[str, CodecEstimate]:
    """What boundary codecs do where nothing was measured, by codec name."""
    path = _find("codecs", "codecs")

    estimates: dict[str, CodecEstimate] = {}
    for name, entry in _read(path)["codecs"].items():
        values = _fields(path, f"codecs.{name}", entry, _ESTIMATE_FIELDS)
        speed = CodecSpeed(round(values.pop("encode")), round(values.pop("decode")))
        estimates[name] = CodecEstimate(values, speed)
    return estimates


@cache
def level_speeds() -> dict[str, CodecSpeed]:
    """The speeds of codec levels, such as `zstandard-19`, that differ from those of their codec."""
    path = _find("codecs", "codecs")
    levels = _read(path)["levels"]
    return {name: _codec(path, f"levels.{name}", entry) for name, entry in levels.items()}


@cache
def _read(path: Path) -> dict[str, Any]:
    with reading(path, "not a TOML file", "write a profile as in docs/planner.md", PlanError):
        return tomllib.loads(read_text(path), parse_float=Decimal)


def _find(name: str, kind: str) -> Path:
    """The file of a profile, checked to be of the right kind."""
    path = _path(name)
    if name == THIS_MACHINE and not path.exists():
        raise PlanError(
            f"{path} is not here; measure it: irsplit profile MODEL -o MODEL.json --fit {path}"
        )
    if path.parent == FOLDER and not path.exists():
        raise PlanError(
            f"unknown {kind} {name!r}; known: {', '.join(names(kind))}, or give a .toml file"
        )

    # A link given as a device would only fail later, at a missing field.
    actual = _read(path).get("kind")
    if actual != kind:
        raise PlanError(
            f"{path.name}: kind is {actual!r}; a profile of kind {kind!r} is wanted here"
        )
    return path


def _path(name: str) -> Path:
    """The file that a name means, whether or not it exists."""
    if name == THIS_MACHINE:
        return Path(f"{name}.toml")
    if name.endswith(".toml") or "/" in name:
        return Path(name)
    return FOLDER / f"{name}.toml"


def _link(path: Path) -> Link:
    """Read a file of kind link."""
    values = _values(path, _LINK_FIELDS)

    # Source: Huang et al., MobiSys 2012: power = alpha * rate + beta, with alpha per Mbit/s.
    up, down = values["uplink"], values["downlink"]
    beta = values.get("beta", Fraction(0))
    up_uw = values.get("alpha_up", Fraction(0)) * up / 10**6 + beta
    down_uw = values.get("alpha_down", Fraction(0)) * down / 10**6 + beta

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
        up_uw=round(up_uw),
        down_uw=round(down_uw),
        published_tail_nj=round(values.get("tail", 0)),
    )


def _device(path: Path) -> Device:
    """Read a file of kind device."""
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
    """Read the speed of a codec from one table of a file."""
    values = _fields(path, table, entry, _CODEC_FIELDS)
    return CodecSpeed(round(values["encode"]), round(values["decode"]))


def _values(path: Path, fields: Mapping[str, _Field]) -> dict[str, Fraction]:
    """The table `values` of a profile, after a check of its sources."""
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
    """All values of one table, in the base units of their dimensions."""
    if not isinstance(entries, dict):
        raise PlanError(f"{path.name}: {table} must be a table of values")

    # An unknown name is most often a misspelled one, so it is told before what is missing.
    for name in entries:
        if name not in fields:
            raise PlanError(
                f"{path.name}: {table}.{name} is not a field of this profile; fields: "
                f"{', '.join(fields)}"
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
    """One value with its unit and its source, in the base unit of its dimension."""
    if not isinstance(entry, dict) or set(entry) != {"value", "unit", "source"}:
        raise PlanError(f"{path.name}: {where} must be {{ value = ..., unit = ..., source = ... }}")

    value, unit, source = entry["value"], entry["unit"], entry["source"]
    if not isinstance(source, str) or source not in _read(path).get("sources", {}):
        raise PlanError(
            f"{path.name}: {where} cites source {source!r}; describe it under [sources.{source}]"
        )

    # TOML knows true, inf and nan, and Python takes a truth value for an integer.
    is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if not is_number or not Decimal(value).is_finite():
        raise PlanError(f"{path.name}: {where} is {value!r}; give a finite number")

    try:
        number = convert(value, str(unit), field.dimension)
    except ValueError as error:
        raise PlanError(f"{path.name}: {where}: {error}") from error

    problem = _out_of_range(number, field)
    if problem:
        raise PlanError(f"{path.name}: {where} is {value} {unit}; it must {problem}")
    return number


def _out_of_range(number: Fraction, field: _Field) -> str:
    """What a number must be and is not; an empty text if it is in range."""
    if field.least is None and number < 1:
        return "be positive"
    if field.least is not None and number < field.least:
        return "not be negative"
    if field.most is not None and number > field.most:
        return "be below 100 %"
    return ""


def _changed(profile: Link, change: str, text: str) -> Link:
    """The link with one change of its text, such as `rtt=20ms`."""
    key, _, value = change.partition("=")
    if key == "tail" and value == "published":
        return replace(profile, tail_nj=profile.published_tail_nj)
    if key not in _LINK_CHANGES:
        raise PlanError(
            f"link {text!r}: unknown change {change!r}; known: {', '.join(_LINK_CHANGES)}, as in "
            "rtt=20ms"
        )

    dimension, attribute = _LINK_CHANGES[key]
    try:
        number = parse(value, dimension)
    except ValueError as error:
        raise PlanError(f"link {text!r}: {key}: {error}") from error

    # Transfer times divide by the rate, and a link that loses every packet never delivers.
    least = 1 if dimension == "rate" else 0
    if number < least or (dimension == "part" and number > _MOST_PPM):
        raise PlanError(
            f"link {text!r}: {change!r} is out of range; rates must be positive, the rest not "
            "negative"
        )

    return replace(profile, **{attribute: number})
