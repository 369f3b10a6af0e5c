"""The report's data: cuts with their cost terms, rejected positions, a diagram of the model.

The page plans again with these figures when its sliders move, so they are terms and not totals: the
times of every stage on the device and on the server at the speeds that their profiles say, and the
transfer options of every tensor.
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
"""Cuts that are shown at most, but for those that may be best; see `_thinned`."""
REJECTED_LISTED = 500
OPERATORS_LISTED = 4
WIDTHS = (0, 8, 4)
"""Bits of float elements in the table of bytes; 0 leaves them as they are."""
Inputs = Mapping[str, Sequence[TransferOption]]
Sizes = dict[tuple[int, str], dict[str, int]]
"""Bytes of tensors by name, for each width and codec."""


def report_data(
    positions: Sequence[Cut],
    dialect: Dialect,
    conditions: ChooseCut,
    title: str,
    *,
    inputs: Inputs | None = None,
    compiled: Sequence[Sequence[str]] = (),
    ratios: Ratios | None = None,
) -> dict[str, Any]:
    """Everything that the page shows, ready for JSON.

    Times are in nanoseconds, sizes in bytes, powers in microwatts.

    Args:
        positions: All positions of the model, as `Context.cuts` lists them.
        dialect: The model's format.
        conditions: Device, server, link, objective, and the boundary's codec and bits to begin
            with.
        title: Heading of the page.
        inputs: Transfer options of real inputs, for the baseline that sends them.
        compiled: Names of the tensors that cross at each boundary of a bundle. Of several chains of
            cuts that nest, the page shows the one with most of these, or else that of the graph's
            own order.
        ratios: Ratios of the codecs on calibration inputs, in place of the published ones.

    Raises:
        PlanError: The model has no legal cut.
    """
    boundaries = {frozenset(names) for names in compiled}
    whole_chain = max(
        chains(positions),
        key=lambda stages: sum(_names(cut) in boundaries for cut in stages.cuts),
    )
    measured = is_measured(conditions.device)
    cuts = whole_chain.cuts if measured else _thinned(whole_chain.cuts, boundaries)
    stages = replace(whole_chain, cuts=cuts)

    table = conditions.table(title, stages, dialect.macs, ratios, dialect.summed)
    sizes = _sizes(conditions, stages, ratios)
    tensors = _Tensors(table, stages, inputs or {}, sizes)
    described_cuts = [_described_cut(cut, index + 1, tensors) for index, cut in enumerate(cuts)]
    rejected = [cut for cut in positions if not cut.legal]
    link = table.link

    return {
        "format": FORMAT,
        "title": title,
        "dialect": dialect.name,
        "objective": OBJECTIVES.get(conditions.objective, conditions.objective),
        "device": _profile_name(conditions.device),
        "server": _server_name(conditions),
        "codec": conditions.codec,
        "bits": conditions.bits,
        "open": "" if measured else unsized_note(stages.plan.graph),
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
        "groups": _described_stages(table, stages, dialect.macs),
        "codings": [{"bits": bits, "codec": codec} for bits, codec in sizes],
        "tensors": tensors.described,
        "cuts": described_cuts,
        "legal_count": len(whole_chain.cuts),
        "compiled": [cut.id for cut in cuts if _names(cut) in boundaries],
        "compiled_tensors": [list(names) for names in compiled],
        "rejected": _described_rejections(rejected[:REJECTED_LISTED]),
        "rejected_count": len(rejected),
    }


def _sizes(conditions: ChooseCut, stages: Stages, ratios: Ratios | None) -> Sizes:
    """Bytes of every tensor that may cross, in every width and codec.

    Sizes in the width of the `ratios` are measured ones.
    """
    sizes: Sizes = {}
    for bits in WIDTHS:
        at_width = replace(conditions, codec="auto", bits=bits)
        for name, options in at_width.codings(stages, ratios).items():
            for option in options:
                sizes.setdefault((bits, option.codec), {})[name] = option.size_bytes

    return sizes


def _thinned(cuts: Sequence[Cut], boundaries: set[frozenset[str]]) -> tuple[Cut, ...]:
    """Of many cuts, those of the bundle, those that may be best, and some between.

    An earlier cut that sends fewer bytes beats a later one if the server is the faster device, and
    the other way round if the device is. So the cuts that may be best are those that send less than
    all cuts before them, or less than all cuts behind them.
    """
    if len(cuts) <= MOST_CUTS:
        return tuple(cuts)

    kept = {cut for cut in cuts if _names(cut) in boundaries}
    kept.update(_falling(cuts))
    kept.update(_falling(cuts[::-1]))

    # Fill up with evenly spaced ones, to about the limit.
    step = -(-len(cuts) // max(1, MOST_CUTS - len(kept)))
    kept.update(cuts[::step])
    return tuple(cut for cut in cuts if cut in kept)


def _falling(cuts: Iterable[Cut]) -> list[Cut]:
    """The cuts that send less than all before them."""
    falling: list[Cut] = []
    least: float = float("inf")
    for cut in cuts:
        if cut.estimated_bytes < least:
            least = cut.estimated_bytes
            falling.append(cut)

    return falling


def _names(cut: Cut) -> frozenset[str]:
    return frozenset(value.name for value in cut.boundary)


def _profile_name(text: str) -> str:
    """A profile's name with its changes, without the folder in which its file lies."""
    name, comma, changes = text.partition(",")
    return Path(name).name + comma + changes


def _server_name(conditions: ChooseCut) -> str:
    """The server's profile; a measured device is compared with itself by default."""
    if conditions.server:
        return _profile_name(conditions.server)

    default = default_server(conditions.device)
    return "the same machine" if is_measured(default) else default


def _described_stages(table: CostTable, stages: Stages, macs: Macs) -> list[dict[str, Any]]:
    """The blocks of the diagram."""
    described: list[dict[str, Any]] = []
    for cost, (start, stop) in zip(table.stages, stages.bounds, strict=True):
        nodes = stages.plan.nodes[start:stop]
        operators = Counter(node.op.rpartition(".")[2] for node in nodes)
        listed = [[name, count] for name, count in operators.most_common(OPERATORS_LISTED)]
        described.append(
            {
                "nodes": len(nodes),
                "operators": listed,
                "kinds": len(operators),
                "macs": sum(map(macs, nodes)),
                "device_ns": cost.device_ns,
                "server_ns": cost.server_ns,
                "device_nj": cost.device_nj,
                "weight_bytes": cost.weight_bytes,
                "working_bytes": cost.working_bytes,
            }
        )

    return described


class _Tensors:
    """The tensors of the page, each with a number.

    It begins with the tensors of the cost table. A tensor that only the boundary of a cut names is
    added when its number is asked for.
    """

    def __init__(self, table: CostTable, stages: Stages, inputs: Inputs, sizes: Sizes) -> None:
        self._sizes = sizes
        self.described: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}

        values = {value.name: value for value in stages.plan.inputs}
        for node in stages.plan.nodes:
            values.update((value.name, value) for value in node.outputs if value is not None)
        for tensor in table.tensors:
            measured = inputs.get(tensor.name, ()) if tensor.producer is None else ()
            self._add(tensor, values[tensor.name], measured)

    def numbers(self, values: Sequence[Value]) -> list[int]:
        """The numbers of some tensors."""
        for value in values:
            if value.name not in self._numbers:
                raw = TransferOption("raw", estimated_bytes([value]))
                self._add(CostTensor(value.name, None, (), (raw,), ()), value, ())

        return [self._numbers[value.name] for value in values]

    def _add(self, tensor: CostTensor, value: Value, measured: Sequence[TransferOption]) -> None:
        """Describe a tensor, with the sizes that its real contents take where they are known."""
        self._numbers[tensor.name] = len(self.described)
        measured_bytes = {option.codec: option.size_bytes for option in measured}
        options = [
            replace(option, size_bytes=measured_bytes.get(option.codec, option.size_bytes))
            for option in tensor.up
        ]

        # What was measured with other codecs is a picture of the tensor, which changes it.
        codecs = {option.codec for option in tensor.up}
        pictures = [*tensor.preview, *(other for other in measured if other.codec not in codecs)]
        self.described.append(
            {
                "name": tensor.name,
                "type": _type(value),
                "raw_bytes": estimated_bytes([value]),
                "sizes": [sizes.get(value.name) for sizes in self._sizes.values()],
                "input": tensor.producer is None and bool(tensor.consumers),
                "producer": tensor.producer,
                "output": tensor.output,
                "ways": _described_options(options),
                "preview": _described_options(pictures),
            }
        )


def _described_options(options: Iterable[TransferOption]) -> list[list[str | int]]:
    return [
        [option.codec, option.size_bytes, option.encode_ns, option.decode_ns] for option in options
    ]


def _described_cut(cut: Cut, stages: int, tensors: _Tensors) -> dict[str, Any]:
    """A cut behind so many stages."""
    return {
        "id": cut.id,
        "groups": stages,
        "kind": cut.kind,
        "after": _node_name(cut.after),
        "sends": tensors.numbers(cut.boundary),
        "forwards": [value.name for value in cut.forwards],
        "early_outputs": [value.name for value in cut.early_outputs],
    }


def _described_rejections(cuts: Iterable[Cut]) -> list[dict[str, Any]]:
    """Rejected positions by their reason.

    Positions within one branch share its fork and join, so they are listed under the branch, each
    with the rest of its own reason.
    """
    by_reason: dict[str, list[list[str]]] = {}
    for cut in cuts:
        reason, detail = str(cut.reason), ""
        own, separator, branch = reason.partition("; its branch ")
        if separator:
            reason, detail = f"a branch {branch.partition(' (')[0]}", own
        by_reason.setdefault(reason, []).append([cut.id, _node_name(cut.after), detail])

    return [{"why": reason, "positions": listed} for reason, listed in by_reason.items()]


def _node_name(node: Node) -> str:
    """A node's name, or else that of its first result, or its operator."""
    if node.name:
        return node.name

    return next((value.name for value in node.outputs if value is not None), node.op)


def _type(value: Value) -> str:
    """A value's type as text, "?" where it is not known."""
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        return "?"

    shape = value.type.assumed or value.type.shape
    dims = ["?" if dim is None else str(dim) for dim in shape]
    return f"{value.type.dtype}[{','.join(dims)}]"
