"""Train static-rans models: from calibration samples of a tensor to the model in its descriptor.

A model has a predictor, contexts, and tables of probabilities. Training tries candidates, which
differ in how many contexts they have and in whether symbols are coded as they are or as residuals
of the prediction:

1. The samples become planes of symbols (`choose_elements`, `symbol_planes`), of which at most a
   budget is looked at.
2. The planes are split: three quarters to fit the candidates to, a quarter to measure them on.
3. Each candidate is fitted: predictor (`fit_predictor`), thresholds and classes of the contexts,
   tables (`fit_tables`).
4. The candidate that codes the held-out planes in the fewest bits is fitted again to all planes.

Everything is deterministic.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from irsplit.base.errors import UnsupportedError
from irsplit.codec_training.fit_predictor import fit_references, fit_weights
from irsplit.codec_training.fit_tables import (
    channel_classes,
    equal_bins,
    fit_tables,
    predictions_and_activity,
    quantile_levels,
)
from irsplit.codec_training.symbol_planes import (
    SymbolPlane,
    bands,
    channels_come_first,
    split_held_out,
    thinned,
    to_planes,
)
from irsplit.codec_training.symbols import choose_elements
from irsplit.runtime.frame.descriptor import TensorSpec
from irsplit.runtime.frame.rans_model import (
    ESCAPE,
    FLAT,
    MAX_CHANNELS,
    Elements,
    RansModel,
    model_chunk,
)

Array = NDArray[np.generic]

_SYMBOL_BUDGET = 1_500_000
"""How many symbols of the samples are looked at; more hardly change a table."""
_DRAFT_BUDGET = 200_000
_MOST_LANES = 32
_SYMBOLS_PER_LANE = 512


@dataclass(frozen=True)
class ContextShape:
    """How many contexts and tables a candidate has.

    Attributes:
        bins: Bins of the prediction.
        levels: Levels of activity.
        tables: The most tables.
    """

    bins: int
    levels: int
    tables: int


PLAIN = (ContextShape(1, 1, 32), ContextShape(1, 1, 8), ContextShape(1, 1, 1))
"""Candidates without a predictor: contexts are classes of channels alone."""
CONTEXTS = (
    ContextShape(1, 1, 16),
    ContextShape(3, 2, 16),
    ContextShape(6, 3, 32),
    ContextShape(12, 3, 32),
)
"""Candidates with a predictor."""


@dataclass(frozen=True)
class Candidate:
    """A form of model to fit.

    Attributes:
        shape: Its contexts.
        residual: Whether symbols are coded as residuals of the prediction.
        references: Whether earlier channels correct the prediction.
        predictor: "none" or "linear".
    """

    shape: ContextShape
    residual: bool
    references: bool
    predictor: str


DRAFT = Candidate(ContextShape(6, 3, 32), residual=True, references=False, predictor="linear")
"""The candidate that comes closest to the best one for most tensors."""


def channel_axis(spec: TensorSpec, layout: str) -> int:
    """Return the axis of the channels.

    A tensor of three dims is taken for a sequence with its features last in both layouts; only
    data can tell that it is [N, C, L].

    Args:
        spec: Shape of the tensor.
        layout: "NCHW" or "NHWC"; the latter also for sequences with their features last.

    Returns:
        The axis; FLAT if the tensor has no channels, or more than the format allows.
    """
    rank = len(spec.shape)
    if rank == 0:
        return FLAT

    axis = 1 if layout == "NCHW" and rank == 4 else rank - 1
    channels = spec.shape[axis]
    if channels is None or not 1 <= channels <= MAX_CHANNELS:
        return FLAT

    # A single row has one symbol for each channel: too little to learn from if there are many.
    single_row = all(dim == 1 for dim in spec.shape[:-1])
    return FLAT if single_row and channels > 4096 else axis


def train_model(
    samples: Sequence[Array],
    spec: TensorSpec,
    *,
    layout: str = "NHWC",
    level: int = 1,
    table_bits: int = 11,
) -> RansModel:
    """Train the best model of a level.

    Args:
        samples: Values of the tensor, of the type and rank of the spec; one is enough.
        spec: Type, shape and quantization of the tensor.
        layout: "NCHW" or "NHWC".
        level: 0 has no predictor; 2 lets earlier channels correct the prediction.
        table_bits: Precision of the probabilities.

    Returns:
        The model; `to_bytes` gives the parameters of the descriptor.

    Raises:
        UnsupportedError: The samples are empty, or static-rans does not code their type.

    Example:
        model = train_model([activations], spec, layout="NCHW")
        replace(spec, codec="static-rans", parameters=model.to_bytes())
    """
    start, planes = _prepared(samples, spec, layout, table_bits)
    pieces = thinned(planes if len(planes) > 1 else bands(planes[0]), _SYMBOL_BUDGET)
    candidates = _candidates(level, start, len(planes[0].symbols))
    best = candidates[0]
    if len(candidates) > 1:
        fitted, held = split_held_out(pieces)
        best = min(
            candidates, key=lambda candidate: coded_bits(_fit(start, fitted, candidate), held)
        )
    return _fit(start, pieces, best)


def draft_model(samples: Sequence[Array], spec: TensorSpec, *, layout: str = "NHWC") -> RansModel:
    """Train about the model that `train_model` finds at level 1, in a tenth of its time.

    It fits one candidate, DRAFT, to some of the data. Frames were 0 to 5 % larger, for activations
    of a detector as floats and in 8 bits.

    Args:
        samples: As for `train_model`.
        spec: As for `train_model`.
        layout: As for `train_model`.
    """
    start, planes = _prepared(samples, spec, layout, table_bits=11)
    candidates = _candidates(1, start, len(planes[0].symbols))
    candidate = DRAFT if DRAFT in candidates else candidates[0]
    return _fit(start, thinned(planes, _DRAFT_BUDGET), candidate)


def _prepared(
    samples: Sequence[Array], spec: TensorSpec, layout: str, table_bits: int
) -> tuple[RansModel, list[SymbolPlane]]:
    """An untrained model, and the planes to train it on."""
    if not samples or samples[0].size == 0:
        raise UnsupportedError(
            f"tensor {spec.name!r}: nothing to train on; give at least one non-empty calibration "
            "tensor"
        )

    axis = channel_axis(spec, layout)
    elements = choose_elements(samples, spec)
    planes = to_planes(samples, spec, axis, elements)
    if layout == "NCHW" and channels_come_first(samples, spec, planes):
        axis = 1
        planes = to_planes(samples, spec, axis, elements)
    return _untrained(axis, elements, planes, table_bits), planes


def _untrained(
    axis: int, elements: Elements, planes: Sequence[SymbolPlane], table_bits: int
) -> RansModel:
    """A model without a predictor, with empty tables; its initial symbol is the median."""
    channels = planes[0].geometry.channels
    everything = np.concatenate([plane.symbols.ravel() for plane in planes])
    return RansModel(
        channel_axis=axis,
        channels=channels,
        elements=elements,
        predictor="none",
        residual=False,
        initial=int(np.median(everything)) if everything.size else 0,
        table_bits=table_bits,
        lanes=_lanes(channels, planes[0].symbols.size),
        bins=(),
        activity=(),
        weights=np.zeros((0, 4), np.int8),
        references=np.zeros((0, 2), np.uint16),
        reference_weights=np.zeros((0, 2), np.int8),
        classes=np.zeros(channels, np.uint8),
        contexts=np.zeros((1, 1, 1), np.uint8),
        frequencies=np.zeros((1, ESCAPE + 1), np.uint16),
    )


def _lanes(channels: int, symbols: int) -> int:
    """How many lanes of symbols are interleaved.

    As many as the vectors of a fast decoder have, unless there are too few channels, or the state
    of each lane would take too much of a small frame.
    """
    lanes = _MOST_LANES
    while lanes > 1 and (lanes >= 2 * channels or lanes * _SYMBOLS_PER_LANE > symbols):
        lanes //= 2
    return lanes


def _candidates(level: int, model: RansModel, pixels: int) -> list[Candidate]:
    """The candidates of a level; a single pixel has no neighbours to predict it from."""
    if level == 0 or pixels < 2:
        return [
            Candidate(shape, residual=False, references=False, predictor="none") for shape in PLAIN
        ]

    references = level == 2 and model.channels > model.lanes
    candidates: list[Candidate] = []
    for shape in CONTEXTS:
        candidates.append(Candidate(shape, False, references, "linear"))
        candidates.append(Candidate(shape, True, references, "linear"))
    return candidates


def _fit(start: RansModel, planes: list[SymbolPlane], candidate: Candidate) -> RansModel:
    """Fit a candidate to planes, beginning with an untrained model."""
    # the predictor
    model = replace(start, residual=candidate.residual, predictor=candidate.predictor)
    if candidate.predictor == "linear":
        model = replace(model, weights=fit_weights(planes, model.channels))
    if candidate.references:
        model = fit_references(model, planes)

    # the contexts: bins of predictions, levels of activity, classes of channels
    predictions, activity = predictions_and_activity(model, planes)
    shape = candidate.shape
    limited = np.minimum(activity, 255 * 3 * model.channels)
    model = replace(
        model,
        bins=equal_bins(predictions, shape.bins, 255),
        activity=quantile_levels(limited, shape.levels),
    )
    classes = channel_classes(model, planes)
    contexts = np.zeros((int(classes.max()) + 1, model.levels, model.bin_count), np.uint8)

    # the tables
    return fit_tables(replace(model, classes=classes, contexts=contexts), planes, shape.tables)


def coded_bits(model: RansModel, planes: Sequence[SymbolPlane]) -> float:
    """Return how many bits a model's tables need for planes, escapes included.

    A symbol takes minus the logarithm of its probability. One that the table does not have takes
    an escape and 8 bits.

    Args:
        model: A trained model.
        planes: The symbols to code.
    """
    frequencies = model.frequencies.astype(np.float64)
    with np.errstate(divide="ignore"):
        bits = model.table_bits - np.log2(frequencies)
    escape = bits[:, ESCAPE:] + 8
    prices = np.where(np.isfinite(bits[:, :ESCAPE]), bits[:, :ESCAPE], escape)

    total = 0.0
    for symbols, geo in planes:
        coded = model_chunk(model, symbols, 0, geo)
        total += float(prices[coded.tables, coded.symbols].sum())
    return total
