"""Threads of torch and of numba, which share one pool and must agree."""

from __future__ import annotations

import os

import torch

from pcequi.errors import ArgumentError, check_count
from pcequi.ops.backends import HAS_NUMBA
from pcequi.ranks import local_cores

__all__ = ["choose_device", "set_threads"]

_MOST = 1024  # on a machine of few cores


def set_threads(num: int | None = None) -> int:
    """Use so many threads in torch and in numba; by default what the environment variable
    OMP_NUM_THREADS says, or one a core.

    Processes that a launcher started together on a machine share its cores.

    A numba kernel sets OpenMP's number of threads for the torch calls after it,
    so setting torch's alone would not last.

    Returns:
        The number in use.

    Raises:
        ArgumentError: ``num``, or what an environment variable says, is below 1 or beyond all use.

    **Equivariance:** does not apply.
    """
    check_count("threads", num, none=True)
    said = os.environ.get("OMP_NUM_THREADS", "")
    name = "`threads`" if num else "the environment variable OMP_NUM_THREADS"
    num = num or (int(said) if said.isdecimal() else 0) or local_cores()
    if num > (most := max(_MOST, 16 * local_cores())):
        raise ArgumentError(f"{name} (={num}) must be at most {most}: a thread a core is enough")
    torch.set_num_threads(num)
    if HAS_NUMBA:
        import numba

        if numba.config.NUMBA_NUM_THREADS < 1:
            raise ArgumentError(
                "the environment variable NUMBA_NUM_THREADS "
                f"(={numba.config.NUMBA_NUM_THREADS}) must be at least 1; give more, or unset it"
            )
        numba.set_num_threads(min(num, numba.config.NUMBA_NUM_THREADS))
    return torch.get_num_threads()


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``.

    Raises:
        ArgumentError: another name, or CUDA is asked for and not there.

    **Equivariance:** does not apply.
    """
    kind = name.split(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise ArgumentError(f"`device` (={name!r}) must be 'auto', 'cpu' or 'cuda'")
    if kind == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(f"`device` (={name!r}) is not there; use 'cpu' or 'auto'")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ArgumentError(
            f"`device` (={name!r}) is no device; write 'cpu', 'cuda' or, of several, 'cuda:1'"
        ) from error
