"""The networks of the model by name: each module here defines an `Encoder` and a `Decoder`."""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def names() -> list[str]:
    """The names of all networks."""
    return sorted(module.name for module in iter_modules(__path__))


def __getattr__(name: str) -> ModuleType:
    """Import the networks of that name when they are first asked for, as `getattr(nns, "v1")`."""
    if name not in names():
        raise AttributeError(f"there are no networks named {name!r}; known: {', '.join(names())}")
    return import_module(f"{__name__}.{name}")
