"""What a cost is made of: the terms of a placement, and the metrics that they add up to.

A cost is a sum of *terms* (`TERMS`); a *metric* is a sum of terms (`METRICS`). Both are data, so
that the solvers, the report and the tests read the same definition.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

TERMS = (
    "device_ns",  # stages on the device
    "device_codec_ns",  # encoding before an upload, decoding after a download
    "uplink_ns",
    "server_ns",  # stages on the server, scaled by its load
    "server_codec_ns",
    "downlink_ns",
    "message_ns",  # fixed time of every round trip, without the device's own, which is codec time
    "compute_nj",  # battery: stages on the device
    "codec_nj",
    "radio_up_nj",
    "radio_down_nj",
    "idle_nj",  # battery while the server works or a message is on its way
    "tail_nj",  # radio promotion and tail, once a round trip
    "up_bytes",
    "down_bytes",
    "weight_bytes",  # of the stages on the device
    "working_bytes",  # the largest working set of a stage on the device: a maximum, not a sum
)

METRICS: dict[str, tuple[str, ...]] = {
    "latency": (
        "device_ns",
        "device_codec_ns",
        "uplink_ns",
        "server_ns",
        "server_codec_ns",
        "downlink_ns",
        "message_ns",
    ),
    "energy": ("compute_nj", "codec_nj", "radio_up_nj", "radio_down_nj", "idle_nj", "tail_nj"),
    "bytes": ("up_bytes", "down_bytes"),
    "memory": ("weight_bytes", "working_bytes"),
    "server": ("server_ns", "server_codec_ns"),
    "device": ("device_ns", "device_codec_ns"),
    "uplink": ("uplink_ns",),
    "downlink": ("downlink_ns",),
}
UNITS = {"latency": "ns", "energy": "nJ", "bytes": "bytes", "memory": "bytes"}
PIPELINE_STEPS = ("device", "uplink", "server", "downlink")
"""Metrics of the steps of a pipeline of calls; its period is the slowest of them."""

WORKING = TERMS.index("working_bytes")
"""The row of the one term that is a maximum over stages and not a sum."""


def unit(metric: str) -> str:
    """The unit of a metric: `ns`, `nJ` or `bytes`."""
    return UNITS.get(metric, "ns")


def metric_terms(weights: Mapping[str, int]) -> Ints:
    """The weight of every term when metrics are added up with weights.

    Args:
        weights: Weights by the names of metrics.

    Returns:
        One weight per term of TERMS.
    """
    totals = np.zeros(len(TERMS), dtype=np.int64)
    for name, weight in weights.items():
        totals[metric_rows(name)] += weight
    return totals


def metric_rows(name: str) -> list[int]:
    """The rows of the terms that a metric adds up."""
    return [TERMS.index(term) for term in METRICS[name]]
