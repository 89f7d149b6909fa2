#!/usr/bin/env bash
# tqdm 4.70.1: in a terminal that reports 0 rows no bar is shown, and nothing says so.
#
# One would think: an unknown size is replaced by a default one, 80 columns and 24 rows, as
# shutil.get_terminal_size does. A new pseudo-terminal reports 0 rows until a program sets its size,
# which pexpect, script in a job without a terminal, and some runners of CI do not.
# It is: bars in the rows from nrows - 1 on are hidden, so with 0 rows all of them.
# Seen: characters of a bar with 24 rows: 157; with 0 rows: 0
# Source: tqdm/std.py, tqdm.display, and tqdm/utils.py, _screen_shape_linux.
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
