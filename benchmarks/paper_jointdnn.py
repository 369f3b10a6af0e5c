"""CollabDNN and JointDNN: four networks over three links, on published devices."""

from dataclasses import replace

import numpy as np

from benchmarks.networks import Network, alexnet, autoencoder, cost_table, resnet50, vgg16
from benchmarks.tables import fixed, markdown, verdict
from irsplit.planner import Plan, plan
from irsplit.planner.cost import CostTable, link_ns
from irsplit.profiles import device, link

DEVICE, SERVER = "jetson-tk1-cpu", "tesla-k40"
LINKS = ("3g", "4g", "wifi")
ALEXNET_PARAMETERS = (
    34_944,
    614_656,
    885_120,
    1_327_488,
    884_992,
    37_752_832,
    16_781_312,
    4_097_000,
)

# AlexNet on the server only: percent of communication per link; the paper has one free constant.
SHARES = {"3g": 99, "4g": 93, "wifi": 81}
CLOUD_NS = 15_400_000


def communication_share_percent(name: str) -> int:
    """Share of the upload in an inference that runs on the server, in hundredths of a percent."""
    upload = int(link_ns(np.array([alexnet().input.elements]), link(name).up_bit_s)[0])
    return 10_000 * upload // (upload + CLOUD_NS)


def tables() -> list[CostTable]:
    """Every network over every link."""
    networks: tuple[Network, ...] = (alexnet(), vgg16(), resnet50(), autoencoder())
    assert (
        tuple(layer.parameters for layer in networks[0].layers if layer.parameters)
        == ALEXNET_PARAMETERS
    )
    places = device(DEVICE), device(SERVER)
    return [cost_table(network, *places, link(name)) for network in networks for name in LINKS]


def table() -> str:
    rows: list[list[str]] = []
    best_gain = {"latency": 0, "energy": 0}
    for costs in tables():
        for objective, unit in (("latency", 10**6), ("energy", 10**6)):
            found = plan(costs, objective, monotone=False)
            alone = {b.name: b.value for b in found.baselines}
            device_only, server_only = alone["device only"], alone["server only, raw input"]
            gain = (
                100 * (min(device_only, server_only) - found.value) // min(device_only, server_only)
            )
            best_gain[objective] = max(best_gain[objective], gain)
            tail = replace(costs, link=link(f"{costs.link.name},tail=published"))
            rows.append(
                [
                    costs.name,
                    costs.link.name,
                    f"{objective} {'ms' if objective == 'latency' else 'mJ'}",
                    fixed(device_only, unit, 1),
                    fixed(server_only, unit, 1),
                    fixed(found.value, unit, 1),
                    found.costs.pattern,
                    _where(found),
                    f"{gain} %",
                    _with_tail(tail) if objective == "energy" else "-",
                ]
            )
    head = [
        "network",
        "link",
        "objective",
        "device only",
        "server only",
        "joint",
        "pattern",
        "last layer before the server",
        "gain on best single",
        "joint with tail",
    ]
    shares = [
        [
            name,
            f"{published} %",
            f"{fixed(communication_share_percent(name), 100, 1)} %",
            verdict(published * 100, communication_share_percent(name), 1),
        ]
        for name, published in SHARES.items()
    ]
    headlines = [
        [
            "CollabDNN: latency against the best single platform",
            "73 %",
            f"up to {best_gain['latency']} %",
            "not derivable",
        ],
        [
            "CollabDNN: energy against the best single platform",
            "56 %",
            f"up to {best_gain['energy']} %",
            "not derivable",
        ],
        [
            "JointDNN: latency, energy against the status quo",
            "up to 18x, 32x",
            "-",
            "not derivable",
        ],
    ]
    total = sum(ALEXNET_PARAMETERS)
    return "\n".join(
        [
            f"## (b) CollabDNN and JointDNN: device {DEVICE}, server {SERVER}, float32 on the wire",
            "",
            (
                f"AlexNet parameters: published 62378344, ours {total}: "
                f"{verdict(62_378_344, total, 0)}."
            ),
            (
                "The papers' own layer times are not published; ours are estimated from the rates "
                "of published devices, so"
            ),
            (
                "their headlines are not derivable. The energy tail is charged once where the "
                "radio is used."
            ),
            "",
            markdown(head, rows),
            "",
            (
                "Share of communication, AlexNet on the server, uint8 input, "
                f"{fixed(CLOUD_NS, 10**6, 1)} ms in the cloud:"
            ),
            "",
            markdown(["link", "published", "ours", "verdict"], shares),
            "",
            markdown(["headline", "published", "ours, other devices", "verdict"], headlines),
        ]
    )


def _where(found: Plan) -> str:
    switches = [switch.tensor for switch in found.costs.switches if switch.to == "server"]
    return ", ".join(switches) or "-"


def _with_tail(costs: CostTable) -> str:
    found = plan(costs, "energy", monotone=False)
    return f"{fixed(found.value, 10**6, 1)} {found.costs.pattern}"
