"""Measures what real inputs cost to send, for the baseline that runs the model on the server."""

from irsplit.base.dtypes import from_numpy
from irsplit.engines.execute import Inputs
from irsplit.engines.measure import measure_codecs
from irsplit.engines.picture_baseline import measure_picture
from irsplit.planner.cost import TransferOption


def coded_inputs(inputs: Inputs) -> dict[str, tuple[TransferOption, ...]]:
    """Sizes of each input without loss, and as a picture where it looks like one.

    The options have sizes alone: times would be of the machine that measures, and a report is the
    same wherever it is made.

    Args:
        inputs: The model's inputs, by name.

    Returns:
        Transfer options by name, for the inputs that can be framed.
    """
    options: dict[str, tuple[TransferOption, ...]] = {}
    for name, array in inputs.items():
        dtype = from_numpy(array)
        if dtype is None or not dtype.framable:
            continue

        measured = (*measure_codecs(name, dtype.name, [array], 1), *measure_picture(array))
        options[name] = tuple(
            TransferOption(transfer.codec, transfer.size_bytes)
            for transfer in measured
            if transfer.codec != "raw"
        )

    return options
