"""The transform over the poses of each point on a GPU, as one kernel instead of a dozen.

Made of plain torch, it writes what it read three to five times over: for the signs, the
permutation and the constant channel. Here each number is read once and written once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["fourier", "try_out"]

# Numbers of each pose that a program holds at once.
_BLOCK = 1024


@triton.jit
def _forth(
    x, out, inverse, points, basis, channels, spare, scale, K: tl.constexpr, N: tl.constexpr
):
    place = tl.program_id(0).to(tl.int64)  # cloud * points + point
    cloud, point = place // points, place % points
    left = channels - spare
    n = tl.program_id(1) * N + tl.arange(0, N)
    here = n < basis * left
    function, channel = n // left, n % left
    a = _row(x, inverse, place, 0, function, channel, basis, channels, here, K)
    b = _row(x, inverse, place, 1, function, channel, basis, channels, here, K)
    each = points * basis * left  # from one character to the next
    first = out + cloud * K * each + point * basis * left + n
    if K == 2:
        tl.store(first, (a + b) * scale, mask=here)
        tl.store(first + each, (a - b) * scale, mask=here)
    else:
        c = _row(x, inverse, place, 2, function, channel, basis, channels, here, K)
        d = _row(x, inverse, place, 3, function, channel, basis, channels, here, K)
        tl.store(first, (a + b + c + d) * scale, mask=here)
        tl.store(first + each, (a - b + c - d) * scale, mask=here)
        tl.store(first + 2 * each, (a + b - c - d) * scale, mask=here)
        tl.store(first + 3 * each, (a - b - c + d) * scale, mask=here)


@triton.jit
def _row(x, inverse, place, k, function, channel, basis, channels, here, K: tl.constexpr):
    """Pose k of a point, its functions in the places that they have in the first pose."""
    source = tl.load(inverse + k * basis + function, mask=here, other=0)
    row = (place * K + k) * basis + source
    return tl.load(x + row * channels + channel, mask=here, other=0).to(tl.float32)


@triton.jit
def _back(
    x, out, inverse, last, points, basis, channels, spare, scale,
    K: tl.constexpr, WITH_LAST: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64)
    cloud, point = place // points, place % points
    wide = channels + spare
    n = tl.program_id(1) * N + tl.arange(0, N)
    here = n < basis * wide
    function, channel = n // wide, n % wide
    given = here & (channel < channels)
    each = points * basis * channels
    first = x + cloud * K * each + (point * basis + function) * channels + channel
    a = tl.load(first, mask=given, other=0).to(tl.float32)
    b = tl.load(first + each, mask=given, other=0).to(tl.float32)
    if WITH_LAST:
        appended = here & (channel >= channels)
        one = tl.load(last + place * basis + function, mask=appended, other=0).to(tl.float32)
    else:
        one = tl.zeros([N], tl.float32)
    if K == 2:
        _put(out, inverse, place, 0, (a + b) * scale + one, function, channel, basis, wide, here, K)
        _put(out, inverse, place, 1, (a - b) * scale + one, function, channel, basis, wide, here, K)
    else:
        c = tl.load(first + 2 * each, mask=given, other=0).to(tl.float32)
        d = tl.load(first + 3 * each, mask=given, other=0).to(tl.float32)
        p, q, r, s = a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d
        _put(out, inverse, place, 0, p * scale + one, function, channel, basis, wide, here, K)
        _put(out, inverse, place, 1, q * scale + one, function, channel, basis, wide, here, K)
        _put(out, inverse, place, 2, r * scale + one, function, channel, basis, wide, here, K)
        _put(out, inverse, place, 3, s * scale + one, function, channel, basis, wide, here, K)


@triton.jit
def _put(out, inverse, place, k, value, function, channel, basis, wide, here, K: tl.constexpr):
    """Write pose k of a point, its functions in its own places."""
    target = tl.load(inverse + k * basis + function, mask=here, other=0)
    row = (place * K + k) * basis + target
    tl.store(out + row * wide + channel, value, mask=here)


def fourier(
    x: Tensor, inverse: Tensor, back: bool, scale: float, spare: int, last: Tensor | None
) -> Tensor:
    """What ``dense._transformed`` computes, for characters in the order of ``Characters.of``.

    Args:
        x: forth [G, P, K, B, C], back [G, K, P, B, C]; 16 or 32 bits.
        inverse: ``Characters.inverse`` [K, B].
        back: whether to transform back.
        scale: factor of the result.
        spare: last channels that are left out forth, and appended back.
        last: what is appended [G, P, B]; None: zeros.

    Returns:
        Forth [G, K, P, B, C - spare], back [G, P, K, B, C + spare].

    **Equivariance:** does not apply.
    """
    clouds, first, second, basis, channels = x.shape
    x, inverse = x.contiguous(), inverse.contiguous()
    points, size = (second, first) if back else (first, second)
    width = basis * (channels + spare if back else channels - spare)
    block = min(_BLOCK, triton.next_power_of_2(max(width, 1)))
    grid = (clouds * points, triton.cdiv(width, block))
    sizes = (points, basis, channels, spare, scale)
    if back:
        out = x.new_empty(clouds, points, size, basis, channels + spare)
    else:
        out = x.new_empty(clouds, size, points, basis, channels - spare)
    if out.numel() == 0:
        return out
    given = last is not None and spare > 0
    last = last.to(x.dtype).contiguous() if given else x
    # Triton launches on the current GPU, wherever its arguments lie.
    with torch.cuda.device_of(x):
        if back:
            _back[grid](x, out, inverse, last, *sizes, K=size, WITH_LAST=given, N=block)
        else:
            _forth[grid](x, out, inverse, *sizes, K=size, N=block)
    return out


def try_out() -> None:
    """Compile a kernel and run it on two numbers; raises what Triton raises.

    **Equivariance:** does not apply.
    """
    x = torch.ones(1, 1, 2, 1, 1, device="cuda")
    fourier(x, torch.zeros(2, 1, dtype=torch.long, device="cuda"), False, 1.0, 0, None)
