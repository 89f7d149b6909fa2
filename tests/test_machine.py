"""What concerns the machine."""

import pytest
import torch

from codebase.errors import DeviceError
from codebase.machine import choose_device, prepare_processor


def test_an_unknown_device_is_refused():
    with pytest.raises(DeviceError, match=r"no device 'gpu', only .*cpu"):
        choose_device("gpu")
    assert choose_device("cpu") == torch.device("cpu")


def test_denormal_numbers_are_flushed():
    try:
        prepare_processor()
        assert torch.tensor([1e-39]).mul(1).item() == 0
    finally:
        torch.set_flush_denormal(False)
