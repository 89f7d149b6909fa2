"""What a run has earned survives what happens to it. Every fault here is a real one."""

import fcntl
import os
import pty
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from codebase.errors import BusyError
from codebase.signals import ENDING
from conftest import NETWORKS, usual_signals, wait_for

from codebase import checkpoint, data
from codebase.models import nns
from codebase.settings import Settings
from codebase.train import train

CPU = torch.device("cpu")
LONG = ("--iter_max", 1_000_000)
NAME = "model=vae_nn={}_z=03_dataset=synthetic_run={:04d}"


@pytest.fixture
def folder(tmp_path):
    """The folder of the run with small networks."""
    return tmp_path / "checkpoints" / NAME.format("tiny", 0)


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def temporary_files(folder):
    return list(folder.rglob(".*.tmp"))


def step_of(folder):
    return checkpoint.load(checkpoint.state_path(folder))["step"]


def is_free(folder):
    """Whether no process is training in the folder."""
    try:
        with checkpoint.locked(folder):
            return True
    except BusyError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_saves_and_says_how_to_go_on(run_vae, small, folder, stray, number):
    def send():
        wait_for(lambda: checkpoint.saved_steps(folder))
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    stopped = run_vae(*small, *LONG, "--iter_save", 20)
    thread.join()
    assert stopped.returncode == 128 + number
    sentence = stopped.stderr.splitlines()[-1]
    step = step_of(folder)
    assert sentence == (
        f"run_vae.py: interrupted at step {step}; the same command with --resume 1 goes on from "
        "there"
    )
    resumed = run_vae(*small, "--iter_max", step + 1, "--resume", 1)
    assert resumed.returncode == 0, resumed.stderr
    assert f"Resuming at step {step}\n" in resumed.stdout
    assert stray == []


def train_small(folder: Path, iter_max: int, sender: Connection) -> None:
    """Train small networks on noise, saving after every step, and tell of each."""
    os.chdir(folder)
    nns.__path__.append(str(NETWORKS))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (200, 784), generator=generator).byte()
    labels = torch.arange(10).repeat_interleave(20).byte()
    images = data.Images("noise", pixels, labels, pixels, labels)
    settings = Settings(nn="tiny", z=2, batch_size=10, dataset="noise", iter_max=iter_max)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    train(
        *(settings, images, CPU),
        iter_save=10,
        resume=True,
        show=lambda step, loss: sender.send(step),
        seconds_between_states=0,
    )


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing(forking, tmp_path):
    chance = random.Random(0)
    seen: dict[Path, bytes] = {}
    steps, during_saves = [0], 0
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()

    def start(name, iter_max):
        receiver, sender = forking.Pipe(duplex=False)
        process = forking.Process(target=train_small, args=(tmp_path / name, iter_max, sender))
        process.start()
        sender.close()
        return process, receiver

    for _ in range(100):
        process, receiver = start("killed", 1_000_000)
        for _ in range(chance.randint(1, 4)):  # of a step that is done and is now saved
            assert receiver.poll(300)
            steps.append(receiver.recv())
        time.sleep(chance.uniform(0, 0.01))
        process.kill()
        process.join()
        during_saves += bool(temporary_files(tmp_path))
        (folder,) = (tmp_path / "killed").glob("checkpoints/model*")
        for step in checkpoint.saved_steps(folder):
            path = checkpoint.model_path(folder, step)
            assert seen.setdefault(path, path.read_bytes()) == path.read_bytes()
        assert all(path.exists() for path in seen)
        if steps[-1] > 1:
            assert step_of(folder) >= steps[-1] - 1
    assert steps[-1] > 100
    assert len(seen) > 10
    assert during_saves > 0

    # The killed run, gone on with, ends in the bytes of one that nobody touched.
    goal = step_of(folder) + 10
    for name in ("killed", "whole"):
        process, receiver = start(name, goal)
        while receiver.poll(300):
            try:
                receiver.recv()
            except EOFError:
                break
        process.join()
        assert process.exitcode == 0
    models = sorted(folder.glob("model-*.pt"))
    assert {*seen} < {*models}
    whole = tmp_path / "whole" / "checkpoints" / folder.name
    assert [path.name for path in models] == [p.name for p in sorted(whole.glob("model-*.pt"))]
    for path in [*models, checkpoint.metrics_path(folder)]:
        assert path.read_bytes() == (whole / path.name).read_bytes()
    assert temporary_files(tmp_path) == []


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(run_vae, small, folder):
    """A model of 32 kB would find room beside the earlier run; a state of 110 kB does not."""
    disk, limit = folder.parent, resource.getrlimit(resource.RLIMIT_FSIZE)
    disk.mkdir()
    mount = ["sh", "-c", f"mount -t tmpfs -o size=3m tmpfs '{disk}'"]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        assert run_vae(*small).returncode == 0
        before = files_below(folder)
        assert before
        if mounted:
            (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - 60_000))
        else:  # no file system to be had: limit the size of a file instead
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limit[1]))
        for arguments, run in [(("--run", 1), 1), (("--resume", 1, "--iter_max", 60), 0)]:
            finished = run_vae(*small, *arguments)
            assert finished.returncode == 1
            path = f"checkpoints/{NAME.format('tiny', run)}/training-state.pt"
            reason = "No space left on device" if mounted else "File too large"
            assert finished.stderr.splitlines()[-1] == f"run_vae.py: {path}: {reason}"
            assert temporary_files(disk) == []
            assert files_below(folder) == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        if mounted:
            subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_sentence(run_vae, small, folder):
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    finished = run_vae(*small)
    assert "Permission denied" in finished.stderr.splitlines()[-1]
    assert finished.returncode == 1


@pytest.mark.slow
def test_a_second_run_of_the_name_is_refused_and_a_dead_one_is_no_obstacle(
    run_vae, start, script, small, folder
):
    first = start(script, *small, *LONG, "--iter_save", 20)
    wait_for(lambda: checkpoint.saved_steps(folder))
    for resume in (0, 1):
        second = run_vae(*small, "--resume", resume)
        assert second.returncode == 1
        assert f"another process is training in checkpoints/{folder.name};" in second.stderr
        assert first.poll() is None
    first.kill()
    first.wait()
    (folder / ".123.tmp").touch()  # as a process leaves it that is killed while it saves
    third = run_vae(*small, "--resume", 1, "--iter_max", 1 + step_of(folder))
    assert third.returncode == 0, third.stderr
    assert temporary_files(folder) == []


# Several runs.


@pytest.fixture
def folders(tmp_path):
    """The folders of two runs that are watched."""
    return [tmp_path / "checkpoints" / NAME.format("watched", run) for run in (0, 1)]


@pytest.fixture
def start_two(start, script, small, tmp_path):
    """Start two runs beside each other, and wait until both of them train."""

    def start_two(*arguments, **options):
        of_two = ("--nn", "watched", "--runs", 2, "--jobs", 2)
        process = start(script, *small, *LONG, *of_two, *arguments, **options)
        wait_for(lambda: len(list(tmp_path.glob("process-*"))) == 2 or process.poll() is not None)
        assert process.poll() is None
        return process

    return start_two


@pytest.mark.slow
def test_runs_whose_parent_is_killed_save_and_end(start_two, folders):
    start_two().kill()
    for folder in folders:
        wait_for(lambda folder=folder: is_free(folder))
        assert step_of(folder) > 0


@pytest.mark.slow
def test_signals_to_all_processes_end_them_once_they_have_saved(start_two, folders):
    """As `timeout` and schedulers send them: to the process group, and again."""
    process = start_two()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
        os.killpg(process.pid, number)
    output, errors = process.communicate()
    assert process.returncode in (128 + signal.SIGTERM, 128 + signal.SIGHUP)
    assert output == ""
    assert re.split("[\r\n]+", errors.strip())[-1] == (
        "run_vae.py: interrupted; the same command with --resume 1 goes on from what is saved"
    )
    for folder in folders:
        assert is_free(folder)
        assert step_of(folder) > 0


@pytest.mark.slow
def test_a_run_that_is_killed_is_named_and_stops_no_other(start_two, tmp_path):
    """Even where standard error is a full disk, on which nothing can be shown."""
    (tmp_path / "wait").touch()
    with open("/dev/full" if os.path.exists("/dev/full") else os.devnull, "w") as full:
        process = start_two("--iter_max", 30, stderr=full)
    told = next(tmp_path.glob("process-*"))
    os.kill(int(told.name.split("-")[1]), signal.SIGKILL)
    (tmp_path / "wait").unlink()
    output = process.communicate()[0]
    assert process.returncode == 1
    rows = {row[1].strip(): row[2:] for row in map(lambda x: x.split("|"), output.splitlines()[2:])}
    failed = [run for run in "01" if rows[run][0] == " failed: its process ended with status -9 "]
    assert len(failed) == 1
    assert rows["average"][:4] == rows["01".replace(*failed, "")][:4]


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
            assert self.read()

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


@pytest.mark.slow
@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_leaves_a_tidy_terminal(start, script, small, folders, presses):
    """Once while two runs train, and three times while their processes start."""
    arguments = (*small, *LONG, "--nn", "watched", "--runs", 2, "--jobs", 2)
    terminal = Terminal(start, script, *arguments)
    if presses == 1:
        terminal.read_until("run 0:   0%|", "run 1:   0%|", "it/s, loss=")
        bars = [line for line in terminal.screen()[0] if line.startswith("run ")]
        assert len(bars) == 2
        assert all(70 < len(line) <= 78 for line in bars)
    else:
        terminal.read_until("2 runs, 2 at a time, threads for each: 1")
    terminal.press_ctrl_c(presses)
    while terminal.read():
        pass
    assert terminal.process.wait() == 130
    lines, column = terminal.screen()
    sentence = (
        "run_vae.py: interrupted; the same command with --resume 1 goes on from what is saved"
    )
    shown = [line.replace("^C", "").rstrip() for line in lines]  # which the terminal itself writes
    assert shown[-4:] == [
        "2 runs, 2 at a time, threads for each: 1",
        sentence[:80],
        sentence[80:],
        "",
    ]
    assert column == 0
    for folder in folders:
        assert not folder.exists() or is_free(folder)
        assert presses > 1 or step_of(folder) > 0
