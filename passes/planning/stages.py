"""A model as a chain of stages, and the time of every stage.

A stage is what lies between two neighbouring legal cuts. The planner places whole stages, so every
plan that it returns is made of legal cuts. Times are estimated from the rates of a device, or taken
from a measured profile of the model.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from irsplit.base.errors import PlanError
from irsplit.dialects.base import OperatorClass
from irsplit.dialects.operator_classes import class_by_filter, class_of_name
from irsplit.ir import Node, TensorType, Value, uses_with_captures
from irsplit.passes.analysis.cut import estimated_bytes
from irsplit.passes.analysis.cuts import Cut, Schedule
from irsplit.passes.partition import parts_of
from irsplit.profiles import Device
from irsplit.profiles.measured import Load, ModelProfile

Macs = Callable[[Node], int]
"""Multiply-adds of one node."""
Summed = Callable[[Node, Callable[[Node], int]], int]
"""Cost of a node including its bodies and callees, given the cost of a plain node."""


@dataclass(frozen=True, slots=True)
class Stages:
    """A model as a chain of stages.

    Attributes:
        plan: The schedule whose runtime nodes the stages divide.
        cuts: Legal cuts in ascending order; `cuts[i]` ends stage i. Their positions count in
            `plan`, even for a cut that was found in another order of the graph.
        legal: All legal cuts of the model, including those of other orders.
    """

    plan: Schedule
    cuts: tuple[Cut, ...]
    legal: tuple[Cut, ...] = ()

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The nodes of every stage, as half-open ranges of positions in the schedule."""
        ends = [0, *(cut.position for cut in self.cuts), len(self.plan.nodes)]
        return list(pairwise(ends))


def chains(cuts: Sequence[Cut]) -> list[Stages]:
    """Arrange the legal cuts of a model as chains, each of cuts that nest.

    The first chain has the cuts of the graph's own order. Every other order in which cuts were
    found adds one chain: its own cuts, and the cuts of the graph's order that nest with them.

    Args:
        cuts: All positions of a model, as `Context.cuts` lists them.

    Returns:
        At least one chain.

    Raises:
        PlanError: No cut is legal, so there is nothing to plan.
    """
    legal = tuple(cut for cut in cuts if cut.legal)
    if not legal:
        reason = f"; the first position: {cuts[0].reason}" if cuts else ""
        raise PlanError(
            f"the model has no legal cut to choose from{reason}; allow more with --max-tensors"
        )

    # The graph's own order is the one without a name.
    plan = next(cut.order for cut in cuts if not cut.order.name)
    own = [cut for cut in legal if cut.order is plan]
    result = [Stages(plan, tuple(own), legal)] if own else []

    other_orders = dict.fromkeys(cut.order for cut in legal if cut.order is not plan)
    for order in other_orders:
        joined = _joined(plan, own, [cut for cut in legal if cut.order is order])
        result.append(replace(joined, legal=legal))
    return result


def _joined(plan: Schedule, own: Sequence[Cut], others: Sequence[Cut]) -> Stages:
    """Join the cuts of one other order with the cuts of the graph's own order that nest with them.

    Two cuts nest if one device side contains the other. The device side of a cut at position p of
    `plan` is its first p nodes. It does not nest with another device side if it has a node that the
    other lacks (p lies behind the first of these) and lacks one that the other has (p lies before
    the end of the last of these). Device sides grow from cut to cut, so both of these positions are
    tracked and never searched again.
    """
    position = {node: index for index, node in enumerate(plan.nodes)}
    on_device = bytearray(len(position))
    first_missing = behind_last = begun = 0
    not_nesting: set[int] = set()
    for cut in others:
        # The nodes that this cut adds to the device side of the one before.
        for node in cut.order.nodes[begun : cut.position]:
            on_device[position[node]] = 1
            behind_last = max(behind_last, position[node] + 1)
        begun = cut.position
        first_missing = on_device.find(0, first_missing)
        not_nesting.update(range(first_missing + 1, behind_last))

    # Where both orders have a cut at the same position, that of the other order is kept.
    not_nesting.update(cut.position for cut in others)
    nested = [cut for cut in own if cut.position not in not_nesting]
    chain = sorted([*others, *nested], key=lambda cut: cut.position)

    # Within a stage, nodes keep their order of `plan`.
    stage_of = parts_of(plan, chain)
    order = sorted(range(len(position)), key=lambda index: stage_of[plan.nodes[index]])
    return Stages(plan.reordered(order, others[0].order.name), tuple(chain))


def operator_class(node: Node) -> OperatorClass:
    """Which rate of a device applies to an operator, by its name and, for ONNX, by its shapes."""
    if node.op.startswith("onnx."):
        return class_by_filter(node)
    return class_of_name(node.op)


def moved_bytes(node: Node) -> int:
    """Bytes that a node reads and writes, weights included."""
    results = [value for value in node.outputs if value is not None]
    return estimated_bytes(uses_with_captures(node)) + estimated_bytes(results)


def working_bytes(nodes: Sequence[Node]) -> int:
    """Bytes of activations, not weights, that the largest of these nodes reads and writes."""
    largest = 0
    for node in nodes:
        values = [value for value in uses_with_captures(node) if value.constant is None]
        values += [value for value in node.outputs if value is not None]
        largest = max(largest, estimated_bytes(values))
    return largest


def estimated_times(
    stages: Stages, macs: Macs | None, devices: Sequence[Device], summed: Summed | None = None
) -> list[list[int]]:
    """Estimate the time of every stage on several devices from their rates.

    Args:
        stages: The stages to time.
        macs: Multiply-adds of a node; None if the dialect does not count them.
        devices: The devices whose rates apply.
        summed: The dialect's cost of nodes that contain graphs; see `estimated_ns`.

    Returns:
        One list per device, with the nanoseconds of every stage.
    """
    times: list[list[int]] = [[] for _ in devices]
    if not devices:
        return times
    for start, stop in stages.bounds:
        totals = estimated_ns(stages.plan.nodes[start:stop], macs, devices, summed)
        for column, total in zip(times, totals, strict=True):
            column.append(total)
    return times


def estimated_ns(
    nodes: Iterable[Node],
    macs: Macs | None,
    devices: Sequence[Device],
    summed: Summed | None = None,
) -> list[int]:
    """Estimate the time of some nodes on several devices from their rates.

    A node with multiply-adds takes their number divided by the rate of its operator class. Any
    other node takes the bytes that it moves divided by the memory rate.

    Args:
        nodes: The nodes, which run one after the other.
        macs: Multiply-adds of a node; None if the dialect does not count them.
        devices: The devices whose rates apply.
        summed: The dialect's cost of a node that contains graphs or calls them, from the cost of a
            plain node. Without it such a node is priced like a plain one.

    Returns:
        Total nanoseconds, one per device.
    """

    def work(node: Node) -> tuple[str, int, int]:
        return operator_class(node), macs(node) if macs else 0, moved_bytes(node)

    totals = [0] * len(devices)
    for node in nodes:
        # The node is looked at once, whatever the number of devices.
        own = work(node)
        contains_graphs = bool(node.graphs or node.callees)
        for index, device in enumerate(devices):
            if summed is not None and contains_graphs:
                totals[index] += summed(
                    node, lambda inner, rates=device: rates.time_ns(*work(inner))
                )
            else:
                totals[index] += device.time_ns(*own)
    return totals


def measured_times(stages: Stages, profile: ModelProfile, *, before: bool) -> list[int]:
    """The time of every stage from a measured profile of the model.

    Where the profile has prefixes or suffixes, a stage costs what it adds to them. These
    differences are smoothed so that no stage has a negative time, and up to that smoothing their
    sums are the measured prefixes and suffixes. A profile with neither gives the stages' own
    times.

    Args:
        stages: The stages of the model that the profile is of.
        profile: The measurement.
        before: True for the device, which runs prefixes; False for the server, which runs suffixes.

    Returns:
        Nanoseconds of every stage.

    Raises:
        PlanError: The profile is of another model or of other cuts, or has no times.
    """
    halves = halves_of(stages, profile, before=before)
    if not halves:
        if len(profile.stretches) != len(stages.bounds):
            raise PlanError(
                f"profile of {profile.model!r} holds no times; make it again with 'irsplit profile'"
            )
        return [load.wall_ns for load in profile.stretches]

    # Both kinds grow: prefixes from the first cut to the last, suffixes from the last to the first.
    growing = halves if before else halves[::-1]
    walls = rising([0, *(load.wall_ns for load in growing), profile.whole.wall_ns])
    added = [longer - shorter for shorter, longer in pairwise(walls)]
    return added if before else added[::-1]


def halves_of(stages: Stages, profile: ModelProfile, *, before: bool) -> list[Load]:
    """The loads of everything before, or after, each cut of the stages.

    Args:
        stages: The stages of the model that the profile is of.
        profile: The measurement.
        before: True for prefixes, False for suffixes.

    Returns:
        One load per cut; an empty list if the profile has no such loads.

    Raises:
        PlanError: The profile is of another model or of other cuts.
    """
    index = {id: number for number, id in enumerate(profile.cuts)}
    ids = [cut.id for cut in stages.cuts]
    if not index.keys() >= set(ids):
        raise PlanError(
            f"profile of {profile.model!r} ({len(profile.cuts)} cuts) does not fit this model with "
            f"{len(ids)} legal cuts; measure it again with 'irsplit profile' and the same "
            "--max-tensors and --rematerialise"
        )

    for cut in stages.cuts:
        sent = profile.prefixes[index[cut.id]].output_bytes if profile.prefixes else 0
        _check_boundary(cut, profile, sent)

    halves = profile.prefixes if before else profile.suffixes
    return [halves[index[id]] for id in ids] if halves else []


def _check_boundary(cut: Cut, profile: ModelProfile, sent_bytes: int) -> None:
    """Raise PlanError if the profile's cut of the same id sends something else.

    Weights are not compared: a model that was trained again still has the same times.
    """
    framed = [value for value in cut.boundary if _is_framable(value)]
    missing = None
    if profile.tensors:
        missing = next((value.name for value in framed if value.name not in profile.tensors), None)

    # A size is compared only where it is known and means the same in an engine and in a frame.
    size = cut.size_bytes()
    sizes_differ = bool(sent_bytes) and size is not None and size != sent_bytes
    if missing is not None:
        difference = f"it has no tensor {missing!r}"
    elif sizes_differ and all(map(_has_whole_bytes, framed)):
        difference = f"it sends {sent_bytes} bytes there, and this one {size}"
    else:
        return
    raise PlanError(
        f"profile of {profile.model!r} is of another model than this, by cut {cut.id}: "
        f"{difference}; measure this one with 'irsplit profile' and the same --max-tensors and "
        "--rematerialise"
    )


def _is_framable(value: Value) -> bool:
    """Whether a frame can carry the value."""
    return isinstance(value.type, TensorType) and value.type.dtype.framable


def _has_whole_bytes(value: Value) -> bool:
    """Whether an engine's array has as many bytes as the tensor; sub-byte elements differ."""
    return isinstance(value.type, TensorType) and value.type.dtype.bits % 8 == 0


def rising(values: Sequence[int]) -> list[int]:
    """The non-decreasing sequence that is nearest to `values` in squared distance.

    The algorithm is pool adjacent violators (Ayer et al. 1955): every value starts as a pool of its
    own, and a pool with a larger mean than the next one is merged with it until the means rise. The
    result has the mean of its pool at every place, rounded down. The first value is kept as it is
    and no later value may be below it.
    """
    first = values[0]
    pools: list[list[int]] = []  # total and count of each pool
    for value in values[1:]:
        pools.append([max(value, first), 1])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] > pools[-1][0] * pools[-2][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count

    result = [first]
    for total, count in pools:
        result += [total // count] * count
    return result
