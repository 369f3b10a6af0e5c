"""What real inputs cost to send: for the baseline that leaves the whole model to the server."""

from irsplit.base.dtypes import from_numpy
from irsplit.engines.execute import Inputs
from irsplit.engines.measure import measure_codecs
from irsplit.engines.picture_baseline import measure_picture
from irsplit.planner.cost import TransferOption


def coded_inputs(call: Inputs) -> dict[str, tuple[TransferOption, ...]]:
    """Sizes of each input without loss, and as a picture where it looks like one.

    Sizes alone: times are of the machine that measures, and a report is the same wherever it is made.
    """
    found: dict[str, tuple[TransferOption, ...]] = {}
    for name, array in call.items():
        dtype = from_numpy(array)
        if dtype is not None and dtype.framable:
            codings = (*measure_codecs(name, dtype.name, [array], 1), *measure_picture(array))
            found[name] = tuple(
                TransferOption(coding.codec, coding.size_bytes)
                for coding in codings
                if coding.codec != "raw"
            )
    return found
