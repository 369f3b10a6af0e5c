"""What is installed: passes, dialects, codecs and measures, where each comes from and what is wrong with it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import EntryPoint
from typing import Any

from irsplit.base.entry_points import entry_points
from irsplit.base.errors import VERSION
from irsplit.codec_training.agreement import measures
from irsplit.dialects import registry as dialects
from irsplit.passes import pipeline as passes
from irsplit.runtime.frame import codec_plugins as foreign
from irsplit.runtime.frame.descriptor import CODECS
from irsplit.runtime.run import engines

GROUPS = {
    passes.ENTRY_POINTS: "pass",
    dialects.ENTRY_POINTS: "dialect",
    foreign.ENTRY_POINTS: "codec",
    measures.ENTRY_POINTS: "measure",
    engines.ENTRY_POINTS: "engine",
}


@dataclass(frozen=True, slots=True)
class Plugin:
    """`origin` is distribution and version; `value` is where the object lies; `problem` is None when it can be used."""

    kind: str
    name: str
    origin: str
    value: str
    summary: str
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plugins() -> list[Plugin]:
    """Passes, dialects, codecs and measures, ours and those of other packages, in order of kind and name."""
    ours = [
        Plugin("codec", name, f"irsplit {VERSION}", "irsplit.runtime", f"frame codec {code}")
        for name, code in CODECS.items()
    ]
    ours += [
        Plugin("measure", name, f"irsplit {VERSION}", "irsplit.codec_training.agreement", text)
        for name, text in measures.BUILT_IN.items()
    ]
    found = [*ours, *(_described(point) for group in GROUPS for point in entry_points(group))]
    return sorted(
        _with_conflicts(found), key=lambda plugin: (plugin.kind, plugin.name, plugin.origin)
    )


def _described(point: EntryPoint) -> Plugin:
    kind = GROUPS[point.group]
    origin = "unknown" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    # Whatever a foreign module does when it is imported must not hide the others from the list.
    try:
        loaded: Any = point.load()
    except Exception as error:
        return Plugin(
            kind,
            point.name,
            origin,
            point.value,
            "",
            f"cannot be loaded: {type(error).__name__}: {error}",
        )
    name = getattr(loaded, "name", point.name)
    problem = None if name == point.name else f"calls itself '{name}'; name the entry point so"
    return Plugin(kind, point.name, origin, point.value, _summary(loaded, kind), problem)


def _summary(loaded: Any, kind: str) -> str:
    if kind == "codec":
        return f"frame codec {getattr(loaded, 'code', '?')}"
    return next(iter((loaded.__doc__ or "").strip().splitlines()), "")


def _with_conflicts(found: Sequence[Plugin]) -> Iterable[Plugin]:
    for plugin in found:
        rivals = [other for other in found if other is not plugin and _clash(plugin, other)]
        named = " and ".join(f"'{other.name}' of {other.origin}" for other in rivals)
        problem = plugin.problem or (f"conflicts with {named}; uninstall one" if named else None)
        yield replace(plugin, problem=problem)


def _clash(one: Plugin, other: Plugin) -> bool:
    """Two of a kind with one name, or two codecs with one code."""
    same_code = one.kind == "codec" and one.summary == other.summary != ""
    return one.kind == other.kind and (one.name == other.name or same_code)
