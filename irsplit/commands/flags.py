"""The flags that stand for names of the Python interface, and old names of flags."""

import re
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from irsplit.base.errors import IrsplitError

_FLAGS = {
    # Fields of CompileOptions
    "cuts": "--cut",
    "max_tensors": "--max-tensors",
    "rematerialise": "--rematerialise",
    "state": "--state",
    "dims": "--dim",
    "places": "--place",
    "device": "--device",
    "server": "--server",
    "link": "--link",
    "objective": "--objective",
    "limits": "--limit",
    "policy": "--rule",
    "pattern": "--pattern",
    "load": "--load",
    "codec": "--codec",
    "quantize": "--quantize",
    "boundary_ops": "--boundary-ops",
    "agreement_measure": "--agreement-measure",
    "autonomous": "--autonomous",
    "adaptive": "--adaptive",
    "pipeline": "--pipeline",
    "external_over": "--external-over",
    "share_weights": "--share-weights",
    "report": "--no-report",
    "warnings_are_errors": "--werror",
    # Arguments of functions
    "calibration": "--calibration",
    "inputs": "--input",
    "samples": "--inputs",
    "model": "--model",
    "seed": "--seed",
    "allow_nothing": "--allow-nothing",
    "place": "--place",
    "sign_with": "--sign",
    "public_key": "--public-key",
    "name": "--name",
    "providers": "--provider",
    "delegates": "--delegate",
    "threads": "--threads",
    # Options of a server
    "host": "--host",
    "port": "--port",
    "http_port": "--http-port",
    "workers": "--workers",
    "queue": "--queue",
    "token": "--token-file",
    "certificate": "--tls-cert",
    "key": "--tls-key",
    "insecure": "--insecure",
    "grace_s": "--grace",
    "connections": "--max-connections",
    "frame_bytes": "--max-frame-bytes",
    "decoded_bytes": "--max-decoded-bytes",
    "held_bytes": "--max-held-bytes",
    "rows": "--max-rows",
    "working_bytes": "--max-working-bytes",
    "sessions": "--max-sessions",
    "session_idle_s": "--session-idle",
}
"""The flag for a name of the Python interface. Texts of the rooms below name the latter, in
backquotes; only the command line knows the former."""

_COMMANDS = {"find_cuts": "cuts"}
"""Functions whose command has another name."""

_NAME = re.compile(r"`(irsplit\.)?([a-z][a-z_0-9]*)(?:=([^`]*))?`")


def in_flags(text: str) -> str:
    """The text with flags and commands in place of names of the Python interface.

    Names are recognised in backquotes: `max_tensors`, `codec="raw"`, `irsplit.plan`.
    """
    return _NAME.sub(_in_flags, text)


def _in_flags(match: re.Match[str]) -> str:
    module, name, value = match.groups()
    if module:
        return f"'irsplit {_COMMANDS.get(name, name).replace('_', '-')}'"
    if name not in _FLAGS:
        return match[0]
    word = "" if value is None else value.strip("\"'")
    return f"{_FLAGS[name]} {word}".rstrip()


def text_of(error: IrsplitError) -> str:
    """The text of an error for a user of the command line, with flags in its remedy."""
    if not error.remedy:
        return str(error)
    cause = str(error).removesuffix(f"; {error.remedy}")
    return f"{cause}; {in_flags(error.remedy)}"


class OldName(Action):
    """An option by the name that it had until 0.1; a note says which one it has now."""

    def __init__(
        self, option_strings: Sequence[str], dest: str, *, renamed: str, **keywords: Any
    ) -> None:
        super().__init__(option_strings, dest, **keywords)
        self.renamed = renamed

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)
        note = f"{option_string} is {self.renamed} now; the old name goes with the next release"
        namespace.old_names = [*old_names(namespace), note]


def old_names(arguments: Namespace) -> list[str]:
    """Notes on options that were given by an old name."""
    return getattr(arguments, "old_names", [])
