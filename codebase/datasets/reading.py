"""Reading a file of a data set: images and labels in the IDX format, and bits as text."""

import gzip
import io
import math
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class WrongFileError(Exception):
    """A file does not hold what its name says; the message is the reason."""


def unpack(path: Path) -> bytearray:
    """The content of a file, which is unpacked if its name ends in .gz."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise WrongFileError(f"it cannot be unpacked: {error}") from error
    if not content:
        raise WrongFileError("it is empty")
    return bytearray(content)


def read_images(content: bytearray, bits: bool = False, transposed: bool = False) -> Tensor:
    """Read images as (n, 784) uint8.

    Args:
        bits: only the values 0 and 255 are right; as text, these are lines of 784 numbers 0 or 1.
    """
    if bits and content[:2] != b"\0\0":
        return _read_text(content)
    values = _read_idx(content)
    if values.dtype != np.uint8 or values.ndim != 3:
        raise WrongFileError("it does not hold images")
    if values.shape[1:] != (28, 28):
        height, width = values.shape[1:]
        raise WrongFileError(f"its images have {height} x {width} pixels, not 28 x 28")
    if bits and not np.isin(values, (0, 255)).all():
        raise WrongFileError("not all its values are 0 or 255")
    if transposed:
        values = values.transpose(0, 2, 1)
    return torch.from_numpy(values.reshape(-1, 28 * 28))


def read_labels(content: bytearray) -> Tensor:
    """Read labels as (n,) int64. If there are several numbers for each image, take the first."""
    values = _read_idx(content)
    if values.ndim not in (1, 2):
        raise WrongFileError("it does not hold labels")
    return torch.from_numpy(values.reshape(len(values), -1)[:, 0].astype(np.int64))


def _read_idx(content: bytearray) -> NDArray[Any]:
    """Read an array, whose header has its type, the number of its dimensions, and their sizes."""
    try:
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        dtype = np.dtype({0x08: ">u1", 0x0C: ">i4"}[kind])
    except (struct.error, KeyError):
        zeros = True
    if zeros or not dimensions:
        raise WrongFileError("its header is not that of an IDX file of images or labels")
    offset = 4 + 4 * dimensions
    size = offset + math.prod(shape) * dtype.itemsize
    if len(content) != size:
        raise WrongFileError(f"it has {len(content)} bytes, but its header promises {size}")
    if size == offset:
        raise WrongFileError("it holds nothing")
    return np.frombuffer(content, dtype, offset=offset).reshape(shape)


def _read_text(content: bytearray) -> Tensor:
    """Read lines of 784 numbers 0 or 1 as (n, 784) uint8 with the values 0 and 255."""
    with suppress(ValueError):
        # NumPy 1 would read other numbers as integers without a word, 0.5 as 0 and 256 as 0.
        values = np.loadtxt(io.BytesIO(content), dtype=np.float32, ndmin=2)
        if values.shape[1] == 784 and np.isin(values, (0, 1)).all():
            return torch.from_numpy(255 * values.astype(np.uint8))
    raise WrongFileError("its lines are not 784 numbers 0 or 1")
