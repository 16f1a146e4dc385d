"""A function under test, and the motions that it is put through."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pcequi.errors import ArgumentError
from pcequi.rotations import random_rotations
from pcequi.testing.clouds import jittered

__all__ = ["KINDS", "Probe", "change", "in_dtype", "where_it_is"]

# Outputs of so many eps may be rounding of numbers of the order of one, and nothing else.
_ROUNDINGS = 100
KINDS = ("rotation", "translation", "permutation", "reflection")


def change(before: Tensor, after: Tensor, center: bool, size: float = 1.0) -> float:
    """The norm of the change over that of ``before``; infinite for NaN or another shape.

    Unlike ``relative_change`` it takes the mean off only where entries differ
    enough for it, so that single numbers and constant outputs can be compared. Outputs that
    vanish by symmetry, of which rounding is left, can be compared too: a change below
    sqrt(eps) of ``size``, that of the entries of outputs which do not, is given as a share
    of it.

    **Equivariance:** a figure about it.
    """
    if before.shape != after.shape:
        return math.inf
    eps = torch.finfo(after.dtype if after.is_floating_point() else torch.float32).eps
    before, after = before.detach().double(), after.detach().double()
    moved = float((after - before).norm())
    share = moved / (size * math.sqrt(max(1, after.numel())))
    if share <= math.sqrt(eps):
        return share
    own = _norm(before, center)
    ratio = moved / own if own > 0 else math.inf
    return math.inf if math.isnan(ratio) else ratio


def _norm(out: Tensor, center: bool) -> float:
    """Of the entries, less their mean where they differ enough for it."""
    out = out.detach().double()
    size = float(out.norm())
    if center and out.numel() > 1:
        spread = float((out - out.mean()).norm())
        return spread if spread > 1e-3 * size else size
    return size


def in_dtype(function: Callable, dtype: torch.dtype) -> Callable:
    """A module's copy in ``dtype``; any other function as it is.

    **Equivariance:** that of the function.
    """
    return copy.deepcopy(function).to(dtype) if isinstance(function, torch.nn.Module) else function


def where_it_is(function: Callable, given: Sequence[Tensor] | None) -> torch.device | str:
    """The device of a module's parameters, else of the clouds that are given, else the CPU.

    **Equivariance:** does not apply.
    """
    held = next(function.parameters(), None) if isinstance(function, torch.nn.Module) else None
    held = given[0] if held is None and given else held
    return "cpu" if held is None else held.device


@dataclass(frozen=True)
class Probe:
    """A function and how its output should move.

    Motions are drawn from ``seed`` alone, so all experiments use the same ones,
    and are applied in float64, on the CPU, before points are cast to ``dtype``.

    **Equivariance:** figures about it.
    """

    function: Callable[[Tensor], Tensor]
    action: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    per_point: bool = False
    dtype: torch.dtype = torch.float64
    num: int = 4
    seed: int = 0
    shift: float = 10.0
    device: torch.device | str = "cpu"  # on which the function is given points
    size: float = 1.0  # of the entries of outputs, see ``typical_size``

    def but(self, **changes) -> Probe:
        """The same probe with other settings."""
        return replace(self, **changes)

    def __call__(self, cloud: Tensor) -> Tensor:
        with torch.no_grad():
            out = self.function(cloud.to(self.device, self.dtype, copy=True))
        if not isinstance(out, Tensor):
            raise ArgumentError(
                f"`function` returned a {type(out).__name__}; return one tensor, and check "
                "several outputs one at a time"
            )
        return out

    def moved(self, before: Tensor, turn: Tensor, shift: Tensor) -> Tensor:
        """What the output should be after a motion."""
        if self.action is None:
            return before
        return self.action(before, turn.to(before), shift.to(before))

    def against(self, before: Tensor, after: Tensor, turn: Tensor, shift: Tensor) -> float:
        """Relative change of an output against what a motion should make of it."""
        moved = self.moved(before, turn, shift)
        return change(moved, after, center=self.action is None, size=self.size)

    def typical_size(self, clouds: Sequence[Tensor]) -> float:
        """How large entries of the output are (root mean square), at most over some clouds and
        copies without their symmetries; one where the output is nothing but rounding."""

        def entry(out: Tensor) -> float:
            return _norm(out, self.action is None) / math.sqrt(max(1, out.numel()))

        most, largest, cloud = 0.0, None, None
        for one in (*clouds, *(jittered(cloud, 0.1) for cloud in clouds)):
            try:
                out = self(one)
            except Exception:  # a copy that the function was never meant for
                continue
            if math.isfinite(size := entry(out)) and size > most:
                most, largest, cloud = size, out, one
        if largest is None:
            return 1.0
        kind = largest.dtype if largest.is_floating_point() else torch.float32
        eps = max(torch.finfo(kind).eps, torch.finfo(self.dtype).eps)
        if most <= _ROUNDINGS * eps:
            # Small, or zero but for rounding? That is another one for other digits.
            again = self(cloud * (1 + 1000 * eps))
            if again.shape != largest.shape or not entry(again - largest) < 0.1 * most:
                return 1.0
        return most

    def changes(self, cloud: Tensor, kinds: Sequence[str] = KINDS) -> dict[str, list[float]]:
        """Relative changes of one cloud's output, a list for each kind of motion."""
        cloud = cloud.detach().double()
        size = float((cloud - cloud.mean(0)).norm(dim=1).max()) or 1.0
        plain = {"dtype": torch.float64, "device": "cpu"}
        eye, origin = torch.eye(3, **plain), torch.zeros(3, **plain)
        before = self(cloud)
        found: dict[str, list[float]] = {}
        for kind in kinds:
            # A seed for each kind: leaving one out does not change the others.
            generator = torch.Generator("cpu").manual_seed(4 * self.seed + KINDS.index(kind))
            if kind in ("rotation", "reflection"):
                turns = random_rotations(self.num, generator=generator, dtype=torch.float64)
                turns = turns if kind == "rotation" else -turns
                found[kind] = [
                    self.against(before, self(cloud @ turn.T), turn, origin) for turn in turns
                ]
            elif kind == "translation":
                draws = torch.randn(self.num, 3, generator=generator, **plain)
                found[kind] = [
                    self.against(before, self(cloud + shift), eye, shift)
                    for shift in draws * (self.shift * size)
                ]
            else:
                found[kind] = []
                for _ in range(self.num):
                    order = torch.randperm(len(cloud), generator=generator, device="cpu")
                    wanted = before[order.to(before.device)] if self.per_point else before
                    found[kind].append(self.against(wanted, self(cloud[order]), eye, origin))
        return found

    def worst(self, clouds: Sequence[Tensor], kinds: Sequence[str] = KINDS) -> dict[str, float]:
        """The largest change of each kind over the clouds."""
        return self._over(clouds, kinds, max)

    def median(self, clouds: Sequence[Tensor], kinds: Sequence[str] = KINDS) -> dict[str, float]:
        """The median change of each kind over the motions, of the worst cloud."""
        return self._over(clouds, kinds, statistics.median)

    def _over(self, clouds, kinds, figure: Callable) -> dict[str, float]:
        every = [self.changes(cloud, kinds) for cloud in clouds]
        return {kind: max(figure(found[kind]) for found in every) for kind in kinds}
