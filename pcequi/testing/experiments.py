"""Experiments that tell the causes of a failed equivariance check apart.

Each takes a probe, the clouds on which it failed and the kinds of motion that
failed, and returns None (it is not that) or evidence: figures by name.

**Equivariance:** what the experiments are about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pcequi.rotations import octahedral_group
from pcequi.testing.clouds import jittered
from pcequi.testing.measure import as_points, as_vectors
from pcequi.testing.probe import Probe
from pcequi.testing.signs import random_signs

__all__ = ["EXPERIMENTS", "attempt"]

Evidence = dict[str, float] | None


def attempt(call: Callable[..., dict], *args) -> float:
    """The largest figure of an experiment; NaN where the function cannot run it.

    **Equivariance:** does not apply.
    """
    try:
        return max(call(*args).values())
    except Exception:  # a cloud that the function was never meant for
        return math.nan


def not_finite(probe: Probe, clouds: Sequence[Tensor], kinds, tolerance: float) -> Evidence:
    """NaN or infinity for the clouds as they are."""
    bad = sum(not bool(torch.isfinite(probe(cloud)).all()) for cloud in clouds)
    return {"clouds whose output is not finite": bad} if bad else None


def randomness(probe: Probe, clouds: Sequence[Tensor], kinds, tolerance: float) -> Evidence:
    """Two calls with the same points."""
    origin, eye = torch.zeros(3, device="cpu"), torch.eye(3, device="cpu")
    still = probe.but(action=None)
    worst = max(still.against(still(cloud), still(cloud), eye, origin) for cloud in clouds)
    return {"change between two calls with the same points": worst} if worst > tolerance else None


def wrong_action(probe: Probe, clouds: Sequence[Tensor], kinds, tolerance: float) -> Evidence:
    """Other rules for how the output may move; one has to fit all motions."""
    plain = [jittered(cloud) for cloud in clouds]  # no ties on top
    out = probe(plain[0])
    others = {}
    if out.dim() > 0 and len(out) == len(plain[0]) and not probe.per_point:
        others["with per_point=True"] = probe.but(per_point=True)
    if out.dim() > 0 and out.shape[-1] == 3:
        for action in (as_vectors, as_points):
            for per_point, words in ((False, ""), (True, " and per_point=True")):
                # What is asked about already would pass too, of a function with ties.
                if (action, per_point) != (probe.action, probe.per_point):
                    name = f"with action={action.__name__}{words}"
                    others[name] = probe.but(action=action, per_point=per_point)
    if probe.action is not None:

        def backwards(out, turn, shift, action=probe.action):
            return action(out, turn.T, shift)

        others["as an output that does not move"] = probe.but(action=None)
        others["with the inverse rotation (R.T for R)"] = probe.but(action=backwards)
    # Rotations and shifts have to pass together under the other rule.
    wanted = tuple(dict.fromkeys((*kinds, "rotation", "translation", "permutation")))
    for name, other in others.items():
        worst = attempt(other.worst, plain, wanted)
        if worst <= tolerance:
            return {f"change {name}": worst}
    return None


def ties(probe: Probe, clouds: Sequence[Tensor], kinds, tolerance: float) -> Evidence:
    """Without symmetry nothing ties."""
    worst = attempt(probe.worst, [jittered(cloud) for cloud in clouds], kinds)
    return {"change once the points are jittered by 1 %": worst} if worst <= tolerance else None


def missing_centring(probe: Probe, clouds: Sequence[Tensor], kinds, tolerance: float) -> Evidence:
    """The same function of centred points."""
    if "translation" not in kinds:
        return None

    def centred(pos):
        middle = pos.mean(0)
        return probe.moved(probe.function(pos - middle), torch.eye(3, device="cpu"), middle)

    worst = attempt(probe.but(function=centred).worst, clouds, kinds)
    return {"change with the centroid subtracted": worst} if worst <= tolerance else None


def sign_of_normals(probe: Probe, clouds: Sequence[Tensor], kinds, tolerance: float) -> Evidence:
    """Eigenvectors with other signs, on points that do not move."""
    origin, eye = torch.zeros(3, device="cpu"), torch.eye(3, device="cpu")
    still = probe.but(action=None)
    worst = 0.0
    for cloud in (jittered(cloud) for cloud in clouds):  # no ties on top
        before = still(cloud)
        for seed in range(3):
            with random_signs(seed):
                worst = max(worst, still.against(before, still(cloud), eye, origin))
    if worst > tolerance:
        return {"change on unmoved points when eigenvectors change sign": worst}
    if probe.action is None or not probe.per_point:
        return None
    # Normals from elsewhere (Open3D, say): right row by row, but for the sign.
    squares = probe.but(
        function=lambda pos: outer(probe.function(pos)),
        action=lambda out, turn, shift: turn @ out @ turn.T,
        size=probe.size**2,
    )
    worst = attempt(squares.worst, clouds, kinds)
    return {"change of each row's outer product with itself": worst} if worst <= tolerance else None


def outer(vectors: Tensor) -> Tensor:
    """Rows as matrices that forget the sign."""
    return vectors[..., :, None] * vectors[..., None, :]


def neighbour_cap(probe: Probe, clouds: Sequence[Tensor], kinds, tolerance: float) -> Evidence:
    """Few points: in a patch of growing size, and thinned out, and far apart."""
    cloud = jittered(max(clouds, key=len))
    thin = cloud[:: max(1, len(cloud) // 8)]
    if attempt(probe.worst, [thin], kinds) > tolerance:  # voxels, say, fail here too
        return None
    # The points where they are densest, in the order of the cloud.
    near = torch.cdist(cloud, cloud).sort(1).values[:, : min(len(cloud), 9)].mean(1).argmin()
    by_distance = (cloud - cloud[near]).norm(dim=1).argsort()
    passed, failed, size = 0, 0, 4
    while not failed and size < len(cloud):
        patch = cloud[by_distance[:size].sort().values]
        worst = attempt(probe.worst, [patch], kinds)
        if worst <= tolerance:
            passed = size
        elif worst > tolerance:  # NaN: the function needs more points than these
            failed = size
        size *= 2
    if not passed or not failed and len(cloud) > 2 * passed:
        return None
    if "rotation" not in kinds:
        # Far apart, nobody has neighbours; a start of sampling matters as before.
        spread = attempt(probe.worst, [cloud * 1e3], kinds)
        if not spread <= tolerance:
            return None
    return {
        "passes with points in a patch": float(passed),
        "fails with points in a patch": float(failed or len(cloud)),
    }


def point_order(probe: Probe, clouds: Sequence[Tensor], kinds, tolerance: float) -> Evidence:
    """Nothing but a new order fails, and few points do not help."""
    if tuple(kinds) != ("permutation",):
        return None
    return {"change under a new order of the points": attempt(probe.worst, clouds, kinds)}


def reflection(probe: Probe, clouds: Sequence[Tensor], kinds, tolerance: float) -> Evidence:
    """Nothing but mirror images fails."""
    if tuple(kinds) != ("reflection",):
        return None
    evidence = {"change under a mirror image": attempt(probe.worst, clouds, kinds)}
    if probe.action is not None:

        def axial(out, turn, shift, action=probe.action):
            return action(out, turn, shift) * torch.linalg.det(turn)

        worst = attempt(probe.but(action=axial).worst, clouds, kinds)
        if worst <= tolerance:
            evidence["change with the sign of an axial vector (a cross product)"] = worst
    return evidence


def world_axes(probe: Probe, clouds: Sequence[Tensor], kinds, tolerance: float) -> Evidence:
    """The rotations of a cube, and a turn so small that no selection changes."""
    if "rotation" not in kinds:
        return None
    plain = {"dtype": torch.float64, "device": "cpu"}
    origin = torch.zeros(3, **plain)
    spin = torch.tensor([[0.0, -3, 2], [3, 0, -1], [-2, 1, 0]], **plain)
    angle = 1e-3 if probe.dtype == torch.float64 else 3e-2
    small = torch.matrix_exp(spin * (angle / math.sqrt(14)))

    def under(turns) -> float:
        worst = 0.0
        for cloud in (jittered(cloud) for cloud in clouds):
            before = probe(cloud)
            for turn in turns:
                worst = max(worst, probe.against(before, probe(cloud @ turn.T), turn, origin))
        return worst

    cube, slight = under(octahedral_group(dtype=torch.float64)), under([small])
    if cube <= tolerance:
        return {"change under the rotations of a cube alone (frames fixed in the world)": cube}
    # In proportion to the angle: no jump, so no selection either.
    if tolerance < slight < 100 * angle:
        return {f"change under a turn by {angle:g} rad (smooth, no jump)": slight}
    return None


#: In the order in which they are tried: what could pass for something later comes first.
EXPERIMENTS = {
    "not finite": not_finite,
    "randomness": randomness,
    "wrong action": wrong_action,
    "ties": ties,
    "missing centring": missing_centring,
    "sign of normals": sign_of_normals,
    "neighbour cap": neighbour_cap,
    "point order": point_order,
    "reflection": reflection,
    "world axes": world_axes,
}
