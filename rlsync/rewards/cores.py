"""The number of cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTAS = (
    ("/sys/fs/cgroup/cpu.max", None),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)
"""Files with the CPU quota and the period of a container: cgroups v2 has both in one file, v1 has two files."""


def usable_cores() -> int:
    """Return the number of cores in the affinity mask, or fewer if the container has a CPU quota; at least 1."""
    cores = len(os.sched_getaffinity(0))
    for quota_file, period_file in _QUOTAS:
        try:
            numbers = Path(quota_file).read_text().split()
            numbers += Path(period_file).read_text().split() if period_file else []
            quota, period = int(numbers[0]), int(numbers[1])
        except (OSError, ValueError, IndexError):  # no such file, or "max" for no quota
            continue
        if quota > 0 and period > 0:
            cores = min(cores, -(-quota // period))
    return max(1, cores)
