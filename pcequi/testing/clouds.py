"""Clouds to check a function on: without symmetry, and full of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcequi.errors import ArgumentError

__all__ = ["generic_clouds", "symmetric_clouds"]


def generic_clouds(
    num: int,
    *,
    least: int = 256,
    most: int = 1024,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Random clouds without symmetry: one to four anisotropic blobs or shells.

    Args:
        num: how many.
        least, most: points of a cloud, drawn in this range.
        generator: source of randomness.

    Returns:
        Clouds [N, 3], float64, of zero mean and unit radius.

    Raises:
        ArgumentError: ``least`` is below 1 or above ``most``.

    **Equivariance:** random data; the distribution has no preferred direction.
    """
    if not 1 <= least <= most:
        raise ArgumentError(f"`least` (={least}) must be between 1 and `most` (={most})")

    device = "cpu" if generator is None else generator.device

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, device=device)

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator, device=device))

    clouds = []
    for _ in range(num):
        size, parts = pick(least, most), pick(1, 4)
        points = draw(size, 3)
        shell = (
            torch.arange(size, device=device) % parts < parts // 2
        )  # half of the parts are surfaces
        points[shell] /= points[shell].norm(dim=1, keepdim=True)
        stretch = draw(parts, 3, 3)
        turn = torch.arange(size, device=device) % parts
        points = torch.einsum("nij,nj->ni", stretch[turn], points) + 1.5 * draw(parts, 3)[turn]
        points = points - points.mean(0)
        radius = points.norm(dim=1).max()
        clouds.append(points / radius if radius > 0 else points)
    return clouds


def symmetric_clouds() -> dict[str, Tensor]:
    """Clouds whose symmetries make farthest-point sampling tie.

    Returns:
        ``cube``: a lattice of 9 x 9 points on each face (386 points); ``grid``:
        5 x 5 x 5 points; ``sphere``: 512 points of a Fibonacci spiral. Each
        [N, 3], float64, of zero mean and unit radius.

    **Equivariance:** constants. Cube and grid are invariant to the octahedral
    group; the sphere is nearly invariant to all rotations.
    """
    plain = {"dtype": torch.float64, "device": "cpu"}
    axis = torch.linspace(-1, 1, 9, **plain)
    lattice = torch.cartesian_prod(axis, axis, axis)
    cube = lattice[lattice.abs().amax(1) == 1]
    axis = torch.linspace(-1, 1, 5, **plain)
    grid = torch.cartesian_prod(axis, axis, axis)
    step = torch.arange(512, **plain)
    height = 1 - (2 * step + 1) / 512
    angle = step * math.pi * (3 - math.sqrt(5))
    ring = (1 - height.square()).sqrt()
    sphere = torch.stack([ring * angle.cos(), ring * angle.sin(), height], 1)
    clouds = {"cube": cube, "grid": grid, "sphere": sphere - sphere.mean(0)}
    return {name: cloud / cloud.norm(dim=1).max() for name, cloud in clouds.items()}


def jittered(cloud: Tensor, share: float = 1e-2) -> Tensor:
    """The cloud with noise that no symmetry survives, the same at every call.

    **Equivariance:** none: the noise is that of the world's axes and the order of the points.
    """
    generator = torch.Generator("cpu").manual_seed(len(cloud))
    noise = torch.randn(cloud.shape, generator=generator, dtype=torch.float64, device="cpu")
    cloud = cloud.double()
    return cloud + share * float((cloud - cloud.mean(0)).norm(dim=1).mean()) * noise
