"""Calls for a model when nobody gave all of its inputs: seeded values, in sizes that the engine takes."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod
from typing import TypeVar

from irsplit.base.errors import EngineError, ModelRefusedError
from irsplit.engines.execute import Inputs
from irsplit.engines.inputs import seeded_calls
from irsplit.runtime.bundle.manifest import TensorInfo
from irsplit.runtime.run.session import check_inputs

_T = TypeVar("_T")

SIZES = ((1, 1), (1, 16), (16, 16), (1, 128), (128, 128), (1, 1024), (1024, 1024))
"""What to try for dimensions that may vary: an input's first one, which mostly is the batch, and the others."""

BELOW = (10, 2)
"""What to try for wide integers, which mostly are indices: all are less than this."""

_INDICES = ("i32", "i64")

_LARGEST = 1 << 24
"""Elements of one input, beyond which sizes are not tried."""


def first_taken(
    run: Callable[[Sequence[Inputs]], _T],
    infos: Sequence[TensorInfo],
    count: int,
    *,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    given: Inputs | None = None,
) -> tuple[list[Inputs], _T]:
    """`count` calls that `run` takes, and what it returned for them.

    Every call has the inputs that are `given`, and seeded values for the others: of the first of SIZES and BELOW with
    which `run` raises no EngineError. `dims` says how large some dimensions are, as `seeded_calls` takes it. Raises
    EngineError for inputs that do not fit, and with the first of its reasons when `run` takes none; a model that the
    engine does not even open is run once.
    """
    given = given or {}
    missing = [info for info in infos if info.name not in given]
    refusal: EngineError | None = None
    limits = BELOW if any(info.dtype in _INDICES for info in missing) else BELOW[:1]
    for sizes, below in product(_candidates(missing, dims or {}), limits):
        made_up = seeded_calls(missing, count, seed, sizes, below)
        calls: list[Inputs] = [check_inputs(infos, {**call, **given}) for call in made_up]
        try:
            return calls, run(calls)
        except ModelRefusedError:
            raise
        except EngineError as error:
            refusal = refusal or error
    assert refusal is not None, "the first sizes are always tried"
    if not missing:
        raise refusal
    raise EngineError(
        f"{refusal}\n  the inputs were made up; if they are why, give real ones (--input) or sizes (--dim)"
    ) from refusal


def _candidates(infos: Sequence[TensorInfo], dims: Mapping[str, int]) -> list[dict[str, int]]:
    """Different sizes of all dimensions that may vary, by "<input>.<axis>"; those of ones first."""
    candidates: list[dict[str, int]] = []
    for first, other in SIZES:
        sizes = {
            f"{info.name}.{axis}": dims.get(
                f"{info.name}.{axis}", dims.get(info.name, other if axis else first)
            )
            for info in infos
            for axis, dim in enumerate(info.shape or ())
            if dim is None
        }
        fits = all(_elements(info, sizes) <= _LARGEST for info in infos)
        if not candidates or (fits and sizes not in candidates):
            candidates.append(sizes)
    return candidates


def _elements(info: TensorInfo, sizes: Mapping[str, int]) -> int:
    return prod(
        sizes.get(f"{info.name}.{axis}", dim or 1) for axis, dim in enumerate(info.shape or ())
    )
