"""Errors that a user can cause, and the version that every artefact names.

Everything here derives from `IrsplitError`: the command line prints its text on one line and exits with code 2.
A defect of our own is never an `IrsplitError`: assertions and other exceptions fly with their trace.
"""

VERSION = "0.1.0"


_SHORT = 120
"""Letters of a name in a line of text; exporters make names of 80 and more."""


def short(name: str, most: int = _SHORT) -> str:
    """What a file calls something, for a line of text: a stranger may have written megabytes, or several lines.

    The middle of a long name is left out, and letters that a terminal would obey are escaped.
    """
    if len(name) > most:
        name = f"{name[: most // 2]}...{name[-(most // 2) :]}"
    return (
        name
        if name.isprintable()
        else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    )


class IrsplitError(Exception):
    """The user's input is at fault; the text says what, where and how to fix it."""


class ModelError(IrsplitError):
    """A model file cannot be read, or holds what its format does not allow."""


class UnsupportedError(IrsplitError):
    """The input is valid, but asks for what irsplit does not do; refused rather than silently lost."""


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
    """A folder or file is no bundle, or a damaged one."""


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
