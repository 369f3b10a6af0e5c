"""Fit the probability tables of a model: contexts, histograms, groups of contexts, frequencies.

A symbol's context has three parts: the class of its channel, the level of activity around its
pixel, and the bin of its prediction. Tables are trained in these steps:

1. The thresholds of bins and levels are chosen, so that each is met about equally often
   (`equal_bins`, `quantile_levels`). Channels that behave alike share a class
   (`channel_classes`).
2. The symbols are counted in each context (`_histograms`).
3. The contexts are grouped so that all of a group use one table (`cluster.group`).
4. The counts of each group are smoothed, against escapes on data that was not seen, and rounded
   to frequencies that add up to a power of two (`quantize_counts`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from irsplit.codec_training.cluster import Counts, group
from irsplit.codec_training.symbol_planes import SymbolPlane
from irsplit.runtime.frame.rans_model import (
    ESCAPE,
    RansModel,
    Symbols,
    Wide,
    neighbours,
    predict,
    refine,
    surroundings,
)

_CLASS_LIMIT = 64
_SYMBOLS = 256
_COARSE = 4
"""How many symbols make one coarse symbol when channels are compared."""


def predictions_and_activity(
    model: RansModel, planes: Sequence[SymbolPlane]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return what contexts are made from.

    Args:
        model: A model with its predictor.
        planes: The symbols.

    Returns:
        The predictions of all symbols, and the activity around all pixels.
    """
    predictions: list[NDArray[np.int32]] = []
    activity: list[NDArray[np.int32]] = []
    for symbols, geo in planes:
        base = predict(model, neighbours(symbols, 0, geo, model.initial))
        residuals = symbols.astype(np.int32) - base
        predictions.append(refine(model, base, residuals).ravel())
        activity.append(surroundings(np.abs(residuals).sum(-1), 0, geo))
    return np.concatenate(predictions), np.concatenate(activity)


def equal_bins(values: NDArray[np.int32], bins: int, most: int) -> tuple[int, ...]:
    """Return thresholds that cut values into bins of about equal counts.

    A value with more than its share of the counts becomes a bin of its own. The share of a bin is
    always that of what is left, so that such a value does not leave the other bins too small.

    Args:
        values: The values, not negative.
        bins: The most bins.
        most: The largest threshold.
    """
    counts = np.bincount(values, minlength=1).astype(np.float64)
    cuts: set[int] = set()
    left, filled = counts.sum(), 0.0
    for value, count in enumerate(counts.tolist()):
        share = left / max(1, bins - len(cuts))
        is_full = filled > 0 and filled + count / 2 > share
        if is_full and len(cuts) < bins - 1:
            cuts.add(value)
            left -= filled
            filled = 0.0
        filled += count
    return tuple(sorted(cut for cut in cuts if 0 < cut <= most))


def quantile_levels(values: NDArray[np.int32], levels: int) -> tuple[int, ...]:
    """Return thresholds at the quantiles of the values, without those at 0.

    Args:
        values: The values, not negative.
        levels: The most levels.
    """
    if not values.size:
        return ()
    cuts = {int(np.quantile(values, level / levels)) for level in range(1, levels)}
    return tuple(sorted(cut for cut in cuts if cut > 0))


def channel_classes(model: RansModel, planes: Sequence[SymbolPlane]) -> NDArray[np.uint8]:
    """Return the class of each channel; channels that behave alike share one.

    With few channels, each has a class of its own. Otherwise, their joint histograms of bins and
    coarse symbols are grouped.

    Args:
        model: A model with its predictor and bins.
        planes: The symbols.
    """
    channels = model.channels
    if channels <= _CLASS_LIMIT:
        return np.arange(channels, dtype=np.uint8)

    coarse_symbols = _SYMBOLS // _COARSE
    bins = len(model.bins) + 1
    counts = np.zeros(channels * bins * coarse_symbols)
    for symbols, geo in planes:
        base = predict(model, neighbours(symbols, 0, geo, model.initial))
        prediction = refine(model, base, symbols.astype(np.int32) - base)
        bin_of = np.searchsorted(np.array(model.bins, np.int64), prediction, "right")
        coarse = _coded(model, symbols, prediction) // _COARSE
        place = (np.arange(channels) * bins + bin_of) * coarse_symbols + coarse
        counts += np.bincount(place.ravel(), minlength=counts.size)

    # A channel with few counts is judged by what all channels together look like.
    rows = counts.reshape(channels, -1)
    backing = rows.sum(0) / max(1.0, rows.sum()) * 8
    return group(rows, _CLASS_LIMIT, np.broadcast_to(backing, rows.shape)).labels.astype(np.uint8)


def _coded(model: RansModel, symbols: Symbols, prediction: Wide) -> Wide:
    """What is coded of each symbol: its difference from the prediction, or the symbol itself."""
    if model.residual:
        return (symbols - prediction) & 0xFF
    return symbols.astype(np.int32)


def fit_tables(model: RansModel, planes: Sequence[SymbolPlane], tables: int) -> RansModel:
    """Fit the tables of a model whose predictor, bins, levels and classes are known.

    Args:
        model: The model; `contexts` has the shape [classes, levels, bins].
        planes: The symbols.
        tables: The most tables.

    Returns:
        The model with contexts and frequencies.
    """
    counts = _histograms(model, planes)
    groups = group(counts, tables, _backing(counts, model))
    smoothed = _smoothed(groups.counts)
    frequencies = np.stack([quantize_counts(row, model.table_bits) for row in smoothed])
    contexts = groups.labels.astype(np.uint8).reshape(model.contexts.shape)
    return replace(model, contexts=contexts, frequencies=frequencies)


def _histograms(model: RansModel, planes: Sequence[SymbolPlane]) -> Counts:
    """Counts of what is coded in each context, [classes * levels * bins, 256]."""
    counts = np.zeros(len(model.contexts) * model.levels * model.bin_count * _SYMBOLS)
    for symbols, geo in planes:
        base = predict(model, neighbours(symbols, 0, geo, model.initial))
        residuals = symbols.astype(np.int32) - base
        activity = surroundings(np.abs(residuals).sum(-1), 0, geo)
        prediction = refine(model, base, residuals)

        level_of = np.searchsorted(np.array(model.activity, np.int64), activity, "right")
        bin_of = np.searchsorted(np.array(model.bins, np.int64), prediction, "right")
        classes = model.classes.astype(np.int64)
        context = (classes * model.levels + level_of[:, None]) * model.bin_count + bin_of
        coded = _coded(model, symbols, prediction)
        counts += np.bincount((context * _SYMBOLS + coded).ravel(), minlength=counts.size)
    return counts.reshape(-1, _SYMBOLS)


def _backing(counts: Counts, model: RansModel) -> Counts:
    """What a context with few counts is judged by, with the shape of the counts.

    It is the mean histogram of similar contexts: of the same class and bin at all levels, which
    weighs most, of the same class, and of the same bin.
    """
    shape = (len(model.contexts), model.levels, model.bin_count, _SYMBOLS)
    shaped = counts.reshape(shape)
    all_levels = _normalised(shaped.sum(1, keepdims=True))
    same_class = _normalised(shaped.sum((1, 2), keepdims=True))
    same_bin = _normalised(shaped.sum((0, 1), keepdims=True))
    weighted = (
        4 * np.broadcast_to(all_levels, shape)
        + 2 * np.broadcast_to(same_class, shape)
        + 2 * np.broadcast_to(same_bin, shape)
    )
    return weighted.reshape(counts.shape)


def _normalised(counts: Counts) -> Counts:
    return counts / np.maximum(counts.sum(-1, keepdims=True), 1.0)


def _smoothed(counts: Counts) -> Counts:
    """Counts of which a little goes to the neighbouring symbols and to all that occur at all.

    The fewer counts a table has, the more of them is shared out, up to a quarter. That avoids
    escapes on data that was not seen.
    """
    total = counts.sum(1, keepdims=True)
    beside = np.zeros_like(counts)
    beside[:, 1:] += counts[:, :-1] / 2
    beside[:, :-1] += counts[:, 1:] / 2
    share = np.minimum(0.25, 24 / np.maximum(total, 1.0))
    return counts * (1 - share) + beside * share + counts.sum(0) / max(1.0, counts.sum()) * 0.5


def quantize_counts(counts: Counts, bits: int) -> NDArray[np.uint16]:
    """Round counts to the frequencies of a table.

    Each symbol gets its rounded share of 2**bits. Symbols whose share rounds to 0 are coded by the
    escape, which gets their shares together, and at least 1. While the sum is not 2**bits, the
    frequency changes by one whose change costs the fewest bits.

    Args:
        counts: Counts of the symbols, [256].
        bits: Precision of the table.

    Returns:
        Frequencies, [257] with the escape last; their sum is 2**bits.
    """
    total = 1 << bits
    share = counts / max(counts.sum(), 1e-9) * total
    frequencies = np.rint(share).astype(np.int64)
    missing = frequencies == 0
    reserved = max(1, round(float(share[missing].sum()))) if missing.any() else 0

    excess = int(frequencies.sum()) + reserved - total
    while excess != 0:
        step = 1 if excess < 0 else -1
        worth = _worth_of_step(share, frequencies, step)
        worth[missing] = -np.inf
        if not np.isfinite(worth).any():
            break
        frequencies[int(np.argmax(worth))] += step
        excess += step

    table = np.zeros(ESCAPE + 1, np.uint16)
    table[:ESCAPE] = frequencies
    table[ESCAPE] = total - int(frequencies.sum())
    if table.max() >= total:
        # No symbol may have the whole table: the escape keeps at least 1.
        table[ESCAPE], table[int(np.argmax(table[:ESCAPE]))] = 1, total - 1
    return table


def _worth_of_step(share: Counts, frequencies: NDArray[np.int64], step: int) -> NDArray[np.float64]:
    """The bits that are saved if the frequency of a symbol changes by `step`, for each symbol."""
    changed = np.maximum(frequencies + step, 1)
    saved = share * np.log2(changed / np.maximum(frequencies, 1))
    return np.where(frequencies + step > 0, saved, -np.inf)
