"""partition: a graph becomes k+1 segments for k cuts, joined by irsplit.send and irsplit.recv."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from irsplit.errors import CutError
from irsplit.ir import Graph, Model, Node, Value, clone_node, clone_value, operands
from irsplit.ir.printer import PLACES
from irsplit.passes.base import Context
from irsplit.passes.cuts import Cut, find_cuts, select_cut
from irsplit.passes.schedule import Schedule, schedule


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
        places = self._places(len(chosen) + 1, context.chosen_places)
        segments = split(plan, [cut for _, cut in chosen], places)
        model.graphs[:1] = segments
        return True

    def _places(self, count: int, chosen: tuple[str, ...]) -> tuple[str, ...]:
        places = self.places or (chosen if not self.cut else ()) or ("device",) + ("server",) * (count - 1)
        unknown = [place for place in places if place not in PLACES]
        if unknown:
            raise CutError(f"unknown place '{unknown[0]}'; places: {', '.join(PLACES)}")
        if len(places) != count:
            raise CutError(f"{count} segments need {count} places, but {len(places)} are given")
        return places


def split(plan: Schedule, cuts: Sequence[Cut], places: Sequence[str]) -> list[Graph]:
    """The segments between `cuts`, which are of this schedule and in ascending order; the source stays as it is."""
    names = places if tuple(places) == PLACES else [f"segment{index}" for index in range(len(places))]
    graphs = [Graph(name, place=place, native=plan.graph.native) for name, place in zip(names, places, strict=True)]
    _Splitter(plan, [cut.position for cut in cuts], graphs).run()
    return graphs


class _Splitter:
    """Fills one graph a segment, walking the source once: the work is linear in what the segments hold together."""

    def __init__(self, plan: Schedule, positions: Sequence[int], graphs: Sequence[Graph]) -> None:
        self.source = plan.graph
        self.graphs = graphs
        self.mappings: list[dict[Value, Value]] = [{} for _ in graphs]
        bounds = [0, *positions, len(plan.nodes)]
        self.part = {node: part for part, (start, end) in enumerate(pairwise(bounds)) for node in plan.nodes[start:end]}
        """For each runtime node, its segment."""
        self.made: dict[Value, int] = {}
        """For each runtime value, the segment that produces it; what the caller feeds comes last."""
        for node, part in self.part.items():
            self.made.update((value, part) for value in node.outputs if value is not None)
        self.made.update(dict.fromkeys(plan.inputs, 0))
        self.boundaries = self._boundaries(plan)
        self.needed = self._needed(plan)

    def _boundaries(self, plan: Schedule) -> list[list[Value]]:
        """What travels from each segment to the next one: produced values first, then graph inputs."""
        last_read: dict[Value, int] = {}
        for node, read in zip(plan.nodes, plan.reads, strict=True):
            last_read.update(dict.fromkeys(read, self.part[node]))
        boundaries: list[list[Value]] = [[] for _ in self.graphs[1:]]
        for value, made in self.made.items():
            for index in range(made, last_read.get(value, made)):
                boundaries[index].append(value)
        return boundaries

    def _needed(self, plan: Schedule) -> dict[Value, list[int]]:
        """For each constant and result of a free node, the segments that need it, in ascending order."""
        reads: list[list[Value]] = [[] for _ in self.graphs]
        for node, frees in zip(plan.nodes, plan.frees, strict=True):
            reads[self.part[node]].extend(frees)
        reads[-1].extend(value for value in self.source.outputs if value not in self.made)
        needed: dict[Value, list[int]] = {}
        for index, pending in enumerate(reads):
            seen: set[Value] = set()
            while pending:
                value = pending.pop()
                if value in seen:
                    continue
                seen.add(value)
                needed.setdefault(value, []).append(index)
                if value.producer is not None:
                    pending.extend(operands(value.producer))
        return needed

    def run(self) -> None:
        for value in self.source.inputs:
            for index in (0,) if value in self.made else self.needed.get(value, ()):
                self.graphs[index].inputs.append(self._cloned(index, value))
        for value in self.source.constants:
            for index in self.needed.get(value, ()):
                self.graphs[index].constants.append(self._cloned(index, value))
        for index, values in enumerate(self.boundaries):
            received = [self._cloned(index + 1, value) for value in values]
            self.graphs[index + 1].nodes.append(Node("irsplit.recv", (), received, attributes={"boundary": index}))
        for node in self.source.nodes:
            for index in self._places_of(node):
                self.graphs[index].nodes.append(clone_node(node, self.mappings[index]))
        for index, values in enumerate(self.boundaries):
            sent = [self.mappings[index][value] for value in values]
            self.graphs[index].nodes.append(Node("irsplit.send", sent, attributes={"boundary": index}))
        for value in self.source.outputs:
            index = self.made.get(value, len(self.graphs) - 1)
            self.graphs[index].outputs.append(self.mappings[index][value])

    def _cloned(self, index: int, value: Value) -> Value:
        """The value in segment `index`, where nothing has produced it yet."""
        return self.mappings[index].setdefault(value, clone_value(value))

    def _places_of(self, node: Node) -> Iterable[int]:
        """The segments that get the node: one for a runtime node, those that need it for a free one, none when dead."""
        if node in self.part:
            return (self.part[node],)
        return sorted({index for value in node.outputs if value is not None for index in self.needed.get(value, ())})
