"""A model as a chain of stretches, the parts between neighbouring legal cuts, priced as a cost table.

The planner then moves whole stretches, so that whatever it chooses is a legal cut.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from irsplit.base.errors import PlanError
from irsplit.dialects.base import OperatorClass
from irsplit.dialects.operator_classes import class_by_filter, class_of_name
from irsplit.ir import Node, TensorType, Value, uses_with_captures
from irsplit.passes.analysis.cut import estimated_bytes
from irsplit.passes.analysis.cuts import Cut, Schedule
from irsplit.passes.partition import parts_of
from irsplit.planner.cost import CostTable, CostTensor, StageCost, TransferOption
from irsplit.profiles import NO_MESSAGE, Device, Link, Message
from irsplit.profiles.measured import Load, MeasuredTransfer, ModelProfile

Macs = Callable[[Node], int]
Summed = Callable[[Node, Callable[[Node], int]], int]


@dataclass(frozen=True, slots=True)
class Stages:
    """The runtime nodes of a schedule and legal cuts between them, ascending: `cuts[i]` ends stretch i.

    The cuts are positions of `plan`, whichever order they were found in.
    """

    plan: Schedule
    cuts: tuple[Cut, ...]
    legal: tuple[Cut, ...] = ()
    """All legal cuts of the model, those of other orders too."""

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First and last node of every stretch, as half-open ranges of the schedule."""
        ends = [0, *(cut.position for cut in self.cuts), len(self.plan.nodes)]
        return list(pairwise(ends))


def chains(cuts: Sequence[Cut]) -> list[Stages]:
    """The legal cuts as chains: those of the graph's own order first, then for each other order that shows some its
    cuts, with those of the own order that nest with them.

    Raises PlanError when no cut is legal, so that there is nothing to plan.
    """
    legal = tuple(cut for cut in cuts if cut.legal)
    if not legal:
        reason = f"; the first position: {cuts[0].reason}" if cuts else ""
        raise PlanError(
            f"the model has no legal cut to choose from{reason}; allow more with --max-tensors"
        )
    plan = next(cut.order for cut in cuts if not cut.order.name)
    own = [cut for cut in legal if cut.order is plan]
    found = [Stages(plan, tuple(own), legal)] if own else []
    for order in dict.fromkeys(cut.order for cut in legal if cut.order is not plan):
        joined = _joined(plan, own, [cut for cut in legal if cut.order is order])
        found.append(replace(joined, legal=legal))
    return found


def _joined(plan: Schedule, own: Sequence[Cut], others: Sequence[Cut]) -> Stages:
    """The `others`, cuts of one other order, and those of the `own` ones that nest with all of them, as one chain."""
    place = {node: index for index, node in enumerate(plan.nodes)}
    near = bytearray(len(place))
    first_far = behind_near = begun = 0
    between: set[int] = set()
    """Positions of `plan` that hold some of the near side of one of the others, but not all, or something else."""
    for cut in others:
        for node in cut.order.nodes[begun : cut.position]:
            near[place[node]] = 1
            behind_near = max(behind_near, place[node] + 1)
        begun = cut.position
        first_far = near.find(0, first_far)
        between.update(range(first_far + 1, behind_near))
    taken = {cut.position for cut in others}
    nested = [cut for cut in own if cut.position not in between and cut.position not in taken]
    chain = sorted([*others, *nested], key=lambda cut: cut.position)
    parts = parts_of(plan, chain)
    order = sorted(range(len(place)), key=lambda index: parts[plan.nodes[index]])
    return Stages(plan.reordered(order, others[0].order.name), tuple(chain))


def operator_class(node: Node) -> OperatorClass:
    """Which rate of a device applies to an operator, by its name and, for ONNX, by its shapes."""
    if node.op.startswith("onnx."):
        return class_by_filter(node)
    return class_of_name(node.op)


def moved_bytes(node: Node) -> int:
    """Bytes that a node reads and writes, weights included."""
    return estimated_bytes(uses_with_captures(node)) + estimated_bytes(
        v for v in node.outputs if v is not None
    )


def working_bytes(nodes: Sequence[Node]) -> int:
    """The largest step of some nodes: activations read and written by one of them."""
    steps = [
        estimated_bytes(v for v in uses_with_captures(node) if v.constant is None)
        + estimated_bytes(v for v in node.outputs if v is not None)
        for node in nodes
    ]
    return max(steps, default=0)


def estimated(
    parts: Stages, macs: Macs | None, devices: Sequence[Device], summed: Summed | None = None
) -> list[list[int]]:
    """Time of every stretch on each of the devices, from their rates."""
    nodes = parts.plan.nodes
    times = (
        [estimated_ns(nodes[start:stop], macs, devices, summed) for start, stop in parts.bounds]
        if devices
        else []
    )
    return [[*column] for column in zip(*times, strict=True)]


def estimated_ns(
    nodes: Iterable[Node],
    macs: Macs | None,
    devices: Sequence[Device],
    summed: Summed | None = None,
) -> list[int]:
    """Time of some nodes on each of the devices: by operator class, for multiply-adds where there are some, for bytes
    moved otherwise.

    With `summed`, what the dialect knows of bodies and called graphs, the nodes inside are priced in place of theirs.
    """

    def work(node: Node) -> tuple[str, int, int]:
        return operator_class(node), macs(node) if macs else 0, moved_bytes(node)

    totals = [0] * len(devices)
    for node in nodes:
        own = work(node)
        for index, device in enumerate(devices):
            if summed is not None and (node.graphs or node.callees):
                totals[index] += summed(
                    node, lambda inner, rates=device: rates.time_ns(*work(inner))
                )
            else:
                totals[index] += device.time_ns(*own)
    return totals


def measured(parts: Stages, profile: ModelProfile, *, before: bool) -> list[int]:
    """Time of every stretch from a measured profile.

    With prefixes (`before`: what runs on the device) or suffixes (on the server) a stretch costs what it adds to
    them, smoothed so that no part has a negative time; sums then are the measured halves. Otherwise the stretches'
    own times. Raises PlanError when the profile is of another model or of other cuts.
    """
    halves = halves_of(parts, profile, before=before)
    if not halves:
        if len(profile.stretches) != len(parts.bounds):
            raise PlanError(
                f"profile of {profile.model!r} holds no times; make it again with 'irsplit profile'"
            )
        return [load.wall_ns for load in profile.stretches]
    walls = [0, *(half.wall_ns for half in halves), profile.whole.wall_ns] if before else []
    walls = walls or [0, *(half.wall_ns for half in reversed(halves)), profile.whole.wall_ns]
    smooth = _rising(walls)
    gains = [after - now for now, after in pairwise(smooth)]
    return gains if before else gains[::-1]


def halves_of(parts: Stages, profile: ModelProfile, *, before: bool) -> list[Load]:
    """The profile's prefixes or suffixes of these cuts; none when it has none. Raises PlanError as `measured` does."""
    index = {id: number for number, id in enumerate(profile.cuts)}
    ids = [cut.id for cut in parts.cuts]
    if not index.keys() >= set(ids):
        raise PlanError(
            f"profile of {profile.model!r} ({len(profile.cuts)} cuts) does not fit this model with {len(ids)} legal "
            "cuts; measure it again with 'irsplit profile' and the same --max-tensors and --rematerialise"
        )
    for cut in parts.cuts:
        _check_boundary(
            cut, profile, profile.prefixes[index[cut.id]].output_bytes if profile.prefixes else 0
        )
    halves = profile.prefixes if before else profile.suffixes
    return [halves[index[id]] for id in ids] if halves else []


def _check_boundary(cut: Cut, profile: ModelProfile, sent_bytes: int) -> None:
    """Raise PlanError when the profile is of another model, whose cut of the same id sends something else.

    Weights are not looked at: a model that was trained again has the same times.
    """
    framed = [
        value
        for value in cut.boundary
        if isinstance(value.type, TensorType) and value.type.dtype.framable
    ]
    missing = next(
        (value.name for value in framed if profile.tensors and value.name not in profile.tensors),
        None,
    )
    size = cut.size_bytes()
    why = f"it has no tensor {missing!r}" if missing is not None else ""
    if (
        not why
        and sent_bytes
        and size is not None
        and size != sent_bytes
        and all(map(_has_bytes, framed))
    ):
        why = f"it sends {sent_bytes} bytes there, and this one {size}"
    if why:
        raise PlanError(
            f"profile of {profile.model!r} is of another model than this, by cut {cut.id}: {why}; measure this one "
            "with 'irsplit profile' and the same --max-tensors and --rematerialise"
        )


def _has_bytes(value: Value) -> bool:
    """Whether an engine's array of this tensor has as many bytes as the tensor: elements of fewer bits do not."""
    return isinstance(value.type, TensorType) and value.type.dtype.bits % 8 == 0


def _rising(values: Sequence[int]) -> list[int]:
    """The nearest sequence in squares that never falls (pool adjacent violators); the first value stays."""
    pools: list[list[int]] = []
    for value in values[1:]:
        pools.append([max(value, values[0]), 1])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] > pools[-1][0] * pools[-2][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    return [values[0], *(total // count for total, count in pools for _ in range(count))]


def cost_table(
    name: str,
    parts: Stages,
    device_ns: Sequence[int],
    server_ns: Sequence[int],
    link: Link,
    *,
    device: Device | None = None,
    codings: Mapping[str, tuple[MeasuredTransfer, ...]] | None = None,
    previews: Mapping[str, tuple[MeasuredTransfer, ...]] | None = None,
    peaks: Sequence[Load] = (),
    message: Message = NO_MESSAGE,
) -> CostTable:
    """The chain of stretches with its tensors; `codings` are the ways to send a tensor; without any it travels raw.

    Device memory is the weights so far plus the largest working set; measured peaks of prefixes replace both.
    """
    watts = (device.active_uw, device.idle_uw) if device is not None else (0, 0)
    weights = [0, *(cut.weight_bytes for cut in parts.cuts), _all_weights(parts)]
    memory = _rising([0, *(load.peak_bytes for load in peaks)]) if peaks else None
    groups: list[StageCost] = []
    for index, (start, stop) in enumerate(parts.bounds):
        held = weights[index + 1] - weights[index]
        working = working_bytes(parts.plan.nodes[start:stop])
        if memory is not None:
            last = index + 1 < len(memory)
            held, working = (memory[index + 1] - memory[index] if last else held), 0
        spent = watts[0] * device_ns[index] // 10**6
        groups.append(
            StageCost(
                f"{start}..{stop - 1}", device_ns[index], server_ns[index], spent, held, working
            )
        )
    tensors = _tensors(parts, codings or {}, previews or {})
    return CostTable(name, tuple(groups), tensors, link, *watts, message=message)


def _all_weights(parts: Stages) -> int:
    """Bytes of the constants of the whole model that runtime nodes read: the last cut's, and what its far side adds."""
    seen: set[Value] = set()
    total = 0
    for node in parts.plan.nodes[parts.cuts[-1].position :]:
        for value in uses_with_captures(node):
            if value.constant is not None and value not in seen:
                seen.add(value)
                total += value.constant.length
    return parts.cuts[-1].weight_bytes + total


def _tensors(
    parts: Stages,
    codings: Mapping[str, tuple[MeasuredTransfer, ...]],
    previews: Mapping[str, tuple[MeasuredTransfer, ...]],
) -> tuple[CostTensor, ...]:
    """Every value that a stretch gives to a later one or to the caller.

    What crosses a cut is its boundary. A value that is recomputed beyond some cut is made, for the planner, in the
    first stretch whose end it crosses, and read last in the one behind the last cut that it crosses.
    """
    plan = parts.plan
    stretch = [
        index for index, (start, stop) in enumerate(parts.bounds) for _ in range(start, stop)
    ]
    crossed: dict[Value, list[int]] = {}
    for index, cut in enumerate(parts.cuts):
        for value in cut.boundary:
            crossed.setdefault(value, []).append(index)
    made: dict[Value, int | None] = dict.fromkeys(plan.inputs)
    readers: dict[Value, dict[int, None]] = {}
    for index, (node, read) in enumerate(zip(plan.nodes, plan.reads, strict=True)):
        for value in read:
            readers.setdefault(value, {})[stretch[index]] = None
        made.update((value, stretch[index]) for value in node.outputs if value is not None)
    outputs = set(plan.graph.outputs)
    tensors: list[CostTensor] = []
    for value, maker in made.items():
        crosses = crossed.get(value)
        producer = maker if maker is None or crosses is None or value in outputs else crosses[0]
        consumers = _consumers(producer, readers.get(value, {}), crosses)
        output = value in outputs and producer is not None
        if not consumers and not output:
            continue
        ways = _ways(value, codings.get(value.name, ()))
        preview = _coded(previews.get(value.name, ())) if producer is None else ()
        back = ways or (_as_it_is(value) if output else ())
        tensors.append(CostTensor(value.name, producer, consumers, ways, back, output, preview))
    return tuple(tensors)


def _consumers(
    producer: int | None, readers: Iterable[int], crosses: Sequence[int] | None
) -> tuple[int, ...]:
    """The stretches that need the value sent, ascending, when it crosses the ends of the stretches `crosses`."""
    if producer is None:
        return tuple(sorted({*readers, *(() if crosses is None else (crosses[-1] + 1,))}))
    if crosses is None:
        return ()
    last = crosses[-1] + 1
    return tuple(sorted({last, *(reader for reader in readers if producer < reader < last)}))


def _ways(value: Value, codings: Sequence[MeasuredTransfer]) -> tuple[TransferOption, ...]:
    if (
        not isinstance(value.type, TensorType)
        or not value.type.dtype.framable
        or value.type.shape is None
    ):
        return ()
    return _coded(codings) or (TransferOption("raw", estimated_bytes([value])),)


def _as_it_is(value: Value) -> tuple[TransferOption, ...]:
    """Results return without a frame, whatever is known of their shapes; nothing is what an unknown one counts."""
    return (
        (TransferOption("raw", estimated_bytes([value])),)
        if isinstance(value.type, TensorType)
        else ()
    )


def _coded(codings: Sequence[MeasuredTransfer]) -> tuple[TransferOption, ...]:
    return tuple(TransferOption(c.codec, c.size_bytes, c.encode_ns, c.decode_ns) for c in codings)
