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
"""What numpy lets through of the libraries that it reads files with."""
_SOUND_ERRORS = (wave.Error, RuntimeError)


def tensor_info(value: Value) -> TensorInfo:
    """Name, type and shape of a value, as manifests carry them; None for a dimension that may vary, and its symbol."""
    if not isinstance(value.type, TensorType):
        return TensorInfo(value.name, "?" if value.type is None else value.type.text, None)
    shape = value.type.shape
    dims = None if shape is None else tuple(dim if isinstance(dim, int) else None for dim in shape)
    symbols = {axis: dim for axis, dim in enumerate(shape or ()) if isinstance(dim, str)}
    return TensorInfo(value.name, value.type.dtype.name, dims, symbols)


def seeded_calls(
    infos: Sequence[TensorInfo],
    count: int,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    below: int = 10,
) -> list[Inputs]:
    """`count` calls of random inputs, the same for the same seed.

    Floats are uniform in [0, 1), 8-bit integers use their whole range, wider ones are less than `below` (they are
    mostly indices). A dimension that may vary is 1, or what `dims` says for "<input>.<axis>" or "<input>" (all axes).
    """
    rng = np.random.default_rng(seed)
    try:
        return [
            {info.name: _random(rng, info, dims or {}, below) for info in infos}
            for _ in range(count)
        ]
    except (
        MemoryError,
        OverflowError,
        ValueError,
    ) as error:  # numpy has all three for arrays that are too large
        raise EngineError(
            f"inputs are too large to be made up: {reason(error)}; give smaller sizes (--dim)"
        ) from error


# The type is quoted because naming numpy.random imports it, which only made up inputs need.
def _random(
    rng: "np.random.Generator", info: TensorInfo, dims: Mapping[str, int], below: int
) -> NDArray[Any]:
    shape = [
        dim if dim is not None else dims.get(f"{info.name}.{axis}", dims.get(info.name, 1))
        for axis, dim in enumerate(info.shape or ())
    ]
    dtype = BY_NAME.get(info.dtype)
    if info.dtype == "str":
        return np.full(shape, "text", dtype=object)
    if dtype is None or dtype.storage is None or info.dtype.startswith("c"):
        raise UnsupportedError(
            f"input '{info.name}' of type {info.dtype} cannot be made up; give it with --input"
        )
    if dtype.storage.kind == "f":
        return rng.random(shape).astype(dtype.storage)
    if info.dtype == "bf16":
        return (rng.random(shape).astype(np.float32).view(np.uint32) >> 16).astype(dtype.storage)
    if info.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.bits == 8:
        return rng.integers(0, 256, shape).astype(np.uint8).view(dtype.storage)
    return rng.integers(0, below, shape).astype(dtype.storage)


def input_files(paths: Sequence[Path]) -> list[Path]:
    """The files that paths of inputs mean: a folder stands for the files in it."""
    return [
        file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])
    ]


def load_calls(paths: Sequence[Path], infos: Sequence[TensorInfo]) -> list[Inputs]:
    """Calls from files: every `.npz` has arrays by input name, the others are for models with one input.

    An array with one more axis than the input, or with more rows than its first
    axis takes, is a batch: one call a row. Raises EngineError naming the file.
    """
    files = input_files(paths)
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise EngineError(f"{missing}: no such file")
    calls: list[Inputs] = []
    for file in files:
        calls.extend(_calls_of(file, infos))
    if not calls:
        raise EngineError(
            f"no inputs in {', '.join(map(str, paths))}; give .npy, .npz, images or .wav files"
        )
    return calls


def load_input(word: str, info: TensorInfo) -> NDArray[Any]:
    """One array for one input: from an array, image or sound file, or the numbers in `word`, as JSON has them.

    Raises EngineError naming file and input.
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
    """Also of words that are numbers, and longer than a name may be."""
    try:
        return path.is_file()
    except OSError:
        return False


def _literal(word: str, info: TensorInfo) -> NDArray[Any]:
    storage = BY_NAME[info.dtype].storage if info.dtype in BY_NAME else None
    try:
        if storage is None:
            raise ValueError(info.dtype)
        with np.errstate(all="raise"):
            array = np.asarray(json.loads(word), storage)
        shape = [1 if dim is None else dim for dim in info.shape or ()]
        return np.broadcast_to(array, shape).copy() if array.ndim == 0 else array
    except (ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise EngineError(
            f"{shorten(word)}: no such file, given for input '{info.name}', nor numbers of {info.dtype}"
        ) from error


def image_array(path: Path, info: TensorInfo) -> NDArray[Any]:
    """An image resized to the input: NHWC or NCHW by where 1 or 3 stands; floats are in [0, 1], i8 is pixel - 128."""
    shape = list(info.shape or ())
    channels_last = len(shape) in (3, 4) and shape[-1] in (1, 3)
    channels_first = len(shape) in (3, 4) and shape[-3] in (1, 3)
    if not channels_last and not channels_first:
        raise EngineError(
            f"{path}: input '{info.name}' of shape {shape} is no image; give an array (.npy)"
        )
    height, width, channels = shape[-3:] if channels_last else (shape[-2], shape[-1], shape[-3])
    _check_storage(path, info)
    # Decoders of pictures raise whatever they like, and warn of large ones on standard error.
    boundary = reading(
        path,
        "cannot be read as an image",
        f"give one of {', '.join(IMAGES)}",
        EngineError,
        (Exception,),
    )
    with boundary, warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("error")
        size = (width or image.width, height or image.height)
        resized = image.convert("L" if channels == 1 else "RGB").resize(
            size, Image.Resampling.BILINEAR
        )
    pixels = np.asarray(resized).reshape(size[1], size[0], channels or 3)
    pixels = pixels if channels_last else pixels.transpose(2, 0, 1)
    dtype = BY_NAME[info.dtype]
    assert dtype.storage is not None
    values = (
        pixels / 255
        if dtype.is_float
        else pixels.astype(np.int16) - (128 if info.dtype == "i8" else 0)
    )
    return np.ascontiguousarray(values.astype(dtype.storage)).reshape(
        (1,) * (len(shape) - 3) + pixels.shape
    )


def sound_array(path: Path, info: TensorInfo) -> NDArray[Any]:
    """A 16-bit PCM wave file, first channel, cut or padded to the input; floats are in [-1, 1)."""
    _check_storage(path, info)
    with reading(
        path,
        "cannot be read as a wave file",
        "convert it to 16-bit PCM",
        EngineError,
        _SOUND_ERRORS,
    ):
        with wave.open(str(path), "rb") as sound:
            if sound.getsampwidth() != 2:
                raise ValueError(f"{8 * sound.getsampwidth()}-bit samples")
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")[
                :: sound.getnchannels()
            ]

        shape = [dim if dim is not None else 1 for dim in info.shape or (len(samples),)]
        if info.shape and info.shape[-1] is None:
            shape[-1] = len(samples)
        count = math.prod(shape)
        padded = np.pad(samples[:count], (0, max(0, count - len(samples))))
        dtype = BY_NAME[info.dtype]
        return (padded / 32768 if dtype.is_float else padded).astype(dtype.storage).reshape(shape)


def _check_storage(path: Path, info: TensorInfo) -> None:
    """Raise EngineError for an input whose elements are no numbers."""
    if info.dtype not in BY_NAME or BY_NAME[info.dtype].storage is None:
        raise EngineError(
            f"{path}: input '{info.name}' is {info.dtype}, no numbers; give an array (.npz)"
        )


def _calls_of(file: Path, infos: Sequence[TensorInfo]) -> list[Inputs]:
    if file.suffix.lower() == ".npz":
        arrays = _arrays(file)
    elif len(infos) == 1:
        arrays = {infos[0].name: load_input(str(file), infos[0])}
    else:
        raise EngineError(
            f"{file}: the model has {len(infos)} inputs; give .npz files with one array an input"
        )
    wanted = {info.name: info for info in infos}
    if len(arrays) == len(wanted) == 1:
        arrays = dict(
            zip(wanted, arrays.values(), strict=True)
        )  # one input, one array: whatever it is called
    if set(arrays) != set(wanted):
        raise EngineError(
            f"{file}: has {', '.join(arrays)}; give one array for each input: {', '.join(wanted)}"
        )
    rows = {name: _rows(array, wanted[name]) for name, array in arrays.items()}
    count = max(len(row) for row in rows.values())
    if any(len(row) not in (1, count) for row in rows.values()):
        sizes = ", ".join(f"{name} {len(row)}" for name, row in rows.items())
        raise EngineError(f"{file}: the arrays disagree on the number of calls: {sizes}")
    calls = [{name: row[index % len(row)] for name, row in rows.items()} for index in range(count)]
    try:
        return [check_inputs(infos, call) for call in calls]
    except EngineError as error:
        raise EngineError(f"{file}: {error}") from error


def _rows(array: NDArray[Any], info: TensorInfo) -> list[NDArray[Any]]:
    shape = info.shape
    if shape is None:
        return [array]
    if array.ndim == len(shape) + 1:
        return list(array)
    takes_one = array.ndim == len(shape) and array.ndim > 0 and shape[0] in (1, None)
    return [row[None] for row in array] if takes_one and len(array) > 1 else [array]


def _array(path: Path) -> NDArray[Any]:
    """The array of an .npy file."""
    arrays = _arrays(path)
    if list(arrays) != [""]:
        raise EngineError(f"{path}: holds {len(arrays)} arrays with names; call it .npz")
    return arrays[""]


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name, or the one of an .npy file by no name. Raises EngineError."""
    remedy = "save it again with numpy.save or numpy.savez"
    boundary = reading(path, "cannot be read as numpy arrays", remedy, EngineError, _ARRAY_ERRORS)
    # numpy would leave the file open that it fails to read.
    with boundary, warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # of headers that an old Python wrote
        loaded: Any = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            unpacked = sum(info.file_size for info in loaded.zip.infolist())
            if unpacked > _memory_bytes():
                raise ValueError(f"{unpacked} bytes when unpacked, more than this machine has")
            arrays = {name: loaded[name] for name in loaded.files}
    other = next(
        (name for name, array in arrays.items() if not isinstance(array, np.ndarray)), None
    )
    if other is not None:
        raise EngineError(f"{path}: '{other}' is no array; {remedy}")
    return arrays


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
