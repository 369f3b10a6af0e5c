"""The cost of blocks for the JointDNN policy, measured where a profile has the block.

A block is a run of consecutive stages with one placement, executed as one piece (docs/papers.md).
An engine fuses across the stages of a block, so a block can cost less than the sum of its stages.
"""

from collections.abc import Callable
from itertools import accumulate

import numpy as np

from irsplit.passes.planning.stages import Stages, halves_of
from irsplit.planner.chain import DEVICE, BlockCost
from irsplit.planner.cost import CostTable, energy_nj
from irsplit.planner.terms import TERMS, WORKING, Ints
from irsplit.profiles import Device
from irsplit.profiles.measured import Measured, ModelProfile

_BlockTime = Callable[[int, int], int]
"""Nanoseconds of the stages start <= i < stop as one block."""


def block_costs(
    stages: Stages, table: CostTable, device: Device | Measured, server: Device | Measured
) -> BlockCost | None:
    """The cost of every block of a chain on the device and on the server.

    A profile of a model has measured the block from the start to every cut, the block from every
    cut to the end, the whole model, and the blocks of one stage. A block between two other cuts
    costs the sum of its stages, which is the difference of what was measured up to its ends.

    Args:
        stages: The chain.
        table: Its cost table.
        device: What is known of the device.
        server: What is known of the server.

    Returns:
        The cost of a block as terms of the cost table; None if neither side has measured blocks.

    Raises:
        PlanError: A profile is of another model or of other cuts.
    """
    if not isinstance(device, ModelProfile) and not isinstance(server, ModelProfile):
        return None
    columns = table.columns
    device_time = _block_time(stages, device, [stage.device_ns for stage in table.stages])
    server_time = _block_time(stages, server, [stage.server_ns for stage in table.stages])

    def cost(placement: int, start: int, stop: int) -> Ints:
        by_placement = columns.device if placement == DEVICE else columns.server
        per_stage = by_placement[:, start:stop]
        terms = per_stage.sum(axis=1)
        terms[WORKING] = per_stage[WORKING].max()

        # The stages' own times give way to the time of the block.
        if placement == DEVICE:
            terms[TERMS.index("device_ns")] = device_time(start, stop)
            return terms
        served_ns = server_time(start, stop) * table.server_load_percent // 100
        terms[TERMS.index("server_ns")] = served_ns
        terms[TERMS.index("idle_nj")] = energy_nj(table.idle_uw, np.array([served_ns]))[0]
        return terms

    return cost


def _block_time(stages: Stages, source: Device | Measured, stage_ns: list[int]) -> _BlockTime:
    """The time of every block on one side, measured or else the sum of its stages."""
    sums = [0, *accumulate(stage_ns)]
    if not isinstance(source, ModelProfile):
        return lambda start, stop: sums[stop] - sums[start]

    # By (start, stop): single stages, prefixes, suffixes, and the whole model.
    count = len(stage_ns)
    measured: dict[tuple[int, int], int] = {}
    if len(source.stretches) == count:
        for index, load in enumerate(source.stretches):
            measured[index, index + 1] = load.wall_ns
    for cut, load in enumerate(halves_of(stages, source, before=True), 1):
        measured[0, cut] = load.wall_ns
    for cut, load in enumerate(halves_of(stages, source, before=False), 1):
        measured[cut, count] = load.wall_ns
    measured[0, count] = source.whole.wall_ns
    return lambda start, stop: measured.get((start, stop), sums[stop] - sums[start])
