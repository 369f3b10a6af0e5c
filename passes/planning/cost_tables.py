"""Price a chain of stages as a cost table for the planner."""

from collections.abc import Iterable, Sequence

from irsplit.ir import TensorType, Value, uses_with_captures
from irsplit.passes.analysis.cut import estimated_bytes
from irsplit.passes.planning.prices import OptionsByTensor
from irsplit.passes.planning.stages import Stages, rising, working_bytes
from irsplit.planner.cost import CostTable, CostTensor, StageCost, TransferOption
from irsplit.profiles import NO_MESSAGE, Device, Link, Message
from irsplit.profiles.measured import Load, MeasuredTransfer


def cost_table(
    name: str,
    stages: Stages,
    device_ns: Sequence[int],
    server_ns: Sequence[int],
    link: Link,
    *,
    device: Device | None = None,
    options: OptionsByTensor | None = None,
    previews: OptionsByTensor | None = None,
    peaks: Sequence[Load] = (),
    message: Message = NO_MESSAGE,
) -> CostTable:
    """Price a chain of stages and the tensors that they exchange.

    Args:
        name: The name of the table, for messages.
        stages: The chain.
        device_ns: Nanoseconds of every stage on the device.
        server_ns: Nanoseconds of every stage on the server.
        link: The link between them.
        device: The device whose powers price energy; None leaves computing without energy.
        options: Transfer options by tensor name; a tensor without any is sent raw.
        previews: Lossy transfer options of graph inputs, for a baseline only.
        peaks: Measured prefixes, one per cut. Their peak memory replaces the estimate, which is the
            weights so far plus the largest working set.
        message: The fixed cost of a round trip.

    Returns:
        The table, with one entry per stage.
    """
    active_uw, idle_uw = (device.active_uw, device.idle_uw) if device is not None else (0, 0)
    weights = [0, *(cut.weight_bytes for cut in stages.cuts), _all_weights(stages)]
    memory = rising([0, *(load.peak_bytes for load in peaks)]) if peaks else None

    costs: list[StageCost] = []
    for index, (start, stop) in enumerate(stages.bounds):
        held = weights[index + 1] - weights[index]
        working = working_bytes(stages.plan.nodes[start:stop])
        if memory is not None:
            # No prefix ends with the last stage: its estimated weights stand for its memory.
            working = 0
            if index + 1 < len(memory):
                held = memory[index + 1] - memory[index]

        spent_nj = active_uw * device_ns[index] // 10**6
        stage_name = f"{start}..{stop - 1}"
        costs.append(
            StageCost(stage_name, device_ns[index], server_ns[index], spent_nj, held, working)
        )

    tensors = _tensors(stages, options or {}, previews or {})
    return CostTable(name, tuple(costs), tensors, link, active_uw, idle_uw, message=message)


def _all_weights(stages: Stages) -> int:
    """Bytes of all constants that runtime nodes read: up to the last cut, and added behind it."""
    last = stages.cuts[-1]
    seen: set[Value] = set()
    added = 0
    for node in stages.plan.nodes[last.position :]:
        for value in uses_with_captures(node):
            if value.constant is not None and value not in seen:
                seen.add(value)
                added += value.constant.length
    return last.weight_bytes + added


def _tensors(
    stages: Stages, options: OptionsByTensor, previews: OptionsByTensor
) -> tuple[CostTensor, ...]:
    """Every value that one stage gives to a later one or to the caller.

    What crosses a cut is the boundary of that cut, which can be less than what its two sides
    exchange: a value that is recomputed on the server does not cross. Such a value gets, for the
    planner, the stage before the first cut that it crosses as its producer, and the stage behind
    the last cut that it crosses as its last consumer.
    """
    # The cuts that each value crosses, ascending.
    plan = stages.plan
    crossed: dict[Value, list[int]] = {}
    for index, cut in enumerate(stages.cuts):
        for value in cut.boundary:
            crossed.setdefault(value, []).append(index)

    # The stage that produces each value (None: a graph input) and the stages that read it, in
    # order and without repetition.
    producers: dict[Value, int | None] = dict.fromkeys(plan.inputs)
    readers: dict[Value, dict[int, None]] = {}
    for stage, (start, stop) in enumerate(stages.bounds):
        for node, values in zip(plan.nodes[start:stop], plan.reads[start:stop], strict=True):
            for value in values:
                readers.setdefault(value, {})[stage] = None
            for value in node.outputs:
                if value is not None:
                    producers[value] = stage

    outputs = set(plan.graph.outputs)
    tensors: list[CostTensor] = []
    for value, producer in producers.items():
        crosses = crossed.get(value)

        # An output keeps its true producer, since it also returns from there.
        if producer is not None and crosses is not None and value not in outputs:
            producer = crosses[0]
        consumers = _consumers(producer, readers.get(value, {}), crosses)
        is_output = value in outputs and producer is not None
        if not consumers and not is_output:
            continue

        up = _up_options(value, options.get(value.name, ()))
        down = up or (_download_of_output(value) if is_output else ())
        preview = _as_options(previews.get(value.name, ())) if producer is None else ()
        tensors.append(CostTensor(value.name, producer, consumers, up, down, is_output, preview))
    return tuple(tensors)


def _consumers(
    producer: int | None, readers: Iterable[int], crosses: Sequence[int] | None
) -> tuple[int, ...]:
    """The stages that need a value sent to them, ascending.

    Args:
        producer: The stage that makes the value; None for a graph input.
        readers: The stages that read it.
        crosses: The cuts that it crosses, ascending; None if it crosses none.
    """
    behind_last = () if crosses is None else (crosses[-1] + 1,)
    if producer is None:
        return tuple(sorted({*readers, *behind_last}))
    if crosses is None:
        return ()
    last = crosses[-1] + 1
    between = [reader for reader in readers if producer < reader < last]
    return tuple(sorted({last, *between}))


def _up_options(value: Value, options: Sequence[MeasuredTransfer]) -> tuple[TransferOption, ...]:
    """The options to send a value; none for a value that no frame can carry."""
    type = value.type
    if not isinstance(type, TensorType) or not type.dtype.framable or type.shape is None:
        return ()
    return _as_options(options) or (TransferOption("raw", estimated_bytes([value])),)


def _download_of_output(value: Value) -> tuple[TransferOption, ...]:
    """The option for a graph output that no frame can carry: results return without a frame.

    A tensor of unknown shape counts as zero bytes.
    """
    if not isinstance(value.type, TensorType):
        return ()
    return (TransferOption("raw", estimated_bytes([value])),)


def _as_options(transfers: Sequence[MeasuredTransfer]) -> tuple[TransferOption, ...]:
    """Measured transfers as options of the cost table."""
    return tuple(
        TransferOption(transfer.codec, transfer.size_bytes, transfer.encode_ns, transfer.decode_ns)
        for transfer in transfers
    )
