"""Confines the process in which a student's files run."""

import ctypes
import faulthandler
import os
import signal
import sys
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from assignment import ROOT

MEMORY_GB = 4
LARGEST = 64 << 20  # bytes of a file that it writes
KEPT = ["PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "LANG", "LC_ALL", "TMPDIR"]
KEPT += ["SYSTEMROOT", "MPLCONFIGDIR"]
READABLE = "/usr/lib /usr/lib64 /usr/share /lib /lib64 /etc/ld.so.cache /etc/localtime /etc/fonts"
READABLE += " /dev/urandom /proc/cpuinfo /sys/devices"


def make_environment_bare() -> None:
    """Remove all variables that a student's process does not need, since they may hold secrets."""
    kept = {key: os.environ[key] for key in KEPT if key in os.environ}
    os.environ.clear()
    os.environ.update(kept, CUDA_VISIBLE_DEVICES="", MPLBACKEND="agg", OMP_NUM_THREADS="1")


def enter(folder: Path, seconds: float) -> None:
    """Make this process one that can only run the files in a folder of `project`.

    After some seconds it ends, and writes where it was into the file "hanging".
    """
    with suppress(AttributeError):  # Windows has no sessions.
        os.setsid()
        os.closerange(3, 1024)  # While one of them is open, the server outlives the command.
    # Otherwise a student's code could ask the server for a process that is not confined.
    forkserver._forkserver._forkserver_address = None  # type: ignore[attr-defined]
    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    ours = [name for name in sys.modules if name.partition(".")[0] in ("assignment", "codebase")]
    for name in ours:
        del sys.modules[name]
    make_environment_bare()  # Another part of the program may have started the server.
    hidden = ROOT, Path.cwd()
    sys.path[:] = [str(folder), *(x for x in sys.path if x and Path(x).resolve() not in hidden)]
    os.chdir(folder / "work")
    hanging = open("hanging", "w")  # noqa: SIM115  # is used until the process ends
    faulthandler.dump_traceback_later(seconds, exit=True, file=hanging)
    confine(folder)


def confine(folder: Path) -> None:
    """Limit this process: its memory, the size of files, and what it can read and write."""
    with suppress(ImportError):  # Windows has no such limits.
        import resource

        limits = {resource.RLIMIT_DATA: MEMORY_GB << 30, resource.RLIMIT_FSIZE: LARGEST}
        for limit, most in limits.items():
            with suppress(ValueError):  # The limit may be lower already.
                resource.setrlimit(limit, (most, most))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # The server's end kills this process.
        with suppress(OSError):
            readable = [folder, *map(Path, READABLE.split() + sys.path)]
            allow_only([folder / "work", Path("/dev/null")], readable)


def allow_only(writable: list[Path], readable: list[Path]) -> None:
    """Deny this process, by Landlock, all files but those below these folders.

    Raises OSError where Linux does not have it.

    Source: Linux, Documentation/userspace-api/landlock.rst.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: Any) -> int:
        result = libc.syscall(number, *arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), "Landlock")
        return result

    version = call(444, None, 0, 1)
    everything = (1 << (13 + (version >= 2) + (version >= 3))) - 1
    read = 1 | 4 | 8  # execute, read files, list folders
    # Version 4 can also deny TCP, version 6 abstract Unix sockets and signals to other processes.
    rules = (ctypes.c_uint64 * 3)(everything, 3 * (version >= 4), 3 * (version >= 6))
    ruleset = call(444, rules, 8 * (1 + (version >= 4) + (version >= 6)), 0)
    for allowed, paths in ((everything, writable), (read, readable)):
        for path in paths:
            with suppress(OSError):  # There may be no such file.
                file = os.open(path, os.O_PATH)
                mask = allowed if path.is_dir() else allowed & (1 | 2 | 4 | 1 << 14)
                rule = mask.to_bytes(8, "little") + file.to_bytes(4, "little")
                call(445, ruleset, 1, rule, 0)
                os.close(file)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges
    call(446, ruleset, 0)
