"""Grouping of histograms so that one probability table serves many contexts: k-means under the cost in bits."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]

_ROUNDS = 10
_FLOOR = 2.0**-13
"""Probability of what a group has never seen: about an escape in an 11-bit table."""


class Groups(NamedTuple):
    labels: NDArray[np.intp]
    counts: Counts
    """[groups, symbols]"""


def cost_matrix(histograms: Counts, groups: Counts) -> Counts:
    """Bits that every histogram would take with every group's distribution: [histograms, groups]."""
    shares = groups / np.maximum(groups.sum(1, keepdims=True), 1e-9)
    return -(histograms @ np.log2(shares + _FLOOR).T)


def _seeds(histograms: Counts, most: int) -> Counts:
    """Far-away starting groups: each the histogram that the groups so far serve worst."""
    own = -(
        histograms
        * np.log2(histograms / np.maximum(histograms.sum(1, keepdims=True), 1e-9) + _FLOOR)
    ).sum(1)
    seeds = [histograms[int(np.argmax(histograms.sum(1)))]]
    loss = cost_matrix(histograms, seeds[0][None])[:, 0]
    while len(seeds) < most:
        worst = int(np.argmax(loss - own))
        if loss[worst] - own[worst] < 1:
            break
        seeds.append(histograms[worst])
        loss = np.minimum(loss, cost_matrix(histograms, histograms[worst][None])[:, 0])
    return np.array(seeds)


def group(histograms: Counts, most: int, backing: Counts) -> Groups:
    """At most `most` groups. `backing` [histograms, symbols] is added to decide about rows with few counts.

    Deterministic; empty groups are dropped.
    """
    smoothed = histograms + backing
    centres = _seeds(smoothed, most)
    labels = np.zeros(len(histograms), np.intp)
    for _ in range(_ROUNDS):
        labels = np.argmin(cost_matrix(smoothed, centres), axis=1)
        updated = np.zeros_like(centres)
        np.add.at(updated, labels, smoothed)
        if np.array_equal(updated, centres):
            break
        centres = updated
    used, labels = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(used), histograms.shape[1]))
    np.add.at(counts, labels, histograms + backing * 0.05)
    return Groups(labels.ravel(), counts)
