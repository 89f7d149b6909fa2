"""The process that runs students' files.

It reads requests from standard input, one in each line, and forks for each. It has imported PyTorch
once, knows nothing of our solution, and imports nothing else of the project before it forks.
"""

import ctypes
import faulthandler
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from assignment.student import MEMORY_GB, answer

READABLE = "/usr/lib /usr/lib64 /usr/share /lib /lib64 /etc/ld.so.cache /etc/localtime /etc/fonts"
READABLE += " /dev/urandom /proc/cpuinfo /sys/devices"


def confine(folder: Path) -> None:
    """Limit this process: its memory, the size of files, and what it can read and write."""
    with suppress(ImportError):  # Windows has no such limits.
        import resource

        limits = {resource.RLIMIT_DATA: MEMORY_GB << 30, resource.RLIMIT_FSIZE: 64 << 20}
        for limit, most in limits.items():
            with suppress(ValueError):  # The limit may be lower already.
                resource.setrlimit(limit, (most, most))
    if sys.platform == "linux":
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
    # From version 4 on it also denies to connect and to bind, from 6 on to signal other processes.
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


def run(folder: Path, task: str, file: str, seconds: float) -> None:
    """Answer one request, in a process of its own, and end it."""
    os.chdir(folder / "work")
    sys.argv = [file]
    sys.path.insert(0, str(folder))
    hanging = open("hanging", "w")  # noqa: SIM115  # is used until the process ends
    faulthandler.dump_traceback_later(seconds, exit=True, file=hanging)
    confine(folder)
    answer(task, file, folder / "inputs.npz", folder / "work" / "answer.npz")
    os._exit(0)


def wait_for(child: int, seconds: float) -> int | None:
    """Wait for the end of a fork, kill what it leaves running, and return its status, if any."""
    parent, end, status = os.getppid(), time.monotonic() + seconds + 3, None
    try:
        while status is None and time.monotonic() < end and os.getppid() == parent:
            time.sleep(0.005)
            pid, code = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if pid else None
    finally:
        with suppress(OSError):
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
        while children := own_children():
            for each in children:
                with suppress(OSError):
                    os.kill(each, signal.SIGKILL)
                    os.waitpid(each, 0)
    return status


def own_children() -> list[int]:
    """This process's children, also those that others of them left; only Linux lists them."""
    with suppress(OSError):
        return [*map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())]
    return []


def serve() -> None:
    """Fork for each request, and answer with how the fork ended."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans become children of this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for line in sys.stdin:
        folder, task, file, seconds = json.loads(line)
        if file.endswith("visualize.py"):
            import matplotlib.backends.backend_agg
            import matplotlib.image
            import matplotlib.pyplot  # noqa: F401
        child = os.fork() if hasattr(os, "fork") else 0
        if not child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with suppress(AttributeError):  # Windows has no sessions.
                os.setsid()
            for stream in (0, 1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), stream)
            run(Path(folder), task, file, seconds)
        print(json.dumps(wait_for(child, seconds)), flush=True)


if __name__ == "__main__":
    serve()
