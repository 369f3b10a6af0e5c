"""Pipelines: passes with their options, as text both ways, with the verifier behind every step.

    partition{cut=12 cut="block 3/add"},remove-unused,compress-boundary{codec=zstandard}

A field that is a tuple takes its option any number of times. The text is stored in the bundle,
which thus says how to make it again.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from irsplit.base.entry_points import entry_points, load
from irsplit.base.errors import IrsplitError, ParseError, PassError, VerifyError
from irsplit.ir import Model, verify
from irsplit.passes.base import Context, Pass

ENTRY_POINTS = "irsplit.passes"
_WORD = re.compile(r"""[^\s{},"=]+""")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Passes in the order in which they run.

    `str` gives the text that `parse` reads.

    Example:
        >>> from irsplit.ir import parse_model
        >>> from irsplit.passes import Context, Pipeline
        >>> pipeline = Pipeline.parse("partition{cut=1}, remove-unused")
        >>> model = parse_model('''graph @main(%x: f32[4]) -> (%y) {
        ...   %a = test.op(%x) : f32[4]
        ...   %y = test.op(%a) : f32[4]
        ... }''')
        >>> pipeline.run(model, Context())
        >>> [graph.name for graph in model.segments], str(pipeline)
        (['device', 'server'], 'partition{cut=1},remove-unused')
    """

    passes: tuple[Pass, ...]

    def __str__(self) -> str:
        return ",".join(_pass_text(pass_) for pass_ in self.passes)

    @classmethod
    def parse(cls, text: str, known: Mapping[str, type[Pass]] | None = None) -> "Pipeline":
        """Parse the text of a pipeline.

        Args:
            text: Passes with commas between them, each with its options in braces.
            known: The passes that the text may name; by default all that are installed.

        Raises:
            ParseError: A pass or an option is unknown, or a value is of the wrong type.
        """
        return cls(tuple(_Parser(text, registry() if known is None else known).pipeline()))

    def run(
        self, model: Model, context: Context, begin: Callable[[str], None] | None = None
    ) -> None:
        """Run every pass over the model, which it changes.

        Args:
            model: A valid model.
            context: What the passes share; see `Context`.
            begin: Called with the name of each pass before it runs.

        Raises:
            IrsplitError: A pass cannot do what it is asked for.
            PassError: A pass left the model invalid; the error names pass, step and pipeline.
        """
        for step, pass_ in enumerate(self.passes, 1):
            if begin is not None:
                begin(pass_.name)
            if pass_.run(model, context):
                context.changed()

            try:
                verify(model)
            except VerifyError as error:
                raise PassError(
                    f"pass '{pass_.name}' (step {step} of '{self}') left the model invalid: {error}"
                ) from error


def registry() -> dict[str, type[Pass]]:
    """Return every installed pass by name: ours and those of other packages.

    Raises:
        IrsplitError: An entry point is no pass, or two different passes have one name; the error
            names both.
    """
    origins: dict[str, tuple[type[Pass], str]] = {}
    for point in entry_points(ENTRY_POINTS):
        pass_: type[Pass] = load(point, "pass")
        if not dataclasses.is_dataclass(pass_) or not hasattr(pass_, "name"):
            raise IrsplitError(
                f"the pass '{point.name}' of {point.value} is no dataclass with a name; mend it"
            )

        other, origin = origins.get(pass_.name, (pass_, ""))
        if other is not pass_:
            raise IrsplitError(
                f"two passes are named '{pass_.name}': {origin} and {point.value}; uninstall one"
            )
        origins[pass_.name] = (pass_, point.value)
    return {name: pass_ for name, (pass_, _) in sorted(origins.items())}


def _pass_text(pass_: Pass) -> str:
    """Return the text of one step, without the options that have their default."""
    options: list[str] = []
    for field in dataclasses.fields(pass_):
        value: Any = getattr(pass_, field.name)
        if value == field.default:
            continue

        key = _option_name(field.name)
        items: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
        options += [f"{key}={_value_text(item)}" for item in items]
    return f"{pass_.name}{{{' '.join(options)}}}" if options else pass_.name


def _value_text(value: Any) -> str:
    """Return a value as a word, or as a JSON string where it is no word."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text)


def _option_name(field_name: str) -> str:
    return field_name.replace("_", "-")


def _required(pass_: type[Pass]) -> list[str]:
    """Return the options without a default."""
    absent = dataclasses.MISSING
    return [
        _option_name(field.name)
        for field in dataclasses.fields(pass_)
        if field.default is absent and field.default_factory is absent
    ]


class _Parser:
    """A recursive descent parser: each method reads one construct at the current position."""

    def __init__(self, text: str, known: Mapping[str, type[Pass]]) -> None:
        self.text = text
        self.known = known
        self.position = 0

    def fail(self, message: str) -> NoReturn:
        """Raise ParseError with the column of the current position."""
        raise ParseError(f"pipeline '{self.text}', column {self.position + 1}: {message}")

    def pipeline(self) -> Iterable[Pass]:
        """Read steps up to the end of the text."""
        if not self.text.strip():
            return
        while True:
            yield self.step()
            self.skip()
            if self.position == len(self.text):
                return
            self.expect(",")

    def step(self) -> Pass:
        """Read a pass with its options."""
        name = self.word("a pass")
        if name not in self.known:
            self.fail(f"unknown pass '{name}'; known passes: {', '.join(self.known)}")

        # What is missing is told before what is wrong.
        pass_ = self.known[name]
        options = self.options()
        missing = [key for key in _required(pass_) if key not in options]
        if missing:
            self.fail(
                f"pass '{name}' needs option '{missing[0]}'; write {name}{{{missing[0]}=VALUE}}"
            )

        arguments: dict[str, Any] = {}
        for key, values in options.items():
            arguments[key.replace("-", "_")] = self.converted(pass_, key, values)
        return pass_(**arguments)

    def options(self) -> dict[str, list[str]]:
        """Read options in braces, if there are any; each may be given several times."""
        options: dict[str, list[str]] = {}
        if not self.accept("{"):
            return options

        while not self.accept("}"):
            key = self.word("an option")
            self.expect("=")
            options.setdefault(key, []).append(self.value())
        return options

    def converted(self, pass_: type[Pass], key: str, values: Sequence[str]) -> Any:
        """Convert the values of an option to the type of its field.

        Args:
            pass_: The pass that the option is of.
            key: The option.
            values: Its texts, in the order in which they were given.
        """
        names = [_option_name(field.name) for field in dataclasses.fields(pass_)]
        if key not in names:
            self.fail(
                f"pass '{pass_.name}' has no option '{key}'; "
                f"its options: {', '.join(names) or 'none'}"
            )

        hint = get_type_hints(pass_)[key.replace("-", "_")]
        if get_origin(hint) is tuple:
            return tuple(self.converted_one(get_args(hint)[0], key, value) for value in values)
        if len(values) > 1:
            self.fail(f"option '{key}' of pass '{pass_.name}' is given twice")
        return self.converted_one(hint, key, values[0])

    def converted_one(self, hint: Any, key: str, value: str) -> Any:
        """Convert one value.

        Args:
            hint: The type of the field, or of an item of it; `int | None` takes an int.
            key: The option, for the error.
            value: The text.
        """
        plain = next((arg for arg in get_args(hint) if arg is not type(None)), hint)
        try:
            if plain is bool:
                return {"true": True, "false": False}[value]

            # No option of ours is infinite or not a number.
            converted = plain(value)
            if plain is float and not math.isfinite(converted):
                raise ValueError(value)
            return converted
        except (KeyError, ValueError, OverflowError):
            self.fail(f"option '{key}' takes a value of type {plain.__name__}, not '{value}'")

    def skip(self) -> None:
        """Move the position past white space."""
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def accept(self, symbol: str) -> bool:
        """Read the symbol if it comes next; whether it did."""
        self.skip()
        if not self.text.startswith(symbol, self.position):
            return False
        self.position += len(symbol)
        return True

    def expect(self, symbol: str) -> None:
        """Read the symbol, which must come next."""
        if not self.accept(symbol):
            self.fail(f"expected '{symbol}'")

    def word(self, what: str) -> str:
        """Read a word; `what` names it in the error for anything else."""
        self.skip()
        match = _WORD.match(self.text, self.position)
        if match is None:
            self.fail(f"expected {what}")
        self.position = match.end()
        return match.group()

    def value(self) -> str:
        """Read a word or a JSON string."""
        self.skip()
        if not self.text.startswith('"', self.position):
            return self.word("a value")
        try:
            value, self.position = json.JSONDecoder().raw_decode(self.text, self.position)
        except json.JSONDecodeError:
            self.fail("the string has no end")
        return str(value)
