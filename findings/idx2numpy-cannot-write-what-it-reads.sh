#!/usr/bin/env bash
# idx2numpy 1.2.3: the array that is read from an IDX file of integers of four bytes (labels of
# QMNIST) or of floats cannot be written to an IDX file again.
#
# Expected: an array that was read can be written.
# Observed: the reader returns big-endian arrays (">i4"), as the file has them, and the writer
# accepts only the machine's own types. Arrays of bytes can be read and written.
# Output: read >i4, written again: FormatError; bytes: True
# Source: idx2numpy/converters.py, _DATA_TYPES_NUMPY.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile idx2numpy==1.2.3 numpy==2.4.6
"$folder/bin/python" - <<'END'
import io

import idx2numpy
import numpy as np


def there_and_back(array):
    file = io.BytesIO(idx2numpy.convert_to_string(array))
    return idx2numpy.convert_from_file(file)


labels = there_and_back(np.arange(6, dtype=np.int32).reshape(2, 3))
try:
    idx2numpy.convert_to_string(labels)
    again = "written"
except idx2numpy.FormatError:
    again = "FormatError"
pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
twice = bool((there_and_back(there_and_back(pixels)) == pixels).all())
print(f"read {labels.dtype}, written again: {again}; bytes: {twice}")
assert labels.dtype == ">i4" and again == "FormatError" and twice
END
