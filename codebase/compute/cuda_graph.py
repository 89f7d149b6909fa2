"""Gradients as a CUDA graph: a GPU starts all kernels of a function at once."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import Module

from codebase.system.errors import UserError

CAPTURED_AT, TRUSTED_AFTER = 3, 50  # calls
CHECK_EVERY = 100  # calls, after TRUSTED_AFTER


class GraphedGradients:
    """Wraps a forward-backward function and replays it as a CUDA graph.

    Python takes ten times as long to launch the kernels of a small step as a GPU takes to run them.
    A graph launches them all at once, and computes the same bits; but it runs no Python. So a
    function is not captured if it waits for the GPU, if the module has buffers, or if a call
    changes the module's attributes. And a graph is compared with the function: at the first calls,
    which return the function's own results, and later at every hundredth call.

    Args:
        function: returns a tensor, and sets the gradients of the module's parameters.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], module: Module):
        self.function, self.module = function, module
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, x: Tensor, reseed: Callable[[], None]) -> Tensor:
        """Return the function's result for `x`, which has the same shape in all calls.

        `reseed` seeds the generators, as before each call of the function. Raises UserError if the
        function no longer computes what was captured.
        """
        self.calls += 1
        reseed()
        if self.calls == CAPTURED_AT:
            with torch.cuda.device(x.device):
                return self._capture(x)
        if self.graph is None:
            return self.function(x)
        self.input.copy_(x)
        self.graph.replay()
        trusted = self.calls > TRUSTED_AFTER
        if trusted and self.calls % CHECK_EVERY != 0:
            self._set_gradients(self.gradients)
            return self.output.clone()
        replayed = [y.clone() for y in (self.output, *self.gradients) if y is not None]
        reseed()
        result = self.function(x)
        computed = [y for y in (result, *self._gradients()) if y is not None]
        same_bits = partial(torch.allclose, rtol=0, atol=0, equal_nan=True)
        same = len(replayed) == len(computed) and all(map(same_bits, replayed, computed))
        if not same and trusted:
            reason = "the loss no longer does what it did when its CUDA graph was captured"
            raise UserError(f"{reason}; train again with --cuda_graph 0")
        if not same:
            self.graph = None
        return result

    def _capture(self, x: Tensor) -> Tensor:
        """Call the function, and capture it if possible."""
        current, stream = torch.cuda.current_stream(), torch.cuda.Stream()
        attributes = self._attributes()
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
        changed = self._attributes() != attributes
        if waits or changed or any(True for _ in self.module.buffers()):
            return result
        gradients = self._gradients()
        self.graph, self.input = torch.cuda.CUDAGraph(), x.clone()
        try:
            with torch.cuda.stream(current), torch.cuda.graph(self.graph, stream=stream):
                self.output = self.function(self.input)
        except RuntimeError:  # a function that cannot be captured is called kernel by kernel
            self.graph = None
            # After a failed capture the generator works only in captures, so its state is renewed.
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

    def _attributes(self) -> list[str]:
        """Python attributes of the modules beyond nn.Module's own, such as a step counter."""
        common = vars(Module())
        values = (vars(module).items() for module in self.module.modules())
        return [repr([pair for pair in items if pair[0] not in common]) for items in values]
