"""Read arguments of the command line as fields of `CompileOptions`."""

from argparse import Namespace
from dataclasses import fields
from typing import Any

from irsplit.compilation.options import CompileKeywords, CompileOptions

OPTION_NAMES = frozenset(field.name for field in fields(CompileOptions))
"""The fields of `CompileOptions`, which arguments are named after."""


def options_of(arguments: Namespace) -> CompileOptions:
    """Return the options that the arguments give; all others have their defaults."""
    return CompileOptions(**given_options(arguments))


def given_options(arguments: Namespace) -> CompileKeywords:
    """Return the fields of `CompileOptions` that the arguments give and that are not None."""
    keywords: Any = {
        name: value
        for name, value in vars(arguments).items()
        if name in OPTION_NAMES and value is not None
    }
    return keywords
