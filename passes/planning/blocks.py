"""Costs of blocks, stretches that run together at one place (JointDNN): as measured, where a profile has the block."""

from collections.abc import Callable
from itertools import accumulate

import numpy as np

from irsplit.passes.planning.stages import Stages, halves_of
from irsplit.planner.chain import DEVICE, BlockCost
from irsplit.planner.cost import TERMS, CostTable, Ints, energy_nj
from irsplit.profiles import Device
from irsplit.profiles.measured import Measured, ModelProfile

_Times = Callable[[int, int], int]
"""Nanoseconds of the stretches start <= i < stop together."""


def block_costs(
    parts: Stages, table: CostTable, here: Device | Measured, there: Device | Measured
) -> BlockCost | None:
    """What blocks cost on the device (`here`) and on the server; None when no side has measured blocks.

    A profile of a model has the block from the start to every cut, from every cut to the end, the whole model and the
    blocks of one stretch. A block between two other cuts costs the difference of what was measured up to them.
    """
    if not isinstance(here, ModelProfile) and not isinstance(there, ModelProfile):
        return None
    columns = table.columns
    near = _times(parts, here, [group.device_ns for group in table.groups])
    far = _times(parts, there, [group.server_ns for group in table.groups])
    working = TERMS.index("working_bytes")

    def cost(place: int, start: int, stop: int) -> Ints:
        each = (columns.device if place == DEVICE else columns.server)[:, start:stop]
        terms = each.sum(axis=1)
        terms[working] = each[working].max()
        if place == DEVICE:
            return _replaced(terms, device_ns=near(start, stop))
        served = far(start, stop) * table.server_load_percent // 100
        return _replaced(
            terms, server_ns=served, idle_nj=int(energy_nj(table.idle_uw, np.array([served]))[0])
        )

    return cost


def _replaced(terms: Ints, **values: int) -> Ints:
    for name, value in values.items():
        terms[TERMS.index(name)] = value
    return terms


def _times(parts: Stages, side: Device | Measured, each: list[int]) -> _Times:
    """Of a side's blocks; `each` are the times of the stretches that the table has."""
    sums = [0, *accumulate(each)]
    if not isinstance(side, ModelProfile):
        return lambda start, stop: sums[stop] - sums[start]
    count = len(each)
    known: dict[tuple[int, int], int] = {}
    if len(side.stretches) == count:
        known.update(
            ((index, index + 1), load.wall_ns) for index, load in enumerate(side.stretches)
        )
    for cut, load in enumerate(halves_of(parts, side, before=True), 1):
        known[0, cut] = load.wall_ns
    for cut, load in enumerate(halves_of(parts, side, before=False), 1):
        known[cut, count] = load.wall_ns
    known[0, count] = side.whole.wall_ns
    return lambda start, stop: known.get((start, stop), sums[stop] - sums[start])
