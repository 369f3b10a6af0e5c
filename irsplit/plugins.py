"""What is installed (passes, dialects, codecs, engines, policies, measures), and what is wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import EntryPoint
from typing import Any

from irsplit.base.entry_points import entry_points
from irsplit.base.errors import VERSION
from irsplit.codec_training.agreement import measures
from irsplit.dialects import registry as dialects
from irsplit.passes import pipeline as passes
from irsplit.passes.planning import policies
from irsplit.runtime.frame import codec_plugins
from irsplit.runtime.frame.descriptor import CODECS
from irsplit.runtime.run import engines

GROUPS = {
    passes.ENTRY_POINTS: "pass",
    dialects.ENTRY_POINTS: "dialect",
    codec_plugins.ENTRY_POINTS: "codec",
    measures.ENTRY_POINTS: "measure",
    engines.ENTRY_POINTS: "engine",
    policies.ENTRY_POINTS: "policy",
}
"""Kinds of plugins by the group of their entry points."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """Something that is installed under a name."""

    kind: str
    name: str
    origin: str
    """Distribution and version."""
    value: str
    """Where the object lies: the module, or the value of the entry point."""
    summary: str
    problem: str | None = None
    """Why it cannot be used; None when it can."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def plugins() -> list[Plugin]:
    """Everything that is installed, ours and that of other packages, by kind and name."""
    installed: list[Plugin] = []
    for name, code in CODECS.items():
        summary = f"frame codec {code}"
        installed.append(Plugin("codec", name, f"irsplit {VERSION}", "irsplit.runtime", summary))
    for name, text in measures.BUILT_IN.items():
        module = "irsplit.codec_training.agreement"
        installed.append(Plugin("measure", name, f"irsplit {VERSION}", module, text))
    for group in GROUPS:
        installed += [_described(point) for point in entry_points(group)]

    checked = _with_conflicts(installed)
    return sorted(checked, key=lambda plugin: (plugin.kind, plugin.name, plugin.origin))


def _described(point: EntryPoint) -> Plugin:
    """A plugin by its entry point, which is loaded to see whether that works."""
    kind = GROUPS[point.group]
    origin = "unknown" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    # Whatever a foreign module does when it is imported must not hide the others from the list.
    try:
        loaded: Any = point.load()
    except Exception as error:
        problem = f"cannot be loaded: {type(error).__name__}: {error}"
        return Plugin(kind, point.name, origin, point.value, "", problem)

    name = getattr(loaded, "name", point.name)
    problem = None if name == point.name else f"calls itself '{name}'; name the entry point so"
    return Plugin(kind, point.name, origin, point.value, _summary(loaded, kind), problem)


def _summary(loaded: Any, kind: str) -> str:
    """What a plugin says of itself, on one line."""
    if kind == "codec":
        return f"frame codec {getattr(loaded, 'code', '?')}"
    return next(iter((loaded.__doc__ or "").strip().splitlines()), "")


def _with_conflicts(installed: Sequence[Plugin]) -> Iterator[Plugin]:
    """The plugins, those that get in the way of another one with a problem."""
    for plugin in installed:
        rivals = [other for other in installed if other is not plugin and _clash(plugin, other)]
        if plugin.problem is None and rivals:
            names = " and ".join(f"'{other.name}' of {other.origin}" for other in rivals)
            yield replace(plugin, problem=f"conflicts with {names}; uninstall one")
        else:
            yield plugin


def _clash(one: Plugin, other: Plugin) -> bool:
    """Whether two plugins are of one kind and share a name, or share the code of a codec."""
    if one.kind != other.kind:
        return False
    same_code = one.kind == "codec" and one.summary == other.summary != ""
    return one.name == other.name or same_code
