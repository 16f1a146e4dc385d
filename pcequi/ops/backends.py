"""Which optional backends can be used: the one place that probes for them."""

import functools
import os
import sys
import threading
import warnings
from contextlib import contextmanager, nullcontext

import torch


def _importable(module: str, switch: str) -> bool:
    if os.environ.get(switch, "") not in ("", "0"):
        return False
    try:
        __import__(module)
    except (ImportError, OSError):  # OSError: a build against another torch
        return False
    return True


def wants_gradient(*tensors: torch.Tensor) -> bool:
    """Whether a result of these is to be differentiated, which kernels without a backward
    pass must leave to torch.

    **Equivariance:** does not apply.
    """
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def is_plain(*tensors: torch.Tensor) -> bool:
    """Whether no derivative is wanted of what is made of these, nor any transform of functions
    at work: the way of a ``torch.autograd.Function`` around its ``forward`` takes longer than a
    small product.

    **Equivariance:** does not apply.
    """
    watched = torch._C._functorch.maybe_current_level() is not None or (
        torch.autograd.forward_ad._current_level >= 0
    )
    return not (watched or wants_gradient(*tensors))


_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def in_fork() -> bool:
    """Whether this process is a fork, such as a worker of a ``DataLoader``: threads of GNU's
    OpenMP do not outlive a fork, and asking for them there ends the process. A fork of your own
    calls ``torch.set_num_threads(1)``, as a ``DataLoader``'s does, or torch may wait for ever.

    **Equivariance:** does not apply.
    """
    return _forked


_one = threading.Lock()


def parallel_kernel():
    """A context in which to call a kernel that numba runs on several threads. Its own pool
    ("workqueue", for machines without OpenMP and TBB) ends the process when two threads of Python
    ask for it at once: there they wait for each other.

    **Equivariance:** does not apply.
    """
    import numba

    try:
        return _one if numba.threading_layer() == "workqueue" else nullcontext()
    except ValueError:  # nothing ran yet, so that nobody knows
        return _first_kernel()


@contextmanager
def _first_kernel():
    with _one, warnings.catch_warnings():
        # Open3D's own TBB, too old for numba, which takes OpenMP then: for its makers.
        warnings.filterwarnings("ignore", "The TBB threading layer requires TBB")
        yield


HAS_TORCH_CLUSTER = _importable("torch_cluster", "PCEQUI_NO_TORCH_CLUSTER")
# Without compiling, as who debugs kernels of numba asks for, torch is faster than Python.
HAS_NUMBA = _importable("numba", "PCEQUI_NO_NUMBA") and not sys.modules["numba"].config.DISABLE_JIT


@functools.cache
def has_triton() -> bool:
    """Whether kernels for a GPU can be compiled: one is, the first time that a GPU asks.

    Torch for CUDA brings Triton along, which also needs a C compiler and Python's headers, and
    warns where they are missing; ``PCEQUI_NO_TRITON=1`` does without.

    **Equivariance:** does not apply.
    """
    if not _importable("triton", "PCEQUI_NO_TRITON"):
        return False
    try:
        from pcequi.ops.compiled.gpu_fourier import try_out

        try_out()
    except Exception as error:  # Triton has many kinds of its own
        warnings.warn(
            f"Triton cannot compile kernels here ({str(error).strip()[:200]}); plain torch "
            "computes the same, slower. Install a C compiler and Python's headers, or set the "
            "environment variable PCEQUI_NO_TRITON=1",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
