"""The networks of the model by name: `getattr(nns, "v1")` is the module that defines them."""

from codebase.models.nns import v1

__all__ = ["v1"]


def __getattr__(name: str):
    """Turn an unknown name into an error that lists the known ones."""
    if name.startswith("__"):  # what Python's own machinery asks every module for
        raise AttributeError(name)
    raise ValueError(f"there are no networks named {name!r}; known: {', '.join(__all__)}")
