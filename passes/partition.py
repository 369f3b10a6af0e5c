"""partition: a graph becomes k+1 segments for k cuts, joined by irsplit.send and irsplit.recv."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from irsplit.errors import CutError
from irsplit.ir import Graph, Model, Node, Value, clone_node, clone_value, operands
from irsplit.ir.printer import PLACES
from irsplit.passes.base import Context
from irsplit.passes.cuts import Cut, Schedule, find_cuts, schedule, select_cut


@dataclass(frozen=True)
class Partition:
    """Cut the entry graph at `cut` (ids or tensor names; without any, those chosen by an earlier pass).

    `places` says where each segment runs; by default the first on the device and the others on the server. Graph
    outputs stay with the segment that produces them; a value needed further on passes through the segments between.
    """

    name: ClassVar[str] = "partition"
    cut: tuple[str, ...] = ()
    max_tensors: int = 1
    places: tuple[str, ...] = ()

    def run(self, model: Model, context: Context) -> bool:
        wanted = self.cut or context.chosen_cuts
        if model.segments:
            raise CutError("the model is partitioned already; give all cuts to one partition")
        if not wanted:
            raise CutError("no cut is given; add partition{cut=ID} or choose-cut before it (see 'irsplit cuts')")
        plan = schedule(model.entry)
        cuts = find_cuts(plan, self.max_tensors)
        chosen = sorted({cut.position: cut for cut in (select_cut(cuts, name) for name in wanted)}.items())
        places = self._places(len(chosen) + 1)
        segments = split(plan, [cut for _, cut in chosen], places)
        model.graphs[:1] = segments
        return True

    def _places(self, count: int) -> tuple[str, ...]:
        places = self.places or ("device",) + ("server",) * (count - 1)
        unknown = [place for place in places if place not in PLACES]
        if unknown:
            raise CutError(f"unknown place '{unknown[0]}'; places: {', '.join(PLACES)}")
        if len(places) != count:
            raise CutError(f"{count} segments need {count} places, but {len(places)} are given")
        return places


def split(plan: Schedule, cuts: Sequence[Cut], places: Sequence[str]) -> list[Graph]:
    """The segments between `cuts`, which are of this schedule and in ascending order; the source stays as it is."""
    parts = _Parts(plan, [cut.position for cut in cuts])
    names = places if tuple(places) == PLACES else [f"segment{index}" for index in range(len(places))]
    return [parts.segment(index, name, place) for index, (name, place) in enumerate(zip(names, places, strict=True))]


class _Parts:
    """For every runtime value, the segment that produces it and the last one that reads it."""

    def __init__(self, plan: Schedule, positions: Sequence[int]) -> None:
        self.plan = plan
        self.source = plan.graph
        self.last = len(positions)
        self.part: dict[Node, int] = {}
        ends = [*positions, len(plan.nodes)]
        start = 0
        for index, end in enumerate(ends):
            self.part.update(dict.fromkeys(plan.nodes[start:end], index))
            start = end
        self.made: dict[Value, int] = {}
        for node in plan.nodes:
            self.made.update((value, self.part[node]) for value in node.outputs if value is not None)
        self.made.update(dict.fromkeys(plan.inputs, 0))
        self.last_read: dict[Value, int] = {}
        for node, read in zip(plan.nodes, plan.reads, strict=True):
            self.last_read.update(dict.fromkeys(read, self.part[node]))

    def boundary(self, index: int) -> list[Value]:
        """What travels from segment `index` to the next one: produced values first, then graph inputs."""
        return [value for value, made in self.made.items() if made <= index < self.last_read.get(value, 0)]

    def segment(self, index: int, name: str, place: str) -> Graph:
        mapping: dict[Value, Value] = {}
        graph = Graph(name, place=place, native=self.source.native)
        outputs = [value for value in self.source.outputs if self.made.get(value, self.last) == index]
        runtime = [node for node in self.plan.nodes if self.part[node] == index]
        needed = _free_closure([*(value for node in runtime for value in operands(node)), *outputs], self.made)
        for value in self.source.inputs:
            fed = value in self.made if index == 0 else False
            if fed or (value.constant is not None and value in needed):
                graph.inputs.append(mapping.setdefault(value, clone_value(value)))
        for value in self.source.constants:
            if value in needed:
                graph.constants.append(mapping.setdefault(value, clone_value(value)))
        if index > 0:
            graph.nodes.append(_receive(index - 1, self.boundary(index - 1), mapping))
        chosen = set(runtime)
        for node in self.source.nodes:
            if node in chosen or any(value in needed for value in node.outputs if node not in self.part):
                graph.nodes.append(clone_node(node, mapping))
        if index < self.last:
            sent = [mapping[value] for value in self.boundary(index)]
            graph.nodes.append(Node("irsplit.send", sent, attributes={"boundary": index}))
        graph.outputs = [mapping[value] for value in outputs]
        return graph


def _receive(boundary: int, values: Sequence[Value], mapping: dict[Value, Value]) -> Node:
    received = [Value(value.name, value.type, None, value.native) for value in values]
    mapping.update(zip(values, received, strict=True))
    return Node("irsplit.recv", (), received, attributes={"boundary": boundary})


def _free_closure(values: Sequence[Value], made: dict[Value, int]) -> set[Value]:
    """The constants among `values` and the results of free nodes, with everything free that those need."""
    needed: set[Value] = set()
    pending = [value for value in values if value not in made]
    while pending:
        value = pending.pop()
        if value in needed:
            continue
        needed.add(value)
        if value.producer is not None:
            pending.extend(operand for operand in operands(value.producer) if operand not in made)
    return needed
