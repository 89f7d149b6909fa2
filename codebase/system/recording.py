"""What a GPU computes at every step, recorded once and then started as a whole: a CUDA graph."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from codebase.system.errors import UserError

RECORDED_AT, TRUSTED_AFTER = 3, 50  # calls
CHECK_EVERY = 100  # calls from then on


class Recorded:
    """A function that sets a module's gradients, whose kernels are recorded and then repeated.

    Python needs ten times as long to start the kernels of a small step, one by one, as a GPU needs
    to compute them. A recording starts them all at once, and computes the same bits. But it repeats
    no Python. So a function is not recorded if it waits for the GPU, or if the module has buffers
    or something else that a call changes. And a recording is compared with the function itself: at
    the first calls, whose results are the function's own, and later at each hundredth call.

    Args:
        function: gives a tensor of results, and sets the gradients of the module's parameters.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], module: Module):
        self.function, self.module = function, module
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, x: Tensor, reseed: Callable[[], None]) -> Tensor:
        """What the function gives for `x`, which has the same shape in all calls.

        Args:
            reseed: sets what is drawn from, as before each call of the function.

        Raises:
            UserError: the function does something else than when it was recorded.
        """
        self.calls += 1
        reseed()
        if self.calls == RECORDED_AT:
            with torch.cuda.device(x.device):
                return self._record(x)
        if self.graph is None:
            return self.function(x)
        self.input.copy_(x)
        self.graph.replay()
        if self.calls > TRUSTED_AFTER and self.calls % CHECK_EVERY != 0:
            self._set_gradients(self.gradients)
            return self.output.clone()
        repeated = [y.clone() for y in (self.output, *self.gradients) if y is not None]
        reseed()
        result = self.function(x)
        computed = [y for y in (result, *self._gradients()) if y is not None]
        same = len(repeated) == len(computed) and all(map(_same_bits, repeated, computed))
        if not same and self.calls > TRUSTED_AFTER:
            reason = "the loss does not do any more what it did at the first steps"
            raise UserError(f"{reason}, when it was recorded; start anew with --cuda_graph 0")
        if not same:
            self.graph = None
        return result

    def _record(self, x: Tensor) -> Tensor:
        """Call the function, and record it if that is possible."""
        current, stream = torch.cuda.current_stream(), torch.cuda.Stream()
        held = self._held()
        stream.wait_stream(current)
        with torch.cuda.stream(stream), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mode = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("warn")
            try:
                result = self.function(x)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        current.wait_stream(stream)
        waits = any("synchronizing CUDA operation" in str(warning.message) for warning in caught)
        if waits or self._held() != held or any(True for _ in self.module.buffers()):
            return result
        gradients = self._gradients()
        self.graph, self.input = torch.cuda.CUDAGraph(), x.clone()
        try:
            with torch.cuda.stream(current), torch.cuda.graph(self.graph, stream=stream):
                self.output = self.function(self.input)
        except RuntimeError:  # what cannot be recorded is started kernel by kernel
            self.graph = None
            # A recording that was broken off leaves a generator that draws in recordings only.
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state().graphsafe_get_state())
        self.gradients = self._gradients()
        self._set_gradients(gradients)
        return result

    def _gradients(self) -> list[Tensor | None]:
        return [parameter.grad for parameter in self.module.parameters()]

    def _set_gradients(self, gradients: list[Tensor | None]) -> None:
        for parameter, gradient in zip(self.module.parameters(), gradients, strict=True):
            parameter.grad = gradient

    def _held(self) -> list[dict[str, str]]:
        """What the modules hold that not every module does, such as a count of the steps."""
        every = vars(Module())
        return [
            {name: repr(value) for name, value in vars(module).items() if name not in every}
            for module in self.module.modules()
        ]


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
