"""The processes that do one job together, as those who share the work see them.

``Ranks`` is one process, which shares with nobody: gathering returns what it is
given, and waiting takes no time. ``training.launch`` has the launched form.
"""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

from torch import Tensor, nn

__all__ = ["ALONE", "Ranks", "granted_cores", "local_cores", "local_processes"]


def local_processes() -> int:
    """Processes that a launcher started together on this machine; 1 without one.

    **Equivariance:** does not apply.
    """
    value = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return int(value) if value.isdigit() and int(value) > 0 else 1


def local_cores() -> int:
    """Cores for this process: those it may run on, divided by the processes that a
    launcher started together on this machine; at least one.

    **Equivariance:** does not apply.
    """
    # Fewer than the machine has, in a container or under taskset.
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return max(1, min(cores, granted_cores()) // local_processes())


def granted_cores(folder: str | Path = "/sys/fs/cgroup") -> int:
    """Cores whose time a container may take (``docker --cpus``), as the files of a folder say;
    very many where nothing limits it.

    **Equivariance:** does not apply.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):
            words = [word for name in names for word in Path(folder, name).read_text().split()]
            quota, period = map(int, words)  # "max" is no number, and -1 no limit
            if quota > 0 and period > 0:
                return -(-quota // period)
    return 1 << 20


class Ranks:
    """One process by itself.

    Attributes:
        rank: number of this process, from 0; only 0 writes files and shows progress.
        size: of all processes.

    **Equivariance:** does not apply.
    """

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @contextmanager
    def first_warns(self):
        """Inside, of warnings that all processes give those of the first one are shown."""
        with warnings.catch_warnings():
            if not self.first:
                warnings.simplefilter("ignore")
            yield

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of rows [n, ...]: consecutive ones, in order of the ranks;
        parts differ by one row at most."""
        return rows.tensor_split(self.size)[self.rank]

    def gather(self, x: Tensor, even: bool = False) -> Tensor:
        """The rows of all processes, in order of the ranks, on each of them.

        Gradients flow back to the process that a row came from, summed over the
        losses of all processes.

        Args:
            x: rows of this process [n, ...].
            even: every process has as many rows (saves telling each other how many).

        Returns:
            [sum of n, ...].

        Raises:
            PcequiError: another process is gone.
        """
        return x

    def wait(self) -> None:
        """Until all processes are here."""

    @contextmanager
    def first_goes_first(self):
        """Process 0 runs the block before the others do, who then find its files."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def setup(self, module: nn.Module) -> nn.Module:
        """The module, whose gradients after ``backward`` are means over all processes."""
        return module

    def backward(self, loss: Tensor) -> None:
        """Backpropagate."""
        loss.backward()


#: One process by itself.
ALONE = Ranks()
