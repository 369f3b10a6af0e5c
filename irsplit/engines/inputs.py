"""Inputs for a model: seeded ones, and those in a user's files (arrays, images, sound)."""

import json
import math
import os
import tokenize
import warnings
import wave
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from irsplit.base.dtypes import BY_NAME
from irsplit.base.errors import EngineError, UnsupportedError
from irsplit.base.lazy import LazyModule
from irsplit.base.reading import reading, reason, shorten
from irsplit.ir import TensorType, Value
from irsplit.runtime.bundle.manifest import TensorInfo
from irsplit.runtime.run.session import check_inputs

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = LazyModule("PIL.Image")

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
Inputs = dict[str, NDArray[Any]]

_ARRAY_ERRORS = (zipfile.BadZipFile, zlib.error, RuntimeError, SyntaxError, tokenize.TokenError)
"""Errors of the libraries that numpy reads files with, which it lets through."""
_SOUND_ERRORS = (wave.Error, RuntimeError)


def tensor_info(value: Value) -> TensorInfo:
    """Describe a value as manifests do.

    Returns:
        Name, type and shape. A dimension that may vary is None, with its symbol beside.
    """
    if not isinstance(value.type, TensorType):
        return TensorInfo(value.name, "?" if value.type is None else value.type.text, None)

    shape = value.type.shape
    symbols = {axis: dim for axis, dim in enumerate(shape or ()) if isinstance(dim, str)}
    if shape is None:
        return TensorInfo(value.name, value.type.dtype.name, None, symbols)
    dims = tuple(dim if isinstance(dim, int) else None for dim in shape)
    return TensorInfo(value.name, value.type.dtype.name, dims, symbols)


# -- made-up inputs -------------------------------------------------------------------------------


def seeded_calls(
    infos: Sequence[TensorInfo],
    count: int,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    below: int = 10,
) -> list[Inputs]:
    """Make random samples, the same for the same seed.

    Floats are uniform in [0, 1). Integers of 8 bits use their whole range. Wider integers are
    mostly indices, so they stay small.

    Args:
        infos: Names, types and shapes of the inputs.
        count: Number of samples.
        seed: Seed of the random elements.
        dims: Sizes of dimensions that may vary, by "<input>.<axis>" or by "<input>" for all its
            axes. Others have size 1.
        below: Exclusive limit of wide integers.

    Raises:
        EngineError: The arrays would be too large.
        UnsupportedError: No elements can be made up for a type.
    """
    rng = np.random.default_rng(seed)
    samples: list[Inputs] = []
    # numpy raises any of these three for an array that is too large.
    try:
        for _ in range(count):
            samples.append({info.name: _random(rng, info, dims or {}, below) for info in infos})
    except (MemoryError, OverflowError, ValueError) as error:
        raise EngineError(
            f"inputs are too large to be made up: {reason(error)}; give smaller sizes (--dim)"
        ) from error
    return samples


def size_of(name: str, axis: int, dims: Mapping[str, int], default: int = 1) -> int:
    """The size of an open dimension: `dims` names it by "<input>.<axis>" or by "<input>"."""
    return dims.get(f"{name}.{axis}", dims.get(name, default))


# The type is quoted because naming numpy.random imports it, which only made-up inputs need.
def _random(
    rng: "np.random.Generator", info: TensorInfo, dims: Mapping[str, int], below: int
) -> NDArray[Any]:
    """One array of random elements for an input."""
    shape = [
        size_of(info.name, axis, dims) if dim is None else dim
        for axis, dim in enumerate(info.shape or ())
    ]
    if info.dtype == "str":
        return np.full(shape, "text", dtype=object)

    dtype = BY_NAME.get(info.dtype)
    if dtype is None or dtype.storage is None or info.dtype.startswith("c"):
        raise UnsupportedError(
            f"input '{info.name}' of type {info.dtype} cannot be made up; give it with --input"
        )

    if dtype.storage.kind == "f":
        return rng.random(shape).astype(dtype.storage)
    if info.dtype == "bf16":
        # A bf16 is the upper half of an f32, and numpy stores it as an integer.
        return (rng.random(shape).astype(np.float32).view(np.uint32) >> 16).astype(dtype.storage)
    if info.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.bits == 8:
        return rng.integers(0, 256, shape).astype(np.uint8).view(dtype.storage)
    return rng.integers(0, below, shape).astype(dtype.storage)


# -- samples in files -----------------------------------------------------------------------------


def input_files(paths: Sequence[Path]) -> list[Path]:
    """List the input files that some paths mean; a folder stands for the files in it."""
    files: list[Path] = []
    for path in paths:
        files.extend(sorted(path.iterdir()) if path.is_dir() else [path])
    return files


def load_calls(paths: Sequence[Path], infos: Sequence[TensorInfo]) -> list[Inputs]:
    """Load samples from files.

    An .npz file holds arrays by input name. Any other file is for a model with one input. An array
    with one axis more than the input, or with more rows than the input's first axis takes, is a
    batch: each row is one sample.

    Args:
        paths: Files, or folders of files.
        infos: Names, types and shapes of the model's inputs.

    Raises:
        EngineError: A file is missing, unreadable or does not fit. The text names the file.
    """
    files = input_files(paths)
    # A missing file is reported before the others are read, which may take long.
    for file in files:
        if not file.is_file():
            raise EngineError(f"{file}: no such file")

    samples: list[Inputs] = []
    for file in files:
        samples.extend(_samples_of(file, infos))
    if not samples:
        raise EngineError(
            f"no inputs in {', '.join(map(str, paths))}; give .npy, .npz, images or .wav files"
        )
    return samples


def _samples_of(file: Path, infos: Sequence[TensorInfo]) -> list[Inputs]:
    """The samples in one file, checked against the model's inputs."""
    arrays = _arrays_by_input(file, infos)

    # An input with one row is the same in all samples of the file.
    rows = {info.name: _rows(arrays[info.name], info) for info in infos}
    count = max((len(row) for row in rows.values()), default=1)
    if any(len(row) not in (1, count) for row in rows.values()):
        sizes = ", ".join(f"{name} {len(row)}" for name, row in rows.items())
        raise EngineError(f"{file}: the arrays disagree on the number of samples: {sizes}")

    samples: list[Inputs] = []
    for index in range(count):
        inputs = {name: row[index % len(row)] for name, row in rows.items()}
        try:
            samples.append(check_inputs(infos, inputs))
        except EngineError as error:
            raise EngineError(f"{file}: {error}") from error
    return samples


def _arrays_by_input(file: Path, infos: Sequence[TensorInfo]) -> Inputs:
    """The arrays in one file: exactly one for each input of the model."""
    names = [info.name for info in infos]
    if file.suffix.lower() == ".npz":
        arrays = _arrays(file)
    elif len(infos) == 1:
        arrays = {names[0]: load_input(str(file), infos[0])}
    else:
        raise EngineError(
            f"{file}: the model has {len(infos)} inputs; give .npz files with one array an input"
        )

    # With one input and one array, the name of the array does not matter.
    if len(arrays) == len(names) == 1:
        return dict(zip(names, arrays.values(), strict=True))
    if set(arrays) != set(names):
        raise EngineError(
            f"{file}: has {', '.join(arrays)}; give one array for each input: {', '.join(names)}"
        )
    return arrays


def _rows(array: NDArray[Any], info: TensorInfo) -> list[NDArray[Any]]:
    """Split a batch into arrays for one inference each; an array that is no batch is one row."""
    shape = info.shape
    if shape is None:
        return [array]
    if array.ndim == len(shape) + 1:
        return list(array)

    # The batch axis of the input itself may hold the samples.
    takes_one = array.ndim == len(shape) and array.ndim > 0 and shape[0] in (1, None)
    if not takes_one or len(array) <= 1:
        return [array]
    return [row[None] for row in array]


# -- one input ------------------------------------------------------------------------------------


def load_input(word: str, info: TensorInfo) -> NDArray[Any]:
    """Load one array for one input.

    Args:
        word: Path of an array, image or sound file, or the elements themselves as JSON.
        info: Name, type and shape of the input.

    Raises:
        EngineError: The file or the elements do not fit. The text names file and input.
    """
    path = Path(word)
    if not _is_file(path):
        return _literal(word, info)

    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _array(path)
    if suffix in IMAGES:
        return image_array(path, info)
    if suffix == ".wav":
        return sound_array(path, info)
    raise EngineError(
        f"{path}: unknown kind of input; give .npy, .wav or an image ({', '.join(IMAGES)})"
    )


def _is_file(path: Path) -> bool:
    """Whether there is such a file; the path may be elements, longer than a file name may be."""
    try:
        return path.is_file()
    except OSError:
        return False


def _literal(word: str, info: TensorInfo) -> NDArray[Any]:
    """The array that `word` spells as JSON; a single number fills the whole input."""
    storage = BY_NAME[info.dtype].storage if info.dtype in BY_NAME else None
    try:
        if storage is None:
            raise ValueError(info.dtype)
        # A number that the type cannot hold is an error, not an infinity.
        with np.errstate(all="raise"):
            array = np.asarray(json.loads(word), storage)
        if array.ndim > 0:
            return array
        shape = [1 if dim is None else dim for dim in info.shape or ()]
        return np.broadcast_to(array, shape).copy()
    except (ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise EngineError(
            f"{shorten(word)}: no such file, given for input '{info.name}', nor numbers of "
            f"{info.dtype}"
        ) from error


def image_array(path: Path, info: TensorInfo) -> NDArray[Any]:
    """Load an image and resize it to the input.

    The input is NHWC or NCHW, depending on which axis has size 1 or 3. Floats are in [0, 1], i8
    elements are pixel - 128, other integers are the pixels.

    Raises:
        EngineError: The file is no image, or the input does not look like one.
    """
    shape = list(info.shape or ())
    channels_last = len(shape) in (3, 4) and shape[-1] in (1, 3)
    channels_first = len(shape) in (3, 4) and shape[-3] in (1, 3)
    if not channels_last and not channels_first:
        raise EngineError(
            f"{path}: input '{info.name}' of shape {shape} is no image; give an array (.npy)"
        )
    _check_storage(path, info)

    if channels_last:
        height, width, channels = shape[-3:]
    else:
        channels, height, width = shape[-3:]
    pixels = _pixels(path, height, width, channels or 3)
    if not channels_last:
        pixels = pixels.transpose(2, 0, 1)

    dtype = BY_NAME[info.dtype]
    assert dtype.storage is not None
    # Subtract in 16 bits, because pixels - 128 does not fit into unsigned bytes.
    offset = 128 if info.dtype == "i8" else 0
    values = pixels / 255 if dtype.is_float else pixels.astype(np.int16) - offset
    batch = (1,) * (len(shape) - 3)
    return np.ascontiguousarray(values.astype(dtype.storage)).reshape(batch + pixels.shape)


def _pixels(path: Path, height: int | None, width: int | None, channels: int) -> NDArray[np.uint8]:
    """The pixels of an image file, height x width x channels; None keeps the image's own size."""
    what, remedy = "cannot be read as an image", f"give one of {', '.join(IMAGES)}"
    # Decoders of pictures raise whatever they like, and warn of large ones on standard error.
    guard = reading(path, what, remedy, EngineError, (Exception,))
    with guard, warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("error")
        size = (width or image.width, height or image.height)
        converted = image.convert("L" if channels == 1 else "RGB")
        resized = converted.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(size[1], size[0], channels)


def sound_array(path: Path, info: TensorInfo) -> NDArray[Any]:
    """Load the first channel of a 16-bit PCM wave file, cut or padded to the input.

    Floats are in [-1, 1); integers are the samples of the sound. If the input's last dimension may
    vary, it takes the whole sound.

    Raises:
        EngineError: The file is no such sound, or the input has no numbers.
    """
    _check_storage(path, info)
    what, remedy = "cannot be read as a wave file", "convert it to 16-bit PCM"
    with reading(path, what, remedy, EngineError, _SOUND_ERRORS):
        with wave.open(str(path), "rb") as sound:
            if sound.getsampwidth() != 2:
                raise ValueError(f"{8 * sound.getsampwidth()}-bit samples")
            interleaved = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
            samples = interleaved[:: sound.getnchannels()]

        shape = [dim if dim is not None else 1 for dim in info.shape or (len(samples),)]
        if info.shape and info.shape[-1] is None:
            shape[-1] = len(samples)

        count = math.prod(shape)
        padded = np.pad(samples[:count], (0, max(0, count - len(samples))))
        dtype = BY_NAME[info.dtype]
        scaled = padded / 32768 if dtype.is_float else padded
        return scaled.astype(dtype.storage).reshape(shape)


def _check_storage(path: Path, info: TensorInfo) -> None:
    """Raise EngineError for an input whose elements are no numbers."""
    if info.dtype not in BY_NAME or BY_NAME[info.dtype].storage is None:
        raise EngineError(
            f"{path}: input '{info.name}' is {info.dtype}, no numbers; give an array (.npz)"
        )


# -- numpy's files --------------------------------------------------------------------------------


def _array(path: Path) -> NDArray[Any]:
    """The array of an .npy file."""
    arrays = _arrays(path)
    if list(arrays) != [""]:
        raise EngineError(f"{path}: holds {len(arrays)} arrays with names; call it .npz")
    return arrays[""]


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name, or the single array of an .npy file by the name "".

    Raises:
        EngineError: The file is damaged, needs more memory than there is, or holds other objects.
    """
    remedy = "save it again with numpy.save or numpy.savez"
    guard = reading(path, "cannot be read as numpy arrays", remedy, EngineError, _ARRAY_ERRORS)
    # The file is opened here, because numpy leaves a file open that it fails to read.
    with guard, warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # numpy warns of headers that an old Python wrote
        loaded: Any = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}

        with loaded:
            # A small archive may claim to hold more than the memory of the machine.
            unpacked = sum(info.file_size for info in loaded.zip.infolist())
            if unpacked > _memory_bytes():
                raise ValueError(f"{unpacked} bytes when unpacked, more than this machine has")
            arrays = {name: loaded[name] for name in loaded.files}

    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise EngineError(f"{path}: '{name}' is no array; {remedy}")
    return arrays


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
