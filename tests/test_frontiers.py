"""Frontiers of several tensors that find_cuts lists, against every down-set of small graphs."""

from random import Random

import pytest

from down_sets import Brute, Sides
from irsplit.base.dtypes import F32
from irsplit.ir import Graph, Node, TensorType, Value
from irsplit.passes import find_cuts

GRAPHS = 400


def network(random: Random) -> Graph:
    """Some 8 nodes with forks, joins and heads; every tensor has 1 to 16 elements."""
    known = [Value(f"x{index}", _type(random)) for index in range(random.choice([1, 1, 2]))]
    graph = Graph("main", list(known))
    for index in range(random.randint(6, 9)):
        count = random.choice([1, 1, 1, 2, 2, 3])
        inputs = [
            random.choice(known[-3:] if random.random() < 0.7 else known) for _ in range(count)
        ]
        outputs = [
            Value(f"v{index}_{part}", _type(random))
            for part in range(random.choice([1, 1, 1, 1, 2]))
        ]
        graph.nodes.append(Node("test.a", inputs, outputs, name=f"n{index}"))
        known += outputs
    graph.outputs = [value for value in known if value.producer and not value.readers]
    return graph


def _type(random: Random) -> TensorType:
    return TensorType(F32, (random.choice([1, 2, 4, 8, 16]),))


def size_of(sides: Sides) -> int:
    return sum(
        value.type.size_bytes() or 0 for value in sides.crossing | sides.forwards if value.type
    )


@pytest.mark.parametrize("max_tensors", [2, 3])
def test_the_smallest_frontier_of_all_is_hardly_ever_missed(max_tensors: int) -> None:
    random = Random(max_tensors)
    missed = asked = 0
    for _ in range(GRAPHS):
        graph = network(random)
        sizes = [size_of(sides) for sides in Brute(graph).down_sets if sides.legal(max_tensors)]
        if not sizes:
            continue
        asked += 1
        found = [cut.size_bytes() or 0 for cut in find_cuts(graph, max_tensors) if cut.legal]
        assert min(found) >= min(sizes)
        missed += min(found) > min(sizes)
    assert asked > GRAPHS * 0.9
    assert missed <= asked * 0.03
