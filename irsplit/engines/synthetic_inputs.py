"""Seeded inputs for a model when nobody gave all of them, in sizes that the engine accepts."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod
from typing import TypeVar

from irsplit.base.errors import EngineError, ModelRefusedError
from irsplit.engines.execute import Inputs
from irsplit.engines.inputs import seeded_calls, size_of
from irsplit.runtime.bundle.manifest import TensorInfo
from irsplit.runtime.run.session import check_inputs

_T = TypeVar("_T")

SIZES = ((1, 1), (1, 16), (16, 16), (1, 128), (128, 128), (1, 1024), (1024, 1024))
"""Sizes to try for open dimensions: of an input's first axis (mostly the batch), of the others."""

BELOW = (10, 2)
"""Limits to try for wide integers, which mostly are indices: all elements are below the limit."""

_INDICES = ("i32", "i64")

_LARGEST = 1 << 24
"""Most elements of one input: larger sizes are not tried."""


def first_taken(
    run: Callable[[Sequence[Inputs]], _T],
    infos: Sequence[TensorInfo],
    count: int,
    *,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    given: Inputs | None = None,
) -> tuple[list[Inputs], _T]:
    """Make up inputs that an engine accepts, by trying sizes and ranges until a run succeeds.

    The candidates are `SIZES` and `BELOW`, in that order. The first for which `run` raises no
    EngineError wins. A model that the engine refuses to open at all is tried once.

    Args:
        run: Runs the model on some samples and returns anything.
        infos: Names, types and shapes of the model's inputs.
        count: Number of samples to make.
        seed: Seed of the random elements.
        dims: Sizes of some open dimensions, as `seeded_calls` takes them.
        given: Inputs that need not be made up. Every sample gets them.

    Returns:
        The samples, and what `run` returned for them.

    Raises:
        EngineError: Given inputs do not fit the model, or `run` accepts no candidate: then the
            text is that of its first refusal.
    """
    given = given or {}
    missing = [info for info in infos if info.name not in given]
    has_indices = any(info.dtype in _INDICES for info in missing)
    limits = BELOW if has_indices else BELOW[:1]
    refusal: EngineError | None = None

    for sizes, below in product(_candidates(missing, dims or {}), limits):
        samples: list[Inputs] = []
        for made_up in seeded_calls(missing, count, seed, sizes, below):
            samples.append(check_inputs(infos, {**made_up, **given}))
        try:
            return samples, run(samples)
        except ModelRefusedError:
            # No inputs help a model that the engine does not even open.
            raise
        except EngineError as error:
            refusal = refusal or error

    assert refusal is not None, "the first sizes are always tried"
    if not missing:
        raise refusal
    raise EngineError(
        f"{refusal}\n  the inputs were made up; if that is the reason, give real ones (--input) "
        "or sizes (--dim)"
    ) from refusal


def _candidates(infos: Sequence[TensorInfo], dims: Mapping[str, int]) -> list[dict[str, int]]:
    """Different sizes of all open dimensions, by "<input>.<axis>".

    The smallest candidate is always there, however large its inputs are.
    """
    candidates: list[dict[str, int]] = []
    for first, other in SIZES:
        sizes = _all_sizes(infos, dims, first, other)
        fits = all(_elements(info, sizes) <= _LARGEST for info in infos)
        if not candidates or (fits and sizes not in candidates):
            candidates.append(sizes)
    return candidates


def _all_sizes(
    infos: Sequence[TensorInfo], dims: Mapping[str, int], first: int, other: int
) -> dict[str, int]:
    """Sizes of all open dimensions: what `dims` says, else `first` for axis 0 and `other`."""
    sizes: dict[str, int] = {}
    for info in infos:
        for axis, dim in enumerate(info.shape or ()):
            if dim is None:
                default = other if axis else first
                sizes[f"{info.name}.{axis}"] = size_of(info.name, axis, dims, default)
    return sizes


def _elements(info: TensorInfo, sizes: Mapping[str, int]) -> int:
    """Number of elements of an input with these sizes."""
    shape = enumerate(info.shape or ())
    return prod(sizes.get(f"{info.name}.{axis}", dim or 1) for axis, dim in shape)
