"""Errors that a user can cause, and the version that every artefact names.

Everything here derives from `IrsplitError`: the command line prints its text on one line and exits
with code 2. A defect of our own is never an `IrsplitError`: assertions and other exceptions keep
their traceback.
"""

VERSION = "0.2.0"

_LONGEST_NAME = 120
"""Letters of a name in a line of text; exporters make names of 80 letters and more."""


def short(name: str, most: int = _LONGEST_NAME) -> str:
    """Shorten a name from a file so that it fits into a line of an error message.

    The file may come from a stranger, so a name may be megabytes long or contain line breaks.

    Args:
        name: The name as the file has it.
        most: The largest number of letters to keep.

    Returns:
        The name with its middle left out if it is too long, and with letters that a terminal would
        interpret escaped.
    """
    if len(name) > most:
        name = f"{name[: most // 2]}...{name[-(most // 2) :]}"
    if name.isprintable():
        return name
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


class IrsplitError(Exception):
    """The user's input is at fault; the text says what is wrong, where, and how to fix it.

    Args:
        what: What is wrong. A message without the other fields may say everything here.
        where: The file, graph or key in which it is wrong; empty if `what` says it.
        remedy: What the user can do, in words of the Python interface; empty if `what` says it.
            The command line may replace it by words of its own.

    Example:
        >>> str(IrsplitError("no such input 'x'", where="model.onnx", remedy="give one of a, b"))
        "model.onnx: no such input 'x'; give one of a, b"
    """

    def __init__(self, what: str = "", *, where: str = "", remedy: str = "") -> None:
        # Only `what` goes to Exception: pickling calls the class with it and restores the fields.
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.remedy}" if self.remedy else text


class ModelError(IrsplitError):
    """A model file cannot be read, or holds what its format does not allow."""


class UnsupportedError(IrsplitError):
    """The input is valid, but irsplit does not support it; nothing is lost silently."""


class VerifyError(IrsplitError):
    """A model in the IR breaks an invariant."""


class ParseError(IrsplitError):
    """Text (IR, pipeline, option) does not parse; carries line and column."""


class CutError(IrsplitError):
    """A requested cut does not exist or is not legal."""


class PassError(IrsplitError):
    """A pass failed, or left the model invalid."""


class MeasureError(IrsplitError):
    """A measure of agreement is unknown, failed, or cannot read a model's outputs."""


class BundleError(IrsplitError):
    """A folder or file is not a bundle, or is damaged; or a file cannot be written."""


class FrameError(IrsplitError):
    """A frame is damaged, truncated, or belongs to another bundle."""


class EngineError(IrsplitError):
    """An inference engine refused a model or an input."""


class ModelRefusedError(EngineError):
    """An inference engine does not open a model, whatever its inputs would be."""


class PlanError(IrsplitError):
    """A profile is invalid, or no plan fits the limits; names the limit that binds."""


class ServeError(IrsplitError):
    """A server cannot be started as asked."""


class RemoteError(IrsplitError):
    """A server did not answer a request, and the device could not do it alone."""


class DeadlineError(RemoteError):
    """No answer in the time that the caller gave."""


class SessionLostError(RemoteError):
    """The state of a stream is gone; `reset()` starts a new one."""
