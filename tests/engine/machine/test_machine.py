"""What Linux tells of this machine: quotas of containers, and the cores beside a device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from poolscore.engine.config import RunConfig
from poolscore.engine.machine import cores
from poolscore.engine.machine.cores import bind_to_gpu, read_ahead, usable_cores
from poolscore.engine.machine.linux import cores_beside, cpu_quota, memory_limit

GB = 1 << 30
DOCKER_V1 = "5:memory:/docker/ab12\n4:cpu,cpuacct:/docker/ab12\n1:name=systemd:/docker/ab12"


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "250000 100000"}, 2.5),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
        (
            {
                "proc/self/cgroup": "0::/pods/pod-7/main",
                "sys/fs/cgroup/pods/pod-7/main/cpu.max": "max 100000",
                "sys/fs/cgroup/pods/pod-7/cpu.max": "400000 100000",
                "sys/fs/cgroup/pods/cpu.max": "800000 100000",
            },
            4.0,
        ),
        ({"proc/self/cgroup": "0::/../../other", "sys/fs/cgroup/cpu.max": "100000 100000"}, 1.0),
        (
            {
                "proc/self/cgroup": DOCKER_V1,  # named as the host does, mounted as the container's root
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "50000",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": DOCKER_V1,
                "sys/fs/cgroup/cpu/docker/ab12/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/docker/ab12/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({"proc/self/cgroup": "0::/"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_cores(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(put(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/meminfo": "MemTotal:       4194304 kB\nMemFree: 1 kB"}, 4 * GB),
        (
            {
                "proc/meminfo": "MemTotal:       4194304 kB",
                "proc/self/cgroup": "0::/a",
                "sys/fs/cgroup/a/memory.max": str(GB),
            },
            GB,
        ),
        (
            {
                "proc/meminfo": "MemTotal:       4194304 kB",
                "proc/self/cgroup": DOCKER_V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",  # version 1 has no 'max'
            },
            4 * GB,
        ),
        ({}, None),
    ],
)
def test_the_limit_of_memory(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    assert memory_limit(put(tmp_path, files)) == limit


def test_this_machine_can_be_asked() -> None:
    assert (cpu_quota() or 1) > 0
    assert (memory_limit() or GB) > 1 << 20


@pytest.mark.parametrize(("quota", "cores_of_us"), [(None, 8), (16.0, 8), (2.9, 2), (0.3, 1)])
def test_cores_are_what_affinity_and_quota_leave(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores_of_us: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert usable_cores() == cores_of_us


@pytest.mark.parametrize(
    ("memory", "decode_threads", "on_gpu", "budget"),
    [
        (None, 0, False, 128 << 20),
        (64 * GB, 15, True, GB),
        (8 * GB, 3, True, GB // 4),  # one of four workers: an eighth of the memory is theirs
        (8 * GB, 99, True, GB),
        (8 * GB, 3, False, 128 << 20),
    ],
)
def test_workers_of_a_machine_share_an_eighth_of_its_memory(
    monkeypatch: pytest.MonkeyPatch, memory: int | None, decode_threads: int, on_gpu: bool, budget: int
) -> None:
    monkeypatch.setattr(cores, "memory_limit", lambda: memory)
    monkeypatch.setattr(cores, "usable_cores", lambda: 16)
    run = RunConfig(dir="run", decode_threads=decode_threads)
    assert read_ahead(run, on_gpu) == budget
    assert read_ahead(run.model_copy(update={"read_ahead": 7}), on_gpu) == 7


class _Gpu:
    pci_domain_id, pci_bus_id, pci_device_id = 0, 0x4E, 0


@pytest.mark.parametrize(("threads", "bound"), [(4, {4, 5, 6, 7}), (5, None)])
def test_a_worker_stays_beside_its_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: int, bound: set[int] | None
) -> None:
    put(tmp_path, NUMA)
    given: list[set[int]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: _Gpu())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: given.append(set(cores)))
    monkeypatch.setattr(cores, "cores_beside", lambda pci: cores_beside(pci, tmp_path))
    bind_to_gpu(RunConfig(dir="run", threads=threads))
    assert (given[0] if given else None) == bound
    given.clear()
    bind_to_gpu(RunConfig(dir="run", device="cpu"))
    assert given == []


NUMA = {
    "sys/devices/system/node/node0/cpulist": "0-3,8-11",
    "sys/devices/system/node/node1/cpulist": "4-7,12-15",
    "sys/bus/pci/devices/0000:4e:00.0/numa_node": "1",
    "sys/bus/pci/devices/0000:5f:00.0/numa_node": "-1",
}


def test_the_cores_beside_a_device(tmp_path: Path) -> None:
    put(tmp_path, NUMA)
    assert cores_beside("0000:4E:00.0", tmp_path) == {4, 5, 6, 7, 12, 13, 14, 15}
    assert cores_beside("0000:5f:00.0", tmp_path) is None  # the firmware does not say
    assert cores_beside("0000:00:00.0", tmp_path) is None


def test_one_node_needs_no_binding(tmp_path: Path) -> None:
    put(tmp_path, {name: text for name, text in NUMA.items() if "node1" not in name})
    assert cores_beside("0000:4e:00.0", tmp_path) is None


def test_every_thread_of_a_process_is_bound_and_too_few_cores_are_refused() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core only")
    code = """
import os, threading
from pathlib import Path
from poolscore.engine.machine.linux import bind
ours = sorted(os.sched_getaffinity(0))
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(bind(frozenset({ours[0], 100_000}), least=2), bind(frozenset({ours[0]}), least=1))
print({len(os.sched_getaffinity(int(task.name))) for task in Path("/proc/self/task").iterdir()})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["False True", "{1}"]
