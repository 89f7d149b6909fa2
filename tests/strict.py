"""Solutions of the assignment whose functions need all their arguments in one shape."""

import inspect

from codebase import utils

FUNCTIONS = ("sample_gaussian", "kl_normal", "log_normal", "log_bernoulli_with_logits")


def want_one_shape(monkeypatch) -> set[str]:
    """Have them refuse arguments of several shapes; give the names of those that get called."""
    called = set()

    def strict(function):
        def call(*arguments, **named):
            tensors = inspect.signature(function).bind(*arguments, **named).arguments.values()
            shapes = {tuple(tensor.shape) for tensor in tensors}
            assert len(shapes) == 1, f"{function.__name__} was given the shapes {shapes}"
            called.add(function.__name__)
            return function(*arguments, **named)

        return call

    for name in FUNCTIONS:
        monkeypatch.setattr(utils, name, strict(getattr(utils, name)))
    return called
