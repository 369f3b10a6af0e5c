"""The report's data: cuts with their cost terms, baselines, rejected positions and a block diagram of the model.

The page re-plans with these figures when its sliders move, so they are terms, not totals: times of the prefix on the
device and of the rest on the server at their given speeds, and the ways in which every tensor may cross.
"""

from collections import Counter
from typing import Any

from irsplit.cost import CostTable
from irsplit.ir import Model, Node, TensorType, Value
from irsplit.passes.choose_cut import Choice
from irsplit.passes.cuts import Cut, find_cuts
from irsplit.passes.stretches import Macs, Stretches

FORMAT = "irsplit-report/1"
REJECTED_LISTED = 500
OPERATORS_LISTED = 4


def report_data(model: Model, choice: Choice, macs: Macs | None, max_tensors: int, title: str) -> dict[str, Any]:
    """Everything that the page shows, JSON-able; times in nanoseconds, sizes in bytes, powers in microwatts."""
    table, parts = choice.table, choice.parts
    rejected = [cut for cut in find_cuts(parts.plan, max_tensors) if not cut.legal]
    link = table.link
    return {
        "format": FORMAT,
        "title": title,
        "dialect": model.dialect,
        "objective": choice.goal.objective,
        "chosen": [cut.id for cut in choice.cuts],
        "link": {
            "name": link.name,
            "up_bit_s": link.up_goodput_bit_s,
            "down_bit_s": link.down_goodput_bit_s,
            "rtt_ns": link.rtt_ns,
            "up_uw": link.up_uw,
            "down_uw": link.down_uw,
            "tail_nj": link.tail_nj,
        },
        "active_uw": table.active_uw,
        "idle_uw": table.idle_uw,
        "load_percent": table.server_load_percent,
        "groups": _groups(table, parts, macs),
        "tensors": _tensors(table, parts),
        "cuts": [_cut(cut, index + 1) for index, cut in enumerate(parts.cuts)],
        "rejected": [_rejected(cut) for cut in rejected[:REJECTED_LISTED]],
        "rejected_count": len(rejected),
        "notes": list(choice.notes),
    }


def _groups(table: CostTable, parts: Stretches, macs: Macs | None) -> list[dict[str, Any]]:
    described: list[dict[str, Any]] = []
    for group, (start, stop) in zip(table.groups, parts.bounds, strict=True):
        nodes = parts.plan.nodes[start:stop]
        operators = Counter(node.op.rpartition(".")[2] for node in nodes)
        described.append(
            {
                "nodes": len(nodes),
                "operators": [[name, count] for name, count in operators.most_common(OPERATORS_LISTED)],
                "kinds": len(operators),
                "macs": sum(macs(node) for node in nodes) if macs else None,
                "device_ns": group.device_ns,
                "server_ns": group.server_ns,
                "device_nj": group.device_nj,
                "weight_bytes": group.weight_bytes,
                "working_bytes": group.working_bytes,
            }
        )
    return described


def _tensors(table: CostTable, parts: Stretches) -> list[dict[str, Any]]:
    values = {value.name: value for value in parts.plan.inputs}
    for node in parts.plan.nodes:
        values.update((value.name, value) for value in node.outputs if value is not None)
    return [
        {
            "name": tensor.name,
            "type": _type(values[tensor.name]),
            "raw_bytes": _raw_bytes(values[tensor.name]),
            "producer": tensor.producer,
            "consumers": list(tensor.consumers),
            "output": tensor.output,
            "ways": [[way.codec, way.size_bytes, way.encode_ns, way.decode_ns] for way in tensor.up],
            "preview": [[way.codec, way.size_bytes, way.encode_ns, way.decode_ns] for way in tensor.preview],
        }
        for tensor in table.tensors
    ]


def _cut(cut: Cut, groups: int) -> dict[str, Any]:
    return {
        "id": cut.id,
        "groups": groups,
        "kind": cut.kind,
        "after": _called(cut.after),
        "forwards": [value.name for value in cut.forwards],
        "early_outputs": [value.name for value in cut.early_outputs],
    }


def _rejected(cut: Cut) -> dict[str, Any]:
    return {"id": cut.id, "after": _called(cut.after), "reason": cut.reason}


def _called(node: Node) -> str:
    return node.name or next((value.name for value in node.outputs if value is not None), node.op)


def _type(value: Value) -> str:
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        return "?"
    return f"{value.type.dtype} " + "x".join("?" if dim is None else str(dim) for dim in value.type.shape)


def _raw_bytes(value: Value) -> int:
    return (value.type.size_bytes(1) or 0) if isinstance(value.type, TensorType) else 0
