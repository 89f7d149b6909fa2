"""How many cores this process may keep busy."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """The cores there are, or fewer by the process's affinity or the quotas of its control groups.

    Args:
        root: where the file system begins.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, and scheduler/sched-bwc.rst for v1.
    """
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """The processor time per time that each control group leaves, from the own group upwards."""
    with suppress(OSError):  # not Linux
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            place = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            # Inside a container the own group may be the place itself, whatever it is called.
            path = Path(group.strip("/"))
            for folder in (place / part for part in (path, *path.parents)):
                with suppress(OSError, ValueError):  # there is no such group here, or no quota
                    if controllers:
                        quota = (folder / "cpu.cfs_quota_us").read_text()
                        period = (folder / "cpu.cfs_period_us").read_text()
                    else:
                        quota, period = (folder / "cpu.max").read_text().split()
                    if int(quota) > 0:  # -1, and "max" of version 2, is none
                        yield int(quota) / int(period)
