"""Pipelines: passes with their options, as text both ways, run with the verifier behind every step.

    partition{cut=12 cut="block 3/add"},remove-unused,compress-boundary{codec=zstandard}

A field that is a tuple takes its option any number of times. The text is stored in the bundle, which thus names how to
make itself again.
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
    """Passes in the order in which they run; `str` gives the text that `parse` reads."""

    passes: tuple[Pass, ...]

    def __str__(self) -> str:
        return ",".join(_printed(pass_) for pass_ in self.passes)

    @classmethod
    def parse(cls, text: str, known: Mapping[str, type[Pass]] | None = None) -> "Pipeline":
        """Raises ParseError for unknown passes and options, and for values of the wrong type."""
        return cls(tuple(_Parser(text, registry() if known is None else known).pipeline()))

    def run(
        self, model: Model, context: Context, begin: Callable[[str], None] | None = None
    ) -> None:
        """Run every pass, telling `begin` its name before.

        Raises PassError, naming pass, step and pipeline, when one leaves the model invalid.
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
    """Every installed pass by name: ours and those of other packages. Two with one name are an error naming both."""
    found: dict[str, tuple[type[Pass], str]] = {}
    for point in entry_points(ENTRY_POINTS):
        pass_: type[Pass] = load(point, "pass")
        if not dataclasses.is_dataclass(pass_) or not hasattr(pass_, "name"):
            raise IrsplitError(
                f"the pass '{point.name}' of {point.value} is no dataclass with a name; mend it"
            )
        if pass_.name in found and found[pass_.name][0] is not pass_:
            raise IrsplitError(
                f"two passes are named '{pass_.name}': {found[pass_.name][1]} and {point.value}; uninstall one"
            )
        found[pass_.name] = (pass_, point.value)
    return {name: pass_ for name, (pass_, _) in sorted(found.items())}


def _printed(pass_: Pass) -> str:
    options: list[str] = []
    for field in dataclasses.fields(pass_):
        value = getattr(pass_, field.name)
        if value == field.default:
            continue
        for item in value if isinstance(value, tuple) else (value,):  # pyright: ignore[reportUnknownVariableType]
            options.append(f"{field.name.replace('_', '-')}={_printed_value(item)}")
    return f"{pass_.name}{{{' '.join(options)}}}" if options else pass_.name


def _printed_value(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text)


def _required(pass_: type[Pass]) -> list[str]:
    """Options without a default."""
    fields = dataclasses.fields(pass_)
    absent = dataclasses.MISSING
    return [
        f.name.replace("_", "-")
        for f in fields
        if f.default is absent and f.default_factory is absent
    ]


class _Parser:
    def __init__(self, text: str, known: Mapping[str, type[Pass]]) -> None:
        self.text = text
        self.known = known
        self.position = 0

    def fail(self, message: str) -> NoReturn:
        raise ParseError(f"pipeline '{self.text}', column {self.position + 1}: {message}")

    def pipeline(self) -> Iterable[Pass]:
        if not self.text.strip():
            return
        while True:
            yield self.step()
            self.skip()
            if self.position == len(self.text):
                return
            self.expect(",")

    def step(self) -> Pass:
        name = self.word("a pass")
        if name not in self.known:
            self.fail(f"unknown pass '{name}'; known passes: {', '.join(self.known)}")
        pass_ = self.known[name]
        options: dict[str, list[str]] = {}
        if self.accept("{"):
            while not self.accept("}"):
                key = self.word("an option")
                self.expect("=")
                options.setdefault(key, []).append(self.value())
        missing = [key for key in _required(pass_) if key not in options]
        if missing:
            self.fail(
                f"pass '{name}' needs option '{missing[0]}'; write {name}{{{missing[0]}=VALUE}}"
            )
        return pass_(
            **{key.replace("-", "_"): self.converted(pass_, key, options[key]) for key in options}
        )

    def converted(self, pass_: type[Pass], key: str, values: Sequence[str]) -> Any:
        names = [field.name.replace("_", "-") for field in dataclasses.fields(pass_)]
        if key not in names:
            self.fail(
                f"pass '{pass_.name}' has no option '{key}'; its options: {', '.join(names) or 'none'}"
            )
        hint = get_type_hints(pass_)[key.replace("-", "_")]
        if get_origin(hint) is tuple:
            return tuple(self.converted_one(get_args(hint)[0], key, value) for value in values)
        if len(values) > 1:
            self.fail(f"option '{key}' of pass '{pass_.name}' is given twice")
        return self.converted_one(hint, key, values[0])

    def converted_one(self, hint: Any, key: str, value: str) -> Any:
        plain = next((arg for arg in get_args(hint) if arg is not type(None)), hint)
        try:
            if plain is bool:
                return {"true": True, "false": False}[value]
            converted = plain(value)
            if plain is float and not math.isfinite(converted):
                raise ValueError(value)
            return converted
        except (KeyError, ValueError, OverflowError):
            self.fail(f"option '{key}' takes a value of type {plain.__name__}, not '{value}'")

    def skip(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def accept(self, symbol: str) -> bool:
        self.skip()
        if not self.text.startswith(symbol, self.position):
            return False
        self.position += len(symbol)
        return True

    def expect(self, symbol: str) -> None:
        if not self.accept(symbol):
            self.fail(f"expected '{symbol}'")

    def word(self, what: str) -> str:
        self.skip()
        match = _WORD.match(self.text, self.position)
        if match is None:
            self.fail(f"expected {what}")
        self.position = match.end()
        return match.group()

    def value(self) -> str:
        self.skip()
        if not self.text.startswith('"', self.position):
            return self.word("a value")
        try:
            value, self.position = json.JSONDecoder().raw_decode(self.text, self.position)
        except json.JSONDecodeError:
            self.fail("the string has no end")
        return str(value)
