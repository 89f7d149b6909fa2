"""What several runs survive. Every fault here is a real one."""

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from pathlib import Path

import pytest
from conftest import usual_signals, wait_for

from codebase.runs import checkpoint
from codebase.runs.folder import locked, saved_steps, state_path
from codebase.runs.metrics import bounds_after
from codebase.system.errors import BusyError

pytestmark = pytest.mark.slow
LONG = ("--iter_max", 1_000_000)
NAME = "model=vae_nn=watched_z=03_dataset=synthetic_run={:04d}"
SENTENCE = "run_vae.py: interrupted; the same command with --resume 1 goes on from what is saved"


def step_of(folder):
    return checkpoint.load(state_path(folder))["training"]["step"]


def is_free(folder):
    """Whether no process is training in the folder."""
    try:
        with locked(folder):
            return True
    except BusyError:
        return False


@pytest.fixture
def folders(tmp_path):
    """The folders of two runs that are watched."""
    return [tmp_path / "checkpoints" / NAME.format(run) for run in (0, 1)]


@pytest.fixture
def start_two(start, script, small, tmp_path):
    """Start two runs beside each other, and wait until both of them train."""

    def start_two(*arguments, **options):
        of_two = ("--nn", "watched", "--runs", 2, "--jobs", 2)
        process = start(script, *small, *of_two, *arguments, **options)
        wait_for(lambda: len(list(tmp_path.glob("process-*"))) == 2 or process.poll() is not None)
        assert process.poll() is None
        return process

    return start_two


def test_runs_whose_parent_is_killed_go_on_to_their_end_and_save(start_two, folders, tmp_path):
    (tmp_path / "wait").touch()
    parent = start_two("--iter_save", 20)
    parent.kill()
    parent.wait()
    assert not any(map(is_free, folders))
    (tmp_path / "wait").unlink()
    for folder in folders:
        wait_for(lambda folder=folder: is_free(folder))
        assert saved_steps(folder) == [20, 30]
        assert step_of(folder) == 30
        assert len(bounds_after(folder, 30)) == 2
        wait_for((folder / "visualizing_result.png").exists)


class Terminal:
    """A terminal of 80 columns, and a program in it."""

    def __init__(self, start, *arguments):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        # Else the system throws away at Ctrl-C what was written and is not read yet.
        modes = termios.tcgetattr(slave)
        modes[3] |= termios.NOFLSH
        termios.tcsetattr(slave, termios.TCSANOW, modes)

        def connect():
            usual_signals()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
        self.process = start(*arguments, **streams, preexec_fn=connect)
        os.close(slave)
        self.output = b""

    def read(self) -> bool:
        """Read what is written next; false if no process has the terminal any more."""
        try:
            self.output += os.read(self.master, 10_000)
        except OSError:
            os.close(self.master)
            return False
        return True

    def read_until(self, *texts: str) -> None:
        """Read until all texts are on the screen."""
        while not all(any(text in line for line in self.screen()[0]) for text in texts):
            assert self.read(), self.output.decode(errors="replace")

    def press_ctrl_c(self, times: int) -> None:
        """Send what a terminal's driver turns into SIGINT for all processes."""
        os.write(self.master, times * b"\x03")

    def screen(self) -> tuple[list[str], int]:
        """The lines that can be seen, and the column of the cursor."""
        lines, row, column = {}, 0, 0
        for part in re.findall(r"\x1b\[A|.", self.output.decode(errors="ignore"), re.DOTALL):
            if part == "\x1b[A":
                row -= 1
            elif part == "\n":
                row += 1
            elif part == "\r":
                column = 0
            else:
                if column == 80:
                    row, column = row + 1, 0
                lines.setdefault(row, [" "] * 80)[column] = part
                column += 1
        return ["".join(lines.get(row, "")).rstrip() for row in range(row + 1)], column


def children(process):
    """The processes that any thread of a process has started."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return [child for thread in threads for child in (thread / "children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc of Linux")
@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_and_what_follows_it_leave_a_tidy_terminal(start, script, small, folders, presses):
    """Once while two runs train, and three times while their processes start.

    Then all processes are told to end once more, as by `timeout` and schedulers.
    """
    arguments = (*small, *LONG, "--nn", "watched", "--runs", 2, "--jobs", 2)
    terminal = Terminal(start, script, *arguments)
    if presses == 1:
        terminal.read_until("run 0:   0%|", "run 1:   0%|", "it/s, loss=")
        bars = [line for line in terminal.screen()[0] if line.startswith("run ")]
        assert len(bars) == 2
        assert all(40 < len(line) < 80 for line in bars)
    else:
        wait_for(lambda: len(children(terminal.process)) == 2)
    terminal.press_ctrl_c(presses)
    while b"^C" not in terminal.output:  # which the terminal shows, until a bar is drawn over it
        assert terminal.read()
    for _ in range(2):
        os.killpg(terminal.process.pid, signal.SIGTERM)
    while terminal.read():
        pass
    assert terminal.process.wait() == 130
    lines, column = terminal.screen()
    shown = [line.replace("^C", "").rstrip() for line in lines]
    assert shown[-4:] == [
        "2 runs, 2 at a time, threads for each: 1",
        SENTENCE[:80],
        SENTENCE[80:],
        "",
    ]
    assert column == 0
    for folder in folders:
        assert not folder.exists() or is_free(folder)
        assert presses > 1 or step_of(folder) > 0
