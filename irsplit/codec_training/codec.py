"""Choose and train the codec of one tensor of a boundary, by measured size and time."""

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
"""Bytes a second to encode and to decode, by codec (`zstandard`) or level (`zstandard-19`)."""

LEVELS = ("L0", "L1", "L2")
SLOWEST = "zstandard-19"
SLOWEST_BYTES = 1 << 22
"""The slowest codec is tried only if the held-out samples have at most so many bytes together,
which takes a second or two."""
_REPEATS = 5
_DICTIONARY_BYTES = 1 << 13
_DICTIONARY_PIECE = 4096


def train(
    samples: Sequence[Array],
    spec: TensorSpec,
    *,
    layout: str = "NHWC",
    level: int = 1,
    table_bits: int = 11,
) -> TensorSpec:
    """Train the codec static-rans for a tensor. Deterministic.

    Args:
        samples: Values of the tensor as they will be framed. One is enough; eight give nearly all
            there is to gain.
        spec: Type, shape and quantization of the tensor.
        layout: "NCHW" or "NHWC"; the latter also for sequences with their features last.
        level: 0 is the fastest, 2 gives the smallest frames.
        table_bits: Precision of the probabilities; 10 instead of 11 halves the decoder's tables.

    Returns:
        The spec with the codec and its trained model.

    Raises:
        UnsupportedError: The samples are empty, or static-rans does not code their type.

    Example:
        spec = train(samples, spec, layout="NCHW")
        frame_bytes(spec, samples)
    """
    model = train_model(samples, spec, layout=layout, level=level, table_bits=table_bits)
    return replace(spec, codec="static-rans", parameters=model.to_bytes(), chunk=0)


def draft(samples: Sequence[Array], spec: TensorSpec, *, layout: str = "NHWC") -> TensorSpec:
    """Do about what `train` does in a tenth of its time, to know sizes before training is worth it.

    Args:
        samples: As for `train`.
        spec: As for `train`.
        layout: As for `train`.
    """
    model = draft_model(samples, spec, layout=layout)
    return replace(spec, codec="static-rans", parameters=model.to_bytes(), chunk=0)


def frame_bytes(spec: TensorSpec, samples: Sequence[Array]) -> int:
    """Return the mean size of a frame that has one of the samples in it, in bytes."""
    codec = open_codec(FrameSchema(0, spec.name, (spec,)))
    return round(float(np.mean([len(codec.encode([sample])) for sample in samples])))


def held_out(samples: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Split samples into those to train on and a quarter of them to measure on.

    Returns:
        Both lists; if there is only one sample, it is in both.
    """
    held = list(samples[3::4] or samples[-1:])
    held_ids = {id(array) for array in held}
    fitted = [array for array in samples if id(array) not in held_ids]
    return fitted or list(samples), held


def with_zstandard(
    samples: Sequence[Array], spec: TensorSpec, *, level: int = 3, dictionary: bool = False
) -> TensorSpec:
    """Return the spec with the codec zstandard.

    Args:
        samples: Values of the tensor, from which the dictionary is trained.
        spec: Type, shape and quantization of the tensor.
        level: The compression level of zstandard.
        dictionary: Whether to have a dictionary; it is left out if there are too few data.
    """
    content = _dictionary(samples) if dictionary else b""
    parameters = zstandard_parameters(level, content)
    return replace(spec, codec="zstandard", parameters=parameters, chunk=0)


def _dictionary(samples: Sequence[Array]) -> bytes:
    pieces: list[bytes | bytearray | memoryview] = []
    for sample in samples:
        data = sample.tobytes()
        for start in range(0, len(data), _DICTIONARY_PIECE):
            pieces.append(data[start : start + _DICTIONARY_PIECE])
    try:
        return zstandard.train_dictionary(_DICTIONARY_BYTES, pieces).as_bytes()
    except zstandard.ZstdError:  # too few data
        return b""


@dataclass(frozen=True)
class MeasuredCodec:
    """One codec, measured on the held-out samples.

    Attributes:
        name: Name of the candidate, such as `zstandard-3` or `static-rans-L1`.
        size_bytes: Mean size of a frame.
        encode_s: Mean seconds to encode a frame, on this machine or by given rates.
        decode_s: Mean seconds to decode a frame.
    """

    name: str
    size_bytes: float
    encode_s: float
    decode_s: float

    def seconds(self, rate_bit_s: float | None) -> float:
        """Return the time to encode, send and decode; without a rate, the size stands for it."""
        if rate_bit_s is None:
            return self.size_bytes
        return self.encode_s + 8 * self.size_bytes / rate_bit_s + self.decode_s


@dataclass(frozen=True)
class CodecChoice:
    """The codec that was chosen for a tensor.

    Attributes:
        spec: The tensor's spec with the codec, trained on all samples.
        name: Name of the candidate.
        measured: All candidates that were tried.
    """

    spec: TensorSpec
    name: str
    measured: tuple[MeasuredCodec, ...]

    def size_bytes(self, name: str = "") -> int:
        """Return the mean size of a frame on the held-out samples.

        Args:
            name: A candidate; by default the chosen one.
        """
        by_name = {codec.name: codec for codec in self.measured}
        return round(by_name[name or self.name].size_bytes)


_Recipe = Callable[[Sequence[Array], TensorSpec, str], TensorSpec]
"""Makes a candidate from samples, the tensor's spec and the layout."""


def _static(level: int) -> _Recipe:
    return lambda samples, spec, layout: train(samples, spec, layout=layout, level=level)


def _zstandard(level: int) -> _Recipe:
    return lambda samples, spec, layout: with_zstandard(samples, spec, level=level)


def _recipes(spec: TensorSpec) -> dict[str, _Recipe]:
    """All candidates for a tensor, the slowest one last."""
    recipes: dict[str, _Recipe] = {
        "raw": lambda samples, spec, layout: replace(spec, codec="raw", parameters=b"", chunk=0),
        "zstandard-1": _zstandard(1),
        "zstandard-3": _zstandard(3),
        "zstandard-dictionary": lambda samples, spec, layout: with_zstandard(
            samples, spec, dictionary=True
        ),
    }
    if supports(spec):
        for level, name in enumerate(LEVELS):
            recipes[f"static-rans-{name}"] = _static(level)
    recipes[SLOWEST] = _zstandard(19)
    return recipes


def measure(name: str, spec: TensorSpec, samples: Sequence[Array]) -> MeasuredCodec:
    """Measure a codec with the code that will run.

    Args:
        name: Name of the candidate.
        spec: The tensor's spec with the codec.
        samples: The samples to encode and decode.

    Returns:
        The mean size of a frame, and the mean of the best of five times.
    """
    codec = open_codec(FrameSchema(0, spec.name, (spec,)))
    sizes: list[int] = []
    encode_s, decode_s = 0.0, 0.0
    for sample in samples:
        out = np.empty_like(sample)
        frame = codec.encode([sample])
        sizes.append(len(frame))
        encode_s += _fastest(lambda sample=sample: codec.encode([sample]))
        decode_s += _fastest(lambda frame=frame, out=out: codec.decode(memoryview(frame), [out]))
    count = len(samples)
    return MeasuredCodec(name, float(np.mean(sizes)), encode_s / count, decode_s / count)


def _fastest(call: Callable[[], object]) -> float:
    """The shortest of a few times that a call takes, in seconds."""
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
    """Choose the codec that is fastest over a link, or smallest without one.

    Candidates are trained on three quarters of the samples and measured on the others; the winner
    is trained again on all of them. A single sample is used for both, so that its sizes look a
    little too good. The slowest candidate comes last, and only if it may win.

    Args:
        samples: Values of the tensor as they will be framed.
        spec: Type, shape and quantization of the tensor.
        layout: "NCHW" or "NHWC".
        rate_bit_s: Rate of the link: the sum of encoding, sending and decoding decides. None: the
            size decides.
        speeds: Rates of the codecs, in place of times on this machine; the choice is then the same
            on every machine.

    Returns:
        The winner, and what was measured.

    Raises:
        UnsupportedError: The samples are empty.

    Example:
        choice = choose_codec(samples, spec, rate_bit_s=20e6)
        choice.name, choice.size_bytes()
    """
    arrays = [np.ascontiguousarray(sample) for sample in samples]
    fitted, held = held_out(arrays)
    recipes = _recipes(spec)
    measured: list[MeasuredCodec] = []
    for name, recipe in recipes.items():
        # It is the last one, so that there is a best one to compare it with.
        if name == SLOWEST:
            best_s = min(codec.seconds(rate_bit_s) for codec in measured)
            if not _may_win(best_s, held, rate_bit_s, speeds):
                continue
        measured.append(_measured(name, recipe(fitted, spec, layout), held, speeds))

    best = min(measured, key=lambda codec: codec.seconds(rate_bit_s))
    return CodecChoice(recipes[best.name](arrays, spec, layout), best.name, tuple(measured))


def _may_win(
    best_s: float, held: Sequence[Array], rate_bit_s: float | None, speeds: CodecRates | None
) -> bool:
    """Whether the slowest codec is worth trying: its encoding alone must not take `best_s`."""
    if sum(array.nbytes for array in held) > SLOWEST_BYTES:
        return False
    if rate_bit_s is None or speeds is None:
        return True
    encode_rate, _ = _speed(SLOWEST, "zstandard", speeds)
    return _mean_bytes(held) / encode_rate < best_s


def _measured(
    name: str, spec: TensorSpec, held: Sequence[Array], speeds: CodecRates | None
) -> MeasuredCodec:
    """Measure a candidate; with `speeds`, only its size is measured, and times follow from it."""
    if speeds is None:
        return measure(name, spec, held)
    encode_rate, decode_rate = _speed(name, spec.codec, speeds)
    size = _mean_bytes(held)
    return MeasuredCodec(name, frame_bytes(spec, held), size / encode_rate, size / decode_rate)


def _speed(name: str, codec: str, speeds: CodecRates) -> tuple[float, float]:
    """Rates of a candidate or its codec; one without any, such as raw, takes no time."""
    return speeds.get(name) or speeds.get(codec) or (float("inf"), float("inf"))


def _mean_bytes(arrays: Sequence[Array]) -> float:
    return float(np.mean([array.nbytes for array in arrays]))
