"""Jobs of several processes, launched by ``torchrun`` or ``fabric run``.

The launcher starts the same command several times and says in the environment
how many there are. Lightning Fabric connects them: gloo between CPUs, NCCL
between GPUs, gradients through DistributedDataParallel.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from pcequi.errors import ArgumentError, MissingPackageError, PcequiError
from pcequi.ranks import ALONE, Ranks, local_processes
from pcequi.training.threads import choose_device

__all__ = ["is_launched", "launched"]

# Words of the errors by which gloo and NCCL say that a process is gone or late.
_LOST = ("gloo", "nccl", "connection", "timed out", "timeout", "socket")


def is_launched() -> bool:
    """Whether a launcher started this process beside others.

    **Equivariance:** does not apply.
    """
    return "RANK" in os.environ and _number("WORLD_SIZE") > 1


@contextmanager
def launched(device: str = "auto", timeout: float = 1800.0) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that were launched together; one by itself stays ``ALONE``.

    Args:
        device: ``auto`` (CUDA where there is one), ``cpu`` or ``cuda``: of each
            process the GPU of its number on its machine.
        timeout: seconds after which a process that waits for the others gives up.

    Yields:
        The ``Ranks`` and this process's device.

    Raises:
        ArgumentError: a device or a time that cannot work.
        MissingPackageError: several processes, and Lightning Fabric is missing.
        PcequiError: another process is gone, or did not answer in time.

    **Equivariance:** does not apply.
    """
    if not timeout > 0:
        raise ArgumentError(f"`timeout` (={timeout}) must be positive")
    if not is_launched():
        yield ALONE, choose_device(device)
        return
    ranks = _join(device, timeout)
    try:
        yield ranks, ranks.fabric.device
        ranks.wait()
    except RuntimeError as error:
        if isinstance(error, (PcequiError, torch.OutOfMemoryError)) or not _is_lost(error):
            raise
        line = str(error).strip().splitlines()[0]
        raise PcequiError(
            f"process {ranks.rank} of {ranks.size} lost the others: one of them ended or did not "
            f"answer within {timeout:g} s ({line}); look above for its error, and run the same "
            "command again (training: with --resume): what was finished is kept"
        ) from error
    dist.destroy_process_group()


def _number(name: str) -> int:
    value = os.environ.get(name, "1")
    if not value.isdigit():
        raise ArgumentError(f"`{name}` (={value!r}, in the environment) must be a whole number")
    return int(value)


def _is_lost(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in text for word in _LOST)


def _join(device: str, timeout: float) -> FabricRanks:
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        raise MissingPackageError(
            f"{_number('WORLD_SIZE')} processes were launched, which Lightning Fabric connects, "
            'and it is not installed: pip install ".[distributed]" in the folder of the '
            "repository, or start one process"
        ) from error
    if device == "auto" and os.environ.get("LT_ACCELERATOR") == "cpu":  # of `fabric run`
        device = "cpu"
    kind = choose_device(device).type
    size, local = _number("WORLD_SIZE"), local_processes()
    if device not in ("auto", "cpu", "cuda"):
        raise ArgumentError(
            f"`device` (={device!r}) must be 'auto', 'cpu' or 'cuda' for {size} processes: each "
            "takes the GPU of its number"
        )
    if kind == "cuda" and torch.cuda.device_count() < local:
        raise ArgumentError(
            f"`device` (={device!r}) has {torch.cuda.device_count()} GPUs for {local} processes on "
            "this machine; launch as many processes as GPUs, or use 'cpu'"
        )
    if size % local:
        raise ArgumentError(
            f"`WORLD_SIZE` (={size}) must be a multiple of the processes on this machine "
            f"(={local}): launch as many on each machine"
        )
    _check_fabric_run()
    # Its lines about who has joined are no news to anybody.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    strategy = DDPStrategy(timeout=timedelta(seconds=timeout))
    fabric = Fabric(accelerator=kind, devices=local, num_nodes=size // local, strategy=strategy)
    _join_restarted(kind, timeout)
    fabric.launch()
    return FabricRanks(fabric)


def _join_restarted(kind: str, timeout: float) -> None:
    """Connect processes that torchrun started again, under names of their own.

    torchrun keeps its store over restarts, and torch 2.13 looks there for the addresses of the
    others under the same names as before: whoever comes first finds those of the dead.
    Fabric takes a group that is there already.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0":
        return
    if kind == "cuda":
        torch.cuda.set_device(_number("LOCAL_RANK"))
    wait = timedelta(seconds=timeout)
    store, rank, size = next(rendezvous("env://", timeout=wait))
    store = dist.PrefixStore(f"pcequi/attempt-{attempt}", store)
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=wait)


def _check_fabric_run() -> None:
    """What ``fabric run`` chose beside the number of processes is pcequi's own to choose."""
    for name, remedy, allowed in (
        ("LT_STRATEGY", "leave it out", ("auto", "ddp")),
        ("LT_PRECISION", "use --bfloat16 of `pcequi train`", ("32", "32-true")),
    ):
        value = os.environ.get(name)
        if value is not None and value not in allowed:
            option = name.removeprefix("LT_").lower()
            raise ArgumentError(
                f"`--{option}` (={value!r}) of `fabric run` must be one of {allowed}; {remedy}"
            )
    for name in [name for name in os.environ if name.startswith("LT_")]:
        del os.environ[name]  # Fabric would hold them against what it is given above.


class FabricRanks(Ranks):
    """Processes that Lightning Fabric connects; see ``Ranks``.

    Args:
        fabric: launched.

    **Equivariance:** does not apply.
    """

    def __init__(self, fabric):
        self.fabric = fabric
        self.rank, self.size = fabric.global_rank, fabric.world_size

    def gather(self, x: Tensor, even: bool = False) -> Tensor:
        """As ``Ranks.gather``."""
        sizes = [len(x)] * self.size if even else self._sizes(len(x))
        place = x.device
        # gloo reduces no 16-bit floats; NCCL reads GPUs alone.
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return _Gather.apply(wide.to(self.fabric.device), sizes, self.rank).to(place, x.dtype)

    def wait(self) -> None:
        """As ``Ranks.wait``."""
        self.fabric.barrier()

    def setup(self, module: nn.Module) -> nn.Module:
        """As ``Ranks.setup``; every process goes on with the weights of process 0."""
        return self.fabric.setup_module(module, move_to_device=False)

    def backward(self, loss: Tensor) -> None:
        """As ``Ranks.backward``."""
        self.fabric.backward(loss)

    def _sizes(self, num: int) -> list[int]:
        own = torch.tensor([num], device=self.fabric.device)
        return _Gather.apply(own, [1] * self.size, self.rank).tolist()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, sizes: list[int], rank: int) -> Tensor:
        ctx.sizes, ctx.rank = sizes, rank
        most = max(sizes)
        padded = F.pad(x, [0, 0] * (x.dim() - 1) + [0, most - len(x)]).contiguous()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:num] for part, num in zip(parts, sizes)])

    @staticmethod
    def backward(ctx, grad: Tensor):
        # Every process has a loss of its own that these rows entered.
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad.split(ctx.sizes)[ctx.rank], None, None
