#!/usr/bin/env bash
# tqdm 4.70.1: in a terminal that reports 0 rows no bar is shown, and nothing says so.
#
# Expected: an unknown size is replaced by a default one, as in shutil.get_terminal_size. A new
# pseudo-terminal reports 0 rows until a program sets its size. Some runners of CI, pexpect, and
# script without a terminal never set it.
# Observed: tqdm subtracts 1 from the rows, so 0 becomes -1, which the default of 20 does not
# replace, and every bar counts as below the screen.
# Output: characters of a bar with 24 rows: 157; with 0 rows: 0
# Source: tqdm/utils.py, _screen_shape_wrapper, and tqdm/std.py, display.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet --no-compile tqdm==4.70.1
"$folder/bin/python" - <<'END'
import fcntl
import os
import pty
import struct
import termios
from contextlib import redirect_stderr

from tqdm import tqdm


def characters(rows):
    """How many characters a bar prints into a terminal of so many rows and 80 columns."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
    with open(writer, "w") as terminal, redirect_stderr(terminal):
        for _ in tqdm(range(3)):
            pass
        terminal.write("end")
        terminal.flush()
        return len(os.read(reader, 10_000).decode().split("end")[0].strip())


shown, hidden = characters(24), characters(0)
print(f"characters of a bar with 24 rows: {shown}; with 0 rows: {hidden}")
assert shown > 50 and hidden == 0
END
