"""What concerns the machine: its devices and its processor's modes."""

import torch

from codebase.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """The device of that name, or for "auto" a GPU if there is one, else the CPU.

    Raises:
        DeviceError: there is no such device here.
    """
    devices = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        devices = [kind, *(f"{kind}:{i}" for i in range(torch.accelerator.device_count())), "cpu"]
    if name != "auto" and name not in devices:
        known = ", ".join(devices)
        raise DeviceError(f"argument --device: this machine has no device {name!r}, only {known}")
    return torch.device(devices[0] if name == "auto" else name)


def prepare_processor(threads: int | None = None) -> None:
    """Set how this process computes on the CPU. To be called before anything is computed.

    Args:
        threads: how many, or what PyTorch chooses.
    """
    # Adam's averages of gradients that have become zero fade into denormal numbers, with which the
    # processor is many times slower. Threads inherit the mode when they start, hence the order.
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)
