"""The report's data: cuts with their cost terms, rejected positions and a block diagram of the model.

The page re-plans with these figures when its sliders move, so they are terms, not totals: times of every stretch on the
device and on the server at their given speeds, and the ways in which every tensor may cross.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from irsplit.dialects.base import Dialect
from irsplit.ir import Node, TensorType, Value
from irsplit.passes.analysis.cut import estimated_bytes
from irsplit.passes.analysis.cuts import Cut
from irsplit.passes.analysis.dims import unsized_note
from irsplit.passes.choose_cut import OBJECTIVES, ChooseCut
from irsplit.passes.planning.devices import default_server
from irsplit.passes.planning.ratios import Ratios
from irsplit.passes.planning.stages import Macs, Stages, chains
from irsplit.planner.cost import CostTable, CostTensor, TransferOption
from irsplit.profiles.measured import is_measured

FORMAT = "irsplit-report/3"
MOST_CUTS = 200
"""Of more legal cuts, those that no other one beats under any conditions are shown, and some between."""
REJECTED_LISTED = 500
OPERATORS_LISTED = 4
WIDTHS = (0, 8, 4)
"""Bits of float elements in the table of bytes; 0 leaves them as they are."""
Inputs = Mapping[str, Sequence[TransferOption]]
Sizes = dict[tuple[int, str], dict[str, int]]


def report_data(
    found: Sequence[Cut],
    dialect: Dialect,
    conditions: ChooseCut,
    title: str,
    *,
    inputs: Inputs | None = None,
    compiled: Sequence[Sequence[str]] = (),
    ratios: Ratios | None = None,
) -> dict[str, Any]:
    """Everything that the page shows, JSON-able; times in nanoseconds, sizes in bytes, powers in microwatts.

    `found` are all positions of the model, as `Context.cuts` lists them. `conditions` are device, server, link,
    objective and the boundary's codec and bits to begin with. `inputs` are sizes of real inputs by codec, for
    the baseline that sends them. `compiled` are the tensors that cross at each boundary of a bundle: of the chains of
    cuts that nest, the page has the one with these, or that of the graph's own order. `ratios` are those of the codecs
    on calibration inputs, in place of the published ones. Raises PlanError when the model has no legal cut.
    """
    wanted = {frozenset(names) for names in compiled}
    nested = chains(found)
    all_parts = max(nested, key=lambda parts: sum(_names(cut) in wanted for cut in parts.cuts))
    kept = all_parts.cuts if is_measured(conditions.device) else _thinned(all_parts.cuts, wanted)
    parts = replace(all_parts, cuts=kept)
    table = conditions.table(title, parts, dialect.macs, ratios, dialect.summed)
    sizes = _sizes(conditions, parts, ratios)
    tensors = _Tensors(table, parts, inputs or {}, sizes)
    cuts = [_cut(cut, index + 1, tensors) for index, cut in enumerate(parts.cuts)]
    rejected = [cut for cut in found if not cut.legal]
    link = table.link
    return {
        "format": FORMAT,
        "title": title,
        "dialect": dialect.name,
        "objective": OBJECTIVES.get(conditions.objective, conditions.objective),
        "device": _machine(conditions.device),
        "server": _machine(conditions.server)
        if conditions.server
        else _default_server(conditions.device),
        "codec": conditions.codec,
        "bits": conditions.bits,
        "open": "" if is_measured(conditions.device) else unsized_note(parts.plan.graph),
        "measured_ratios": ratios.to_json() if ratios else None,
        "link": {
            "name": link.name,
            "up_bit_s": link.up_goodput_bit_s,
            "down_bit_s": link.down_goodput_bit_s,
            "rtt_ns": link.rtt_ns,
            "up_uw": link.up_uw,
            "down_uw": link.down_uw,
            "tail_nj": link.tail_nj,
        },
        "message": asdict(table.message),
        "active_uw": table.active_uw,
        "idle_uw": table.idle_uw,
        "load_percent": table.server_load_percent,
        "groups": _groups(table, parts, dialect.macs),
        "codings": [{"bits": bits, "codec": codec} for bits, codec in sizes],
        "tensors": tensors.described,
        "cuts": cuts,
        "legal_count": len(all_parts.cuts),
        "compiled": [cut.id for cut in parts.cuts if _names(cut) in wanted],
        "compiled_tensors": [list(names) for names in compiled],
        "rejected": _rejected(rejected[:REJECTED_LISTED]),
        "rejected_count": len(rejected),
    }


def _sizes(conditions: ChooseCut, parts: Stages, ratios: Ratios | None) -> Sizes:
    """What every tensor that may cross takes in every width and codec; measured in the width of the ratios."""
    found: Sizes = {}
    for bits in WIDTHS:
        for name, ways in (
            replace(conditions, codec="auto", bits=bits).codings(parts, ratios).items()
        ):
            for way in ways:
                found.setdefault((bits, way.codec), {})[name] = way.size_bytes
    return found


def _thinned(cuts: Sequence[Cut], wanted: set[frozenset[str]]) -> tuple[Cut, ...]:
    """Cuts that may be best: an earlier cut with fewer bytes beats one where the server is the faster machine, a later
    one where the device is. The rest are evenly spaced."""
    if len(cuts) <= MOST_CUTS:
        return tuple(cuts)
    kept = {cut for cut in cuts if _names(cut) in wanted} | {*_falling(cuts), *_falling(cuts[::-1])}
    step = -(-len(cuts) // max(1, MOST_CUTS - len(kept)))
    kept.update(cuts[::step])
    return tuple(cut for cut in cuts if cut in kept)


def _falling(cuts: Iterable[Cut]) -> list[Cut]:
    """The cuts that send less than all before them."""
    found: list[Cut] = []
    least: float = float("inf")
    for cut in cuts:
        if cut.estimated_bytes < least:
            least = cut.estimated_bytes
            found.append(cut)
    return found


def _names(cut: Cut) -> frozenset[str]:
    return frozenset(value.name for value in cut.boundary)


def _machine(text: str) -> str:
    """A profile without the folder in which it lies."""
    name, comma, changes = text.partition(",")
    return Path(name).name + comma + changes


def _default_server(device: str) -> str:
    default = default_server(device)
    return "the same machine" if is_measured(default) else default


def _groups(table: CostTable, parts: Stages, macs: Macs) -> list[dict[str, Any]]:
    described: list[dict[str, Any]] = []
    for group, (start, stop) in zip(table.stages, parts.bounds, strict=True):
        nodes = parts.plan.nodes[start:stop]
        operators = Counter(node.op.rpartition(".")[2] for node in nodes)
        described.append(
            {
                "nodes": len(nodes),
                "operators": [
                    [name, count] for name, count in operators.most_common(OPERATORS_LISTED)
                ],
                "kinds": len(operators),
                "macs": sum(map(macs, nodes)),
                "device_ns": group.device_ns,
                "server_ns": group.server_ns,
                "device_nj": group.device_nj,
                "weight_bytes": group.weight_bytes,
                "working_bytes": group.working_bytes,
            }
        )
    return described


class _Tensors:
    """Tensors as the page wants them, numbered; what only a cut's boundary names joins them when it is asked for."""

    def __init__(self, table: CostTable, parts: Stages, inputs: Inputs, sizes: Sizes) -> None:
        self._sizes = sizes
        self.described: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}
        values = {value.name: value for value in parts.plan.inputs}
        for node in parts.plan.nodes:
            values.update((value.name, value) for value in node.outputs if value is not None)
        for tensor in table.tensors:
            self._add(
                tensor,
                values[tensor.name],
                inputs.get(tensor.name, ()) if tensor.producer is None else (),
            )

    def numbers(self, values: Sequence[Value]) -> list[int]:
        for value in values:
            if value.name not in self._numbers:
                self._add(
                    CostTensor(
                        value.name, None, (), (TransferOption("raw", estimated_bytes([value])),), ()
                    ),
                    value,
                    (),
                )
        return [self._numbers[value.name] for value in values]

    def _add(self, tensor: CostTensor, value: Value, coded: Sequence[TransferOption]) -> None:
        self._numbers[tensor.name] = len(self.described)
        given = {way.codec: way.size_bytes for way in coded}
        ways = [replace(way, size_bytes=given.pop(way.codec, way.size_bytes)) for way in tensor.up]
        pictures = [*tensor.preview, *(way for way in coded if way.codec in given)]
        self.described.append(
            {
                "name": tensor.name,
                "type": _type(value),
                "raw_bytes": estimated_bytes([value]),
                "sizes": [sizes.get(value.name) for sizes in self._sizes.values()],
                "input": tensor.producer is None and bool(tensor.consumers),
                "producer": tensor.producer,
                "output": tensor.output,
                "ways": [[way.codec, way.size_bytes, way.encode_ns, way.decode_ns] for way in ways],
                "preview": [
                    [way.codec, way.size_bytes, way.encode_ns, way.decode_ns] for way in pictures
                ],
            }
        )


def _cut(cut: Cut, groups: int, tensors: _Tensors) -> dict[str, Any]:
    return {
        "id": cut.id,
        "groups": groups,
        "kind": cut.kind,
        "after": _called(cut.after),
        "sends": tensors.numbers(cut.boundary),
        "forwards": [value.name for value in cut.forwards],
        "early_outputs": [value.name for value in cut.early_outputs],
    }


def _rejected(cuts: Iterable[Cut]) -> list[dict[str, Any]]:
    """Positions by why they are rejected: those inside of one branch share their fork and join."""
    groups: dict[str, list[list[str]]] = {}
    for cut in cuts:
        reason = str(cut.reason)
        own, _, shared = reason.partition("; its branch ")
        why = f"a branch {shared.partition(' (')[0]}" if shared else reason
        groups.setdefault(why, []).append([cut.id, _called(cut.after), own if shared else ""])
    return [{"why": why, "positions": positions} for why, positions in groups.items()]


def _called(node: Node) -> str:
    return node.name or next((value.name for value in node.outputs if value is not None), node.op)


def _type(value: Value) -> str:
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        return "?"
    shape = value.type.assumed or value.type.shape
    return f"{value.type.dtype}[{','.join('?' if dim is None else str(dim) for dim in shape)}]"
