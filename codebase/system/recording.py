"""What a GPU computes at every step, recorded once and then started as a whole: a CUDA graph."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from codebase.system.errors import UserError

WARM_UP, TRIED = 3, 50  # calls until a recording is made, and until it is trusted
CHECK_EVERY = 100  # calls from then on


class Recorded:
    """A function of a tensor that also sets a module's gradients, as a recording of its kernels.

    Of a small step nearly all the time is Python's, which starts a hundred kernels one by one. A
    recording starts them at once, and computes the same bits. But it repeats no Python. So a
    function that waits for the GPU, or changes what the module holds, is not recorded, and a
    recording is compared with the function itself: at its first calls, of which the result is the
    function's own, and at each hundredth one from then on.

    Args:
        function: gives a tensor of results, and sets the gradients of the module's parameters.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], module: Module):
        self.function, self.module = function, module
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, x: Tensor, seed: Callable[[], None]) -> Tensor:
        """What the function gives for `x`, which has the same shape in all calls.

        Args:
            seed: sets what is drawn from, as before each call of the function.

        Raises:
            UserError: the function does not do any more what it did when it was recorded.
        """
        self.calls += 1
        if self.calls == WARM_UP:
            self._record(x, seed)
        seed()
        if not self.graph:
            return self.function(x)
        self.input.copy_(x)
        self.graph.replay()
        repeated = self.output.clone()
        if self.calls > TRIED and self.calls % CHECK_EVERY:
            for parameter, gradient in zip(self.module.parameters(), self.gradients, strict=True):
                parameter.grad = gradient
            return repeated
        seed()
        computed = self.function(x)
        if not np.array_equal(repeated.cpu(), computed.cpu(), equal_nan=True):
            if self.calls > TRIED:
                reason = "the loss of codebase.models.vae changes from step to step"
                raise UserError(f"{reason}, which a recording does not; use --cuda_graph 0")
            self.graph = None
        return computed

    def _record(self, x: Tensor, seed: Callable[[], None]) -> None:
        """Record the function, if nothing in it waits for the GPU or changes the module."""
        stream, mode = torch.cuda.Stream(x.device), torch.cuda.get_sync_debug_mode()
        stream.wait_stream(torch.cuda.current_stream(x.device))
        graph, self.input, held = torch.cuda.CUDAGraph(), x.clone(), self._held()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "a prototype feature"
                torch.cuda.set_sync_debug_mode("error")
            seed()
            with torch.cuda.stream(stream):
                self.function(x)
            if self._held() != held or any(True for _ in self.module.buffers()):
                return
            with torch.cuda.graph(graph, stream=stream):
                self.output = self.function(self.input)
        except RuntimeError:  # if it is the function's own, it will come again
            return
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            torch.cuda.current_stream(x.device).wait_stream(stream)
        self.gradients = [parameter.grad for parameter in self.module.parameters()]
        self.graph = graph

    def _held(self) -> list[dict[str, str]]:
        """What the module and those in it hold beside what all modules do, such as a counter."""
        common = vars(Module())
        return [
            {name: repr(value) for name, value in vars(module).items() if name not in common}
            for module in self.module.modules()
        ]
