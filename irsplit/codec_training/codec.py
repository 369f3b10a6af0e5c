"""Codec of a boundary tensor: train the model of one, or choose among all by measured size and time."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import zstandard
from numpy.typing import NDArray

from irsplit.codec_training.symbols import supports
from irsplit.codec_training.train import draft_model, train_model
from irsplit.runtime.frame.descriptor import FrameSchema, TensorSpec, zstandard_parameters
from irsplit.runtime.frame.frame import open_codec

Array = NDArray[np.generic]
CodecRates = Mapping[str, tuple[int, int]]
"""Bytes a second to encode and to decode, by codec (`zstandard`) or by one of its levels (`zstandard-19`)."""

LEVELS = ("L0", "L1", "L2")
SLOWEST = "zstandard-19"
SLOWEST_BYTES = 1 << 22
"""It is tried on held-out samples of at most so many bytes together, which take it a second or two."""
_REPEATS = 5
_DICTIONARY_BYTES = 1 << 13


def train(
    samples: Sequence[Array],
    spec: TensorSpec,
    *,
    layout: str = "NHWC",
    level: int = 1,
    table_bits: int = 11,
) -> TensorSpec:
    """The spec with codec static-rans and a model trained on `samples`: arrays as they will be framed, one is enough,
    eight give nearly all there is to gain. `layout` is NCHW or NHWC (also for sequences: features last). Level 0 is the
    fastest, 2 the smallest; 10 table bits halve the decoder's tables. Deterministic.
    """
    model = train_model(samples, spec, layout=layout, level=level, table_bits=table_bits)
    return replace(spec, codec="static-rans", parameters=model.to_bytes(), chunk=0)


def draft(samples: Sequence[Array], spec: TensorSpec, *, layout: str = "NHWC") -> TensorSpec:
    """About what `train` gives, for a tenth of its time: to know sizes before it is worth training."""
    return replace(
        spec,
        codec="static-rans",
        parameters=draft_model(samples, spec, layout=layout).to_bytes(),
        chunk=0,
    )


def frame_bytes(spec: TensorSpec, samples: Sequence[Array]) -> int:
    """Mean size of a frame with one of the samples in it."""
    codec = open_codec(FrameSchema(0, spec.name, (spec,)))
    return round(float(np.mean([len(codec.encode([sample])) for sample in samples])))


def held_out(samples: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Samples to fit to, and a quarter of them to measure on; of a single one, the same for both."""
    held = list(samples[3::4] or samples[-1:])
    return [array for array in samples if not any(array is other for other in held)] or list(
        samples
    ), held


def with_zstandard(
    samples: Sequence[Array], spec: TensorSpec, *, level: int = 3, dictionary: bool = False
) -> TensorSpec:
    """The spec with codec zstandard; the dictionary is trained on `samples` and left out where that is impossible."""
    content = _dictionary(samples) if dictionary else b""
    return replace(
        spec, codec="zstandard", parameters=zstandard_parameters(level, content), chunk=0
    )


def _dictionary(samples: Sequence[Array]) -> bytes:
    pieces: list[bytes | bytearray | memoryview] = [
        data[at : at + 4096]
        for data in (sample.tobytes() for sample in samples)
        for at in range(0, len(data), 4096)
    ]
    try:
        return zstandard.train_dictionary(_DICTIONARY_BYTES, pieces).as_bytes()
    except zstandard.ZstdError:  # too little data
        return b""


@dataclass(frozen=True)
class MeasuredCodec:
    """One codec on the held-out samples: sizes of whole frames, and times of this machine, a frame."""

    name: str
    size_bytes: float
    encode_s: float
    decode_s: float

    def seconds(self, rate_bit_s: float | None) -> float:
        """Encode, send and decode; without a rate the size alone decides."""
        if rate_bit_s is None:
            return self.size_bytes
        return self.encode_s + 8 * self.size_bytes / rate_bit_s + self.decode_s


@dataclass(frozen=True)
class CodecChoice:
    spec: TensorSpec
    name: str
    measured: tuple[MeasuredCodec, ...]

    def size_bytes(self, name: str = "") -> int:
        """Mean frame of a candidate on the held-out samples, the chosen one by default."""
        return round(
            next(one.size_bytes for one in self.measured if one.name == (name or self.name))
        )


_Recipe = Callable[[Sequence[Array], TensorSpec, str], TensorSpec]


def _static(level: int) -> _Recipe:
    return lambda samples, spec, layout: train(samples, spec, layout=layout, level=level)


def _recipes(spec: TensorSpec) -> dict[str, _Recipe]:
    recipes: dict[str, _Recipe] = {
        "raw": lambda samples, spec, layout: replace(spec, codec="raw", parameters=b"", chunk=0),
        "zstandard-1": lambda samples, spec, layout: with_zstandard(samples, spec, level=1),
        "zstandard-3": lambda samples, spec, layout: with_zstandard(samples, spec, level=3),
        "zstandard-dictionary": lambda samples, spec, layout: with_zstandard(
            samples, spec, dictionary=True
        ),
    }
    if supports(spec):
        recipes |= {f"static-rans-{name}": _static(level) for level, name in enumerate(LEVELS)}
    recipes[SLOWEST] = lambda samples, spec, layout: with_zstandard(samples, spec, level=19)
    return recipes


def measure(name: str, spec: TensorSpec, samples: Sequence[Array]) -> MeasuredCodec:
    """Mean frame size and best-of-five times, through the codec that will run."""
    boundary = FrameSchema(0, spec.name, (spec,))
    codec = open_codec(boundary)
    sizes: list[int] = []
    encode_s, decode_s = 0.0, 0.0
    for sample in samples:
        out = np.empty_like(sample)
        frame = codec.encode([sample])
        sizes.append(len(frame))
        encode_s += _fastest(lambda sample=sample: codec.encode([sample]))
        decode_s += _fastest(lambda frame=frame, out=out: codec.decode(memoryview(frame), [out]))
    return MeasuredCodec(
        name, float(np.mean(sizes)), encode_s / len(samples), decode_s / len(samples)
    )


def _fastest(call: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def choose_codec(
    samples: Sequence[Array],
    spec: TensorSpec,
    *,
    layout: str = "NHWC",
    rate_bit_s: float | None = None,
    speeds: CodecRates | None = None,
) -> CodecChoice:
    """The codec with the shortest encode + send + decode on a link of `rate_bit_s`, or the smallest without a rate.

    Candidates are trained on three quarters of the samples and measured on the others; the winner is trained again on
    all of them. With one sample there is nothing to hold out, and sizes look a little too good. `speeds` are in place
    of this machine's times: the choice is then the same anywhere. The slowest candidate comes last, and only where it
    may win and the held-out samples have at most SLOWEST_BYTES.
    """
    arrays = [np.ascontiguousarray(sample) for sample in samples]
    fitted, held = held_out(arrays)
    recipes = _recipes(spec)
    measured: list[MeasuredCodec] = []
    for name, recipe in recipes.items():
        if name != SLOWEST or _may_win(
            min(one.seconds(rate_bit_s) for one in measured), held, rate_bit_s, speeds
        ):
            measured.append(_measured(name, recipe(fitted, spec, layout), held, speeds))
    best = min(measured, key=lambda one: one.seconds(rate_bit_s))
    return CodecChoice(recipes[best.name](arrays, spec, layout), best.name, tuple(measured))


def _may_win(
    best: float, held: Sequence[Array], rate_bit_s: float | None, speeds: CodecRates | None
) -> bool:
    """Whether the slowest codec is worth trying: it may beat `best` if its encoding alone does not take longer."""
    if sum(array.nbytes for array in held) > SLOWEST_BYTES:
        return False
    return (
        rate_bit_s is None
        or speeds is None
        or _mean_bytes(held) / _speed(SLOWEST, "zstandard", speeds)[0] < best
    )


def _measured(
    name: str, spec: TensorSpec, held: Sequence[Array], speeds: CodecRates | None
) -> MeasuredCodec:
    """With the times that speeds mean; a codec without them, such as raw, takes none."""
    if speeds is None:
        return measure(name, spec, held)
    encode, decode = (_mean_bytes(held) / speed for speed in _speed(name, spec.codec, speeds))
    return MeasuredCodec(name, frame_bytes(spec, held), encode, decode)


def _speed(name: str, codec: str, speeds: CodecRates) -> tuple[float, float]:
    return speeds.get(name) or speeds.get(codec) or (float("inf"), float("inf"))


def _mean_bytes(arrays: Sequence[Array]) -> float:
    return float(np.mean([array.nbytes for array in arrays]))
