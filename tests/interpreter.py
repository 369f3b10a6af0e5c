"""What `test.*` operations compute: bits of the operation, its attributes and its inputs.

A wire that goes wrong anywhere therefore changes the result. Values are numpy arrays of their
declared type; a type that no array has (unknown, opaque, strings) is four bytes.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from irsplit.ir import Graph, Model, Node, TensorType, Type, Value, engine_graph
from irsplit.passes.send_attributes import specs
from irsplit.runtime.frame import frame
from irsplit.runtime.frame.descriptor import FrameSchema

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]
SYMBOL = 3
"""What a dimension is that the type leaves open."""


@dataclass
class Machine:
    """What outlives one call: the states, and the tape of random numbers for executions."""

    states: dict[str, bytes] = field(default_factory=dict[str, bytes])
    tape: dict[str, int] = field(default_factory=dict[str, int])


def array_of(type: Type | None, bits: bytes) -> Array:
    """An array of the type, filled from a stream of bits that `bits` starts."""
    storage, shape = np.dtype(np.uint8), (4,)
    if isinstance(type, TensorType) and type.dtype.storage is not None and type.shape is not None:
        storage = type.dtype.storage
        shape = tuple(dim if isinstance(dim, int) else SYMBOL for dim in type.shape)
    count = int(np.prod(shape))
    stream = np.frombuffer(hashlib.shake_128(bits).digest(count * storage.itemsize), np.uint8)
    return (stream & 1 if storage == np.bool_ else stream).copy().view(storage).reshape(shape)


def bits_of(arrays: Iterable[Array | None]) -> bytes:
    """A digest that tells order, presence and contents."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(b"absent" if array is None else b"array" + array.tobytes())
    return digest.digest()


def inputs_of(graph: Graph, seed: int) -> dict[str, Array]:
    """Arrays for everything that the caller must feed."""
    fed = [value for value in graph.inputs if value.constant is None]
    return {value.name: array_of(value.type, f"{seed} {value.name}".encode()) for value in fed}


def run_model(model: Model, inputs: Arrays, machine: Machine) -> dict[str, Array]:
    """Outputs of the whole, unpartitioned model by name."""
    graph = model.entry
    outputs = run_graph(graph, [_fed(value, inputs) for value in graph.inputs], {}, machine)
    return {value.name: array for value, array in zip(graph.outputs, outputs, strict=True)}


def run_segments(model: Model, inputs: Arrays, machines: Sequence[Machine]) -> dict[str, Array]:
    """Outputs of a partitioned model by name: a machine for each segment, real frames between."""
    outputs: dict[str, Array] = {}
    received: list[Array] = []
    for segment, machine in zip(model.segments, machines, strict=True):
        known = {value: _fed(value, inputs) for value in segment.inputs}
        for node in segment.nodes:
            if node.op == "irsplit.recv":
                values = [value for value in node.outputs if value is not None]
                known.update(zip(values, received, strict=True))
        engine = engine_graph(segment)
        results = run_graph(engine, [known[value] for value in engine.inputs], {}, machine)
        known.update(zip(engine.outputs, results, strict=True))
        outputs.update((value.name, known[value]) for value in segment.outputs)
        for node in segment.nodes:
            if node.op == "irsplit.send":
                received = through_a_frame(
                    node, [known[value] for value in node.inputs if value is not None]
                )
    return outputs


def through_a_frame(send: Node, arrays: Sequence[Array]) -> list[Array]:
    boundary = FrameSchema(0, "cut", tuple(specs(send)))
    return frame.decode(boundary, frame.encode(boundary, arrays))


def run_graph(
    graph: Graph, inputs: Sequence[Array], around: Mapping[Value, Array], machine: Machine
) -> list[Array]:
    """Outputs of a graph whose bodies may read what is `around`."""
    known = dict(around)
    known.update(zip(graph.inputs, inputs, strict=True))
    known.update((value, _constant(value)) for value in graph.constants)
    for node in graph.nodes:
        bits = _bits(node, known, machine)
        for index, value in enumerate(node.outputs):
            if value is not None:
                known[value] = array_of(value.type, bits + bytes([index]))
    return [known[value] for value in graph.outputs]


def _bits(node: Node, known: Mapping[Value, Array], machine: Machine) -> bytes:
    read = bits_of(None if value is None else known[value] for value in node.inputs)
    bits = f"{node.op} {sorted(node.attributes.items())} ".encode() + read
    for body in (*node.graphs, *node.callees):
        fed = [
            array_of(value.type, read + bytes([index])) for index, value in enumerate(body.inputs)
        ]
        bits += bits_of(run_graph(body, fed, known, machine))
    for state in node.states:
        bits += machine.states.get(state, b"initial")
        machine.states[state] = hashlib.sha256(bits).digest()
    if node.random:
        machine.tape[node.name] = machine.tape.get(node.name, 0) + 1
        bits += f"{node.name} {machine.tape[node.name]}".encode()
    return bits


def _fed(value: Value, inputs: Arrays) -> Array:
    return (
        _constant(value)
        if value.constant is not None and value.name not in inputs
        else inputs[value.name]
    )


def _constant(value: Value) -> Array:
    assert value.constant is not None
    return array_of(value.type, bytes(value.constant.view()))
