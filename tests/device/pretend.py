"""A GPU that is only pretended: tensors on the CPU that say they are on "cuda".

What mixes devices fails here as it would there, and code takes the paths that it takes on a
GPU. Arithmetic is the CPU's.
"""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
_SETTERS = {torch.Tensor.data.__set__, torch.Tensor.grad.__set__}
# Where arguments may lie on either side, or say where the result goes.
_MOVES = {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda, torch.Tensor.copy_}
_INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}


# What makes the CPU wait for a GPU, or takes what lies on the CPU along, and so cannot be captured:
# operators that read a value, or whose result is as large as values say, and new constants.
_WAITING = {
    "_local_scalar_dense",
    "_unique2",
    "allclose",
    "bincount",
    "equal",
    "is_nonzero",
    "lift_fresh",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
}
_MASKED = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Waits(Exception):
    """What the capture of a CUDA graph would refuse."""


class no_waiting(TorchDispatchMode):
    """Inside the block a look at the values of a tensor is an error, and so is a new constant."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masked = name in _MASKED and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in args[1]
        )
        if name in _WAITING or masked:
            raise Waits(f"{name} waits for the GPU")
        return func(*args, **(kwargs or {}))


class MixedDevices(Exception):
    """What a GPU would refuse."""


def side(x: torch.Tensor) -> str | None:
    """Where a tensor says that it is; None: not known (made inside torch)."""
    return getattr(x, "_pretended", None)


def _wanted(value) -> str | None:
    """The side that an argument asks for."""
    if isinstance(value, torch.device):
        return value.type
    if isinstance(value, str) and value.split(":")[0] in ("cuda", "cpu"):
        return value.split(":")[0]
    return None


class PretendGPU(TorchFunctionMode):
    """Inside the block ``"cuda"`` is a device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.device or func is torch._C._nn._parse_to:
            return func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if func == torch.Tensor.device.__get__:
            return GPU if side(args[0]) == "cuda" else CPU
        if func == torch.Tensor.is_cuda.__get__:
            return side(args[0]) == "cuda"
        if func is torch.Tensor.numpy and side(args[0]) == "cuda":
            raise MixedDevices("a tensor of a GPU has no array; call `.cpu()` first")
        sides = {side(x) for x in tensors if x.dim() > 0} - {None}
        # A number of the CPU may join: 0-dimensional tensors are not looked at above.
        everywhere = {side(x) for x in tensors} - {None}
        if func in _SETTERS:
            func(*args)
            if isinstance(args[1], torch.Tensor) and func == torch.Tensor.data.__set__:
                args[0]._pretended = side(args[1])
            return None
        asked = None
        if func not in (torch.Tensor.copy_,):
            asked = next((w for w in map(_wanted, (*args, kwargs.get("device"))) if w), None)
        if func is torch.Tensor.to and len(args) > 1 and isinstance(args[1], torch.Tensor):
            asked = side(args[1])
        if func in (torch.Tensor.cuda, torch.Tensor.cpu):
            asked = "cuda" if func is torch.Tensor.cuda else "cpu"
            func, kwargs = torch.Tensor.to, {}
            args = (args[0], CPU)
        if func in _INDEXING and side(args[0]) == "cuda":
            sides = {"cuda"}  # indices may lie on the CPU
        if func not in _MOVES and len(sides) > 1:
            shapes = [(side(x), list(x.shape)) for x in tensors]
            raise MixedDevices(f"{getattr(func, '__name__', func)} of {shapes}")
        swap = lambda x: CPU if _wanted(x) else x  # noqa: E731
        plain = [swap(x) if isinstance(x, torch.device | str) else x for x in args]
        if "device" in kwargs and kwargs["device"] is not None:
            kwargs["device"] = CPU
        out = func(*plain, **kwargs)
        if func is torch.Tensor.copy_:
            where = side(args[0])
        else:
            where = asked or ("cuda" if "cuda" in (sides or everywhere) else None)
            if where is None and (everywhere or not tensors):
                where = "cpu"
        moved = asked is not None and tensors and where != side(tensors[0])
        if moved and isinstance(out, torch.Tensor) and out is tensors[0]:
            out = out.detach().clone() if not out.requires_grad else out.clone()
        return tree_map_only(torch.Tensor, lambda x: _tagged(x, where), out)


def _tagged(x: torch.Tensor, where: str | None) -> torch.Tensor:
    if where is not None:
        x._pretended = where
    return x
