"""A policy: half of the stages on the device, whatever they cost; what to beat."""

from irsplit.planner.cost import CostTable, Placement


def half(table: CostTable, objective: str) -> tuple[Placement, ...]:
    """Place the first half of the stages on the device."""
    device_stages = len(table.stages) // 2
    server_stages = len(table.stages) - device_stages
    return (Placement.DEVICE,) * device_stages + (Placement.SERVER,) * server_stages
