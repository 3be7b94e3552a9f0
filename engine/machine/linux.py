"""What of this machine is ours, as Linux tells: the quotas of containers, and which cores lie beside which device.

`root` is where the file systems /proc and /sys are mounted; tests give a folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")
_V1_FOLDERS = {"cpu": ("cpu", "cpu,cpuacct"), "memory": ("memory",)}


def cpu_quota(root: Path = ROOT) -> float | None:
    """Cores that the control groups of this process let it use, on average; None: no limit. Groups of version 1 and 2:
    docs.kernel.org/admin-guide/cgroup-v2.html, docs.kernel.org/scheduler/sched-bwc.html."""
    found: list[float] = []
    for group in _groups(root, "cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal():  # not 'max', nor -1
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that this process and what shares its control groups may use, at most those of the machine; None: not
    known."""
    limits = [
        _read(group / name) for group in _groups(root, "memory") for name in ("memory.max", "memory.limit_in_bytes")
    ]
    found = [int(limit) for limit in limits if limit.isdecimal()]
    with suppress(StopIteration, ValueError):
        total = next(line for line in _read(root / "proc/meminfo").splitlines() if line.startswith("MemTotal:"))
        found.append(int(total.split()[1]) << 10)
    return min(found, default=None)


def cores_beside(pci: str, root: Path = ROOT) -> frozenset[int] | None:
    """The cores of the NUMA node that a PCI device hangs on; None: not known, or there is one node only.

    Args:
        pci: the device's address, such as '0000:4e:00.0'.
    """
    nodes = list((root / "sys/devices/system/node").glob("node[0-9]*"))
    number = _read(root / "sys/bus/pci/devices" / pci.lower() / "numa_node")
    if len(nodes) < 2 or not number.isdecimal():  # -1: the firmware does not say
        return None
    return frozenset(_ranges(_read(root / f"sys/devices/system/node/node{number}/cpulist"))) or None


def bind(cores: frozenset[int], least: int) -> bool:
    """Let all threads of this process run on these cores only, as far as it may use them. False: that leaves fewer than
    `least`, so nothing was changed."""
    ours = cores & os.sched_getaffinity(0)
    if len(ours) < least:
        return False
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(task.name), ours)
    return True


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The control groups of this process from the innermost out. A container may show its own as the root while it is
    named as the host knows it: what is not there has no file to read."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers:
            tops = [root / "sys/fs/cgroup"]
        elif controller in controllers.split(","):
            tops = [root / "sys/fs/cgroup" / folder for folder in _V1_FOLDERS[controller]]
        else:
            continue
        inside = Path(name.lstrip("/"))
        yield from (top / part for top in tops for part in (inside, *inside.parents))


def _ranges(text: str) -> Iterator[int]:
    """The numbers of '0-3,8'."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _read(path: Path) -> str:
    """'' if it cannot be."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
