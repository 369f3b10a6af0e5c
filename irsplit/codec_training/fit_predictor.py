"""Fit the linear prediction of a symbol: from its neighbours, and from earlier channels.

The decoder predicts each symbol from the four neighbours that it has decoded already (west, north,
north-west, north-east). Then it can correct the prediction with the residuals of two earlier
channels of the same pixel. All weights are in 1/64 and fit into a signed byte.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from irsplit.codec_training.symbol_planes import SymbolPlane
from irsplit.runtime.frame.rans_model import WEIGHT_BITS, RansModel, neighbours, predict

_UNTRAINED = np.array([0.5, 0.5, 0, 0])
"""The weights without any data: the mean of west and north."""


def fit_weights(planes: Sequence[SymbolPlane], channels: int) -> NDArray[np.int8]:
    """Fit the weights of the neighbours, for each channel.

    The weights are a least-squares fit with two ridge terms. The first one draws the fit of all
    channels together towards the mean of west and north. The second one draws the fit of each
    channel towards that shared fit, which decides where a channel has little data.

    Args:
        planes: The symbols to predict.
        channels: How many channels they have.

    Returns:
        Weights in 1/64, [channels, 4].
    """
    products, targets = np.zeros((channels, 4, 4)), np.zeros((channels, 4))
    for symbols, geo in planes:
        around = neighbours(symbols, 0, geo, 0)

        # Leave out pixels at the border, whose neighbours are made up.
        inner = np.arange(len(symbols)) % geo.width > 0
        if len(symbols) > geo.width:
            inner &= np.arange(len(symbols)) >= geo.width
        # Sum up the normal equations, so that planes need not be in memory together.
        features = np.stack([plane[inner] for plane in around], axis=-1).astype(np.float64)
        products += np.einsum("pci,pcj->cij", features, features)
        targets += np.einsum("pci,pc->ci", features, symbols[inner].astype(np.float64))

    # the fit of all channels together
    scale = np.trace(products.sum(0)) / max(1, channels)
    ridge = scale * 1e-4 * np.eye(4) + 1e-3 * np.eye(4)
    shared = np.linalg.solve(products.sum(0) + ridge, targets.sum(0) + ridge @ _UNTRAINED)

    # the fit of each channel
    own = np.trace(products, axis1=1, axis2=2)[:, None, None] * 3e-4 * np.eye(4) + ridge
    fitted = np.linalg.solve(products + own, (targets + own @ shared)[..., None])[..., 0]
    return _rounded_weights(fitted)


def _rounded_weights(weights: NDArray[np.float64]) -> NDArray[np.int8]:
    """Weights in 1/64, scaled so that the magnitudes of each pair add up to 2 at most.

    The format asks for that limit, so that decoders can add a pair in 16 bits.
    """
    pairs = np.abs(weights).reshape(-1, 2, 2).sum(2)
    limit = np.repeat(np.minimum(1, 1.96 / np.maximum(pairs, 1e-9)), 2, axis=1)
    return np.clip(np.rint(weights * limit * (1 << WEIGHT_BITS)), -127, 127).astype(np.int8)


def fit_references(model: RansModel, planes: Sequence[SymbolPlane]) -> RansModel:
    """Choose two reference channels for each channel, and their weights.

    Channels are decoded in groups of as many as there are lanes, so that a reference must be from
    an earlier group. The first one is the channel whose residuals explain most of the channel's
    own, by their covariance. The second one explains most of what is left.

    Args:
        model: A model with its neighbours' weights.
        planes: The symbols to predict.

    Returns:
        The model with references.
    """
    covariance = _residual_covariance(model, planes)
    power = np.diag(covariance) + 1.0
    references = np.zeros((model.channels, 2), np.uint16)
    weights = np.zeros((model.channels, 2), np.int8)
    for channel in range(model.lanes, model.channels):
        earlier = channel // model.lanes * model.lanes
        row = covariance[channel, :earlier]
        pair = _reference_pair(covariance, power, row)

        # Solve for both weights at once, with a ridge against channels that are nearly the same.
        ridge = np.eye(2) * (0.01 * power[pair[0]] + 1)
        matrix = covariance[np.ix_(pair, pair)] + ridge
        solution = np.linalg.solve(matrix, row[pair]) * (1 << WEIGHT_BITS)
        references[channel] = pair
        weights[channel] = np.clip(np.rint(solution), -127, 127)
    return replace(model, references=references, reference_weights=weights)


def _residual_covariance(model: RansModel, planes: Sequence[SymbolPlane]) -> NDArray[np.float64]:
    """Covariance of what the neighbours do not predict, [channels, channels]."""
    covariance = np.zeros((model.channels, model.channels))
    for symbols, geo in planes:
        base = predict(model, neighbours(symbols, 0, geo, model.initial))
        residuals = (symbols.astype(np.int32) - base).astype(np.float64)
        covariance += residuals.T @ residuals
    return covariance


def _reference_pair(
    covariance: NDArray[np.float64], power: NDArray[np.float64], row: NDArray[np.float64]
) -> list[int]:
    """The two earlier channels that explain most of a channel.

    `row` is the channel's covariance with each earlier channel.
    """
    earlier = len(row)
    first = int(np.argmax(row**2 / power[:earlier]))

    # What remains of each covariance and power once the first reference is taken out.
    with_first = covariance[first, :earlier]
    left = row - with_first * row[first] / power[first]
    spread = np.maximum(power[:earlier] - with_first**2 / power[first], 0.05 * power[:earlier])
    gain = left**2 / spread
    gain[first] = -1
    return [first, int(np.argmax(gain))]
