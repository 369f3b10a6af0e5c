"""Arguments of the command line as fields of `CompileOptions`."""

from argparse import Namespace
from dataclasses import fields
from typing import Any

from irsplit.compilation.options import CompileKeywords, CompileOptions

OPTION_NAMES = frozenset(field.name for field in fields(CompileOptions))


def options_of(arguments: Namespace) -> CompileOptions:
    """The options that the arguments stand for; what they do not say has its default."""
    return CompileOptions(**given_options(arguments))


def given_options(arguments: Namespace) -> CompileKeywords:
    """The fields of `CompileOptions` that the arguments have, where they are not None."""
    keywords: Any = {
        name: value
        for name, value in vars(arguments).items()
        if name in OPTION_NAMES and value is not None
    }
    return keywords
