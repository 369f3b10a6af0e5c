"""Group histograms so that one probability table can serve many contexts.

A codec with one probability table per context would need a large descriptor, and contexts with few
counts would have bad tables. So the contexts are clustered: k-means, where the distance between a
histogram and a group is the number of bits that the histogram's symbols take when they are coded
with the group's distribution.

1. The first centre is the histogram with the most counts. Each further centre is the histogram
   that loses most bits with the centres so far, compared with a table of its own.
2. Each histogram goes to the group in which it takes the fewest bits; each centre becomes the sum
   of its histograms. This repeats until nothing changes, or ten times.
3. Empty groups are dropped.

A context with few counts says little about where it belongs, so a *backing* histogram is added to
each context: what similar contexts look like. Nothing is random, so the same data give the same
groups.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]

_ROUNDS = 10
_FLOOR = 2.0**-13
"""Probability of a symbol that a group has never seen: about an escape in an 11-bit table."""
_BACKING_SHARE = 0.05
"""How much of the backing stays in the counts of a group."""


class Groups(NamedTuple):
    """Groups of histograms.

    Attributes:
        labels: The group of each histogram, [histograms].
        counts: The sum of the histograms of each group, [groups, symbols].
    """

    labels: NDArray[np.intp]
    counts: Counts


def cost_matrix(histograms: Counts, groups: Counts) -> Counts:
    """Return how many bits each histogram takes with each group's distribution.

    Args:
        histograms: Counts of symbols, [histograms, symbols].
        groups: Counts of symbols, [groups, symbols].

    Returns:
        Bits, [histograms, groups].
    """
    return -(histograms @ np.log2(_shares(groups) + _FLOOR).T)


def _shares(histograms: Counts) -> Counts:
    return histograms / np.maximum(histograms.sum(1, keepdims=True), 1e-9)


def _seeds(histograms: Counts, most: int) -> Counts:
    """The first centres: each is the histogram that the centres before it serve worst."""
    own_bits = -(histograms * np.log2(_shares(histograms) + _FLOOR)).sum(1)
    seeds = [histograms[int(np.argmax(histograms.sum(1)))]]
    bits = cost_matrix(histograms, seeds[0][None])[:, 0]
    while len(seeds) < most:
        worst = int(np.argmax(bits - own_bits))
        if bits[worst] - own_bits[worst] < 1:
            break

        seeds.append(histograms[worst])
        bits = np.minimum(bits, cost_matrix(histograms, histograms[worst][None])[:, 0])
    return np.array(seeds)


def group(histograms: Counts, most: int, backing: Counts) -> Groups:
    """Group histograms so that coding each with its group's distribution takes few bits.

    Deterministic.

    Args:
        histograms: Counts of symbols, [histograms, symbols].
        most: The most groups.
        backing: Counts to add to each histogram before it is assigned, of the same shape; they
            decide where histograms with few counts belong.

    Returns:
        The groups, none of them empty.
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

    # The backing was for the assignment; the tables come from real counts, almost alone.
    used, labels = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(used), histograms.shape[1]))
    np.add.at(counts, labels, histograms + backing * _BACKING_SHARE)
    return Groups(labels.ravel(), counts)
