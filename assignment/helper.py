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

from assignment.student import MEMORY_GB, answer, pack, unpack

FILE_MB = 64
PATIENCE = 3  # seconds that may pass for each second of processor time
READABLE = "/usr/lib /usr/lib64 /usr/share /lib /lib64 /etc/ld.so.cache /etc/localtime /etc/fonts"
READABLE += " /dev/urandom /proc/cpuinfo /sys/devices"


def confine(folder: Path, seconds: float) -> None:
    """Limit this process: memory, files, time, and on Linux its view of the file system."""
    with suppress(ImportError):  # Windows has no such limits.
        import resource

        limits = {"DATA": MEMORY_GB << 30, "FSIZE": FILE_MB << 20, "CORE": 0}
        for name, most in limits.items():
            with suppress(ValueError):  # The limit may be lower already.
                resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 3))
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            readable = [folder, *map(Path, READABLE.split() + sys.path)]
            allow_only([folder / "work", Path("/dev/null")], readable)


def allow_only(writable: list[Path], readable: list[Path]) -> None:
    """Deny this process, by Landlock, all files but those below these folders.

    Raises OSError where Linux does not have it.
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
    size = 8 * (1 + (version >= 4) + (version >= 6))
    ruleset = call(444, rules, size, 0)
    for allowed, folders in ((everything, writable), (read, readable)):
        for folder in folders:
            with suppress(OSError):
                file = os.open(folder, os.O_PATH)
                mask = allowed if folder.is_dir() else allowed & (1 | 2 | 4 | 1 << 14)
                rule = (ctypes.c_uint8 * 12).from_buffer_copy(
                    mask.to_bytes(8, "little") + file.to_bytes(4, "little")
                )
                call(445, ruleset, 1, rule, 0)
                os.close(file)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges
    call(446, ruleset, 0)


def run(request: dict[str, Any]) -> None:
    """Answer one request, in a process of its own, and end it."""
    folder = Path(request["folder"])
    os.chdir(folder / "work")
    sys.argv = [request["file"]]
    sys.path.insert(0, str(folder))
    with open("printed", "w") as printed:
        for stream in (1, 2):
            os.dup2(printed.fileno(), stream)
    hanging = open("hanging", "w")  # noqa: SIM115  # is used until the process ends
    # The limit is one of processor time, so that a busy machine is no student's fault.
    faulthandler.dump_traceback_later(PATIENCE * request["seconds"], exit=True, file=hanging)
    with suppress(AttributeError):
        faulthandler.register(signal.SIGXCPU, hanging, chain=True)
    inputs = unpack(request["inputs"])
    confine(folder, request["seconds"])
    process = os.getpid()
    record = answer(request["task"], request["file"], inputs)
    # The student's code may have forked a process that arrives here too.
    if os.getpid() == process:
        text = pack(record)
        with suppress(OSError), open(folder / "work" / "answer", "w") as file:
            file.write(text)
        with suppress(Exception):
            sys.stdout.flush()
    os._exit(0)


def kill_orphans() -> bool:
    """Kill what a student's process left running in another session; tell whether there was any."""
    killed = False
    while True:
        orphans = ""
        with suppress(OSError):  # Only Linux lists them.
            orphans = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        if not orphans:
            return killed
        for orphan in map(int, orphans.split()):
            with suppress(OSError):
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, 0)
                killed = True


def wait_for(child: int, seconds: float) -> dict[str, Any]:
    """Wait for the end of a fork, kill what it leaves running, and tell how it ended."""
    parent, start = os.getppid(), time.monotonic()
    status, used, left = None, 0.0, False
    try:
        while status is None and used < seconds + 3 and os.getppid() == parent:
            time.sleep(0.005)
            pid, code, usage = os.wait4(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if pid else None
            used = max((time.monotonic() - start) / PATIENCE, usage.ru_utime + usage.ru_stime)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
            left = status is not None
        with suppress(ChildProcessError):
            os.waitpid(child, 0)
        left |= kill_orphans()
    return {"status": status, "left": left, "used": used}


def serve() -> None:
    """Fork for each request, and answer with how the fork ended."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans become children of this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for line in sys.stdin:
        request = json.loads(line)
        if request["file"].endswith("visualize.py"):
            import matplotlib.backends.backend_agg
            import matplotlib.image
            import matplotlib.pyplot  # noqa: F401
        child = os.fork() if hasattr(os, "fork") else 0
        if not child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with suppress(AttributeError):  # Windows has no sessions.
                os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            run(request)
        print(json.dumps(wait_for(child, request["seconds"])), flush=True)


if __name__ == "__main__":
    serve()
