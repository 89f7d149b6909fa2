"""Several runs whose parent is killed or interrupted, with real signals and a real terminal."""

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
from training import state_step

from codebase.runs.folder import RunFolder
from codebase.runs.results import read_results
from codebase.settings import Settings
from codebase.system.errors import UserError

pytestmark = pytest.mark.slow
LONG = ("--iter_max", 1_000_000_000)


def is_free(folder):
    """Whether no process is training in the folder."""
    try:
        with folder.lock():
            return True
    except UserError:
        return False


@pytest.fixture
def folders(tmp_path):
    """The folders of the runs 0 and 1."""
    runs = [Settings("watched", 3, dataset="synthetic", run=run) for run in (0, 1)]
    return [RunFolder(settings, tmp_path / "checkpoints") for settings in runs]


def test_runs_whose_parent_is_killed_train_to_their_end(start, script, small, folders, tmp_path):
    (tmp_path / "wait").touch()
    options = ("--nn", "watched", "--runs", 2, "--jobs", 2, "--iter_save", 20)
    parent = start(script, *small, *options)
    wait_for(lambda: len(list(tmp_path.glob("process-*"))) == 2 or parent.poll() is not None)
    assert parent.poll() is None
    parent.kill()
    parent.wait()
    assert not any(map(is_free, folders))
    (tmp_path / "wait").unlink()
    for folder in folders:
        wait_for(lambda folder=folder: is_free(folder))
        assert folder.saved_steps() == [20, 30]
        assert state_step(folder) == 30
        wait_for((folder.path / "visualizing_result.png").exists)
        assert read_results(folder, 30)


class Terminal:
    """A terminal of 80 columns and a program in it."""

    def __init__(self, start, *arguments):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        # Without NOFLSH, Ctrl-C makes the system drop output that has not been read.
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
        """Read some output; return False once no process has the terminal open."""
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
        """Send the byte that the terminal turns into SIGINT for its foreground processes."""
        os.write(self.master, times * b"\x03")

    def screen(self) -> tuple[list[str], int]:
        """The lines on the screen, and the column of the cursor."""
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
    """The processes that a process has started."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return [child for thread in threads for child in (thread / "children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc of Linux")
@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_saves_the_runs_and_leaves_a_tidy_terminal(start, script, small, folders, presses):
    """Press it once while two runs train, or three times while their processes start.

    Then SIGTERM follows twice, as from `timeout` and schedulers.
    """
    arguments = (*small, *LONG, "--nn", "watched", "--runs", 2, "--jobs", 2)
    terminal = Terminal(start, script, *arguments)
    if presses == 1:
        terminal.read_until(" 0.0/2 [", "run 0:   0%, run 1:   0%")
        [bar] = [line for line in terminal.screen()[0] if line.startswith("runs: ")]
        assert 40 < len(bar) < 80
    else:
        wait_for(lambda: len(children(terminal.process)) == 2)
    terminal.press_ctrl_c(presses)
    while b"^C" not in terminal.output:  # the terminal shows it, and a bar may cover it
        assert terminal.read()
    for _ in range(2):
        os.killpg(terminal.process.pid, signal.SIGTERM)
    while terminal.read():
        pass
    assert terminal.process.wait() == 130
    lines, column = terminal.screen()
    message = (
        "run_vae.py: interrupted; the same command with --resume 1 continues from what is saved"
    )
    assert lines[-4].startswith("runs:   0%|")
    assert lines[-3:] == [message[:80], message[80:], ""]
    assert column == 0
    for folder in folders:
        assert not folder.path.exists() or is_free(folder)
        assert presses > 1 or state_step(folder) > 0
