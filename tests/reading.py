"""Detect operations that make a program wait for a GPU."""

from torch.overrides import TorchFunctionMode

READING = {
    *("__bool__", "__complex__", "__float__", "__format__", "__index__", "__int__"),
    *("allclose", "cpu", "equal", "item", "nonzero", "numpy", "tolist"),
}


class NoReading(TorchFunctionMode):
    """Fail if a value of a tensor is read into Python inside the block."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        assert function.__name__ not in READING, f"{function.__name__} reads a tensor's values"
        return function(*arguments, **(options or {}))
