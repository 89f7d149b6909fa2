"""How many cores a process may keep busy, by files in the place of Linux's own."""

import os

import pytest

from codebase.system.cores import usable_cores

V1, V2 = "4:cpu,cpuacct:/jobs/mine\n7:memory:/jobs/mine\n", "0::/jobs/mine\n"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of 64 cores, of which this process may use 16."""
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)


@pytest.fixture
def files(tmp_path):
    """Write files below a root, and count the cores there."""

    def files(groups, **contents):
        own = tmp_path / "proc" / "self"
        own.mkdir(parents=True)
        (own / "cgroup").write_text(groups)
        for place, content in contents.items():
            path = tmp_path / "sys" / "fs" / "cgroup" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return usable_cores(tmp_path)

    return files


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"jobs/mine/cpu.max": "200000 100000\n"}, 2),
        ({"jobs/cpu.max": "300000 100000\n", "jobs/mine/cpu.max": "max 100000\n"}, 3),
        ({"jobs/cpu.max": "300000 100000\n", "jobs/mine/cpu.max": "500000 100000\n"}, 3),
        ({"cpu.max": "200000 100000\n"}, 2),  # as a container sees its own group
        ({"jobs/mine/cpu.max": "250000 100000\n"}, 2),
        ({"jobs/mine/cpu.max": "50000 100000\n"}, 1),
        ({"jobs/mine/cpu.max": "6400000 100000\n"}, 16),
        ({"jobs/mine/cpu.max": "max 100000\n"}, 16),
        ({"jobs/yours/cpu.max": "100000 100000\n"}, 16),
        ({}, 16),
    ],
)
def test_the_smallest_quota_of_version_2_counts(files, quotas, cores):
    assert files(V2, **quotas) == cores


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"cpu/jobs/mine": "200000"}, 2),
        ({"cpu/jobs": "300000", "cpu/jobs/mine": "-1"}, 3),
        ({"cpu": "150000"}, 1),
        ({"cpu/jobs/mine": "-1"}, 16),
        ({"memory/jobs/mine": "100000"}, 16),
        ({}, 16),
    ],
)
def test_the_smallest_quota_of_version_1_counts(files, quotas, cores):
    contents = {f"{group}/cpu.cfs_quota_us": quota for group, quota in quotas.items()}
    periods = {f"{group}/cpu.cfs_period_us": "100000" for group in quotas}
    assert files(V1, **contents, **periods) == cores


def test_where_there_are_no_groups_the_affinity_counts(tmp_path):
    assert usable_cores(tmp_path) == 16


def test_where_there_is_no_affinity_all_cores_count(tmp_path, monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity")
    assert usable_cores(tmp_path) == 64
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert usable_cores(tmp_path) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="of Linux")
def test_a_real_affinity_counts(monkeypatch):
    monkeypatch.undo()
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
