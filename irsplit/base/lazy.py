"""Imports that wait until they are needed, so that a command does not pay for what it does not do.

For modules that most runs never touch. Everything else is imported at the top of the file that uses it.
"""

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any


class LazyModule:
    """Stands for a module, which is imported when an attribute of it is first read.

    Type checkers are told of the module itself:

        if TYPE_CHECKING:
            import onnx
        else:
            onnx = LazyModule("onnx")
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def exports(
    package: str, homes: Mapping[str, str], packages: Collection[str] = ()
) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names are imported when they are first asked for.

    Args:
        package: The package's name.
        homes: The module of each name.
        packages: Packages inside of this one that are attributes of it too.
    """

    def home_of(name: str) -> Any:
        if name in packages:
            return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(importlib.import_module(homes[name]), name)

    return home_of
