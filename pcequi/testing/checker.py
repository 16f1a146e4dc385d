"""Is it really equivariant, and if not, why not?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pcequi.clouds import check_cloud
from pcequi.errors import ArgumentError, check_count
from pcequi.testing.clouds import generic_clouds, jittered
from pcequi.testing.experiments import EXPERIMENTS, attempt, missing_centring
from pcequi.testing.probe import Probe, in_dtype, where_it_is
from pcequi.testing.report import CAUSES, EquivarianceReport

__all__ = ["assert_equivariant", "check_equivariance"]

GROUPS = {
    "SE(3)": ("rotation", "translation", "permutation"),
    "E(3)": ("rotation", "translation", "permutation", "reflection"),
}


def check_equivariance(
    function: Callable[[Tensor], Tensor],
    pos: Tensor | Sequence[Tensor] | None = None,
    *,
    action: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    per_point: bool = False,
    group: str = "SE(3)",
    tolerance: float = 1e-6,
    tolerance_float32: float | None = 1e-3,
    num: int = 4,
    seed: int = 0,
) -> EquivarianceReport:
    """Check any function of points, and name the likely cause of a failure.

    The function sees clouds as they are, and rotated, shifted, reordered and
    mirrored, one kind of motion at a time; in float64, and again in float32.
    On a failure experiments follow, each of which one cause would pass and the
    others would not: jitter breaks ties, few points fit under a cap, a
    subtracted centroid replaces a missing one, random signs of eigenvectors
    upset whatever depends on them.

    Args:
        function: from points [N, 3] to one tensor. A module is copied to each
            dtype; call ``eval()`` on it. Whatever it precomputes (neighbours,
            frames, graphs) must be made anew inside. It is given points on the device of
            its parameters or, without any, of ``pos``; else on the CPU.
        pos: a cloud [N, 3], or several; None: two generic clouds, a lattice
            (all ties), and one with a crowded place (all caps). In float32 the
            lattice is left out: rounding decides its ties.
        action: how the output should move: ``action(out, rotation, shift)``
            such as ``as_vectors`` or ``as_points``; None: not at all.
        per_point: whether the output has one row a point, in their order.
        group: ``"SE(3)"``, or ``"E(3)"`` with mirror images.
        tolerance: largest relative change that passes in float64.
        tolerance_float32: largest relative change that passes in float32, of
            the median over motions (rounding may flip a near-tie); None: float64 only.
        num: motions of each kind and cloud.
        seed: of the motions.

    Returns:
        The report; ``print`` it.

    Raises:
        ArgumentError: an argument is out of range, or the output is no tensor.
        ShapeError, DataError: a cloud is unusable.

    **Equivariance:** a figure about it.
    """
    if group not in GROUPS:
        raise ArgumentError(f"`group` (={group!r}) must be one of {', '.join(GROUPS)}")
    check_count("num", num)
    if not tolerance > 0:
        raise ArgumentError(f"`tolerance` (={tolerance}) must be positive")
    given = None if pos is None else [pos] if isinstance(pos, Tensor) else list(pos)
    clouds, float32_clouds = _clouds(given, seed)
    kinds, notes = GROUPS[group], []
    probe = Probe(
        in_dtype(function, torch.float64),
        action,
        per_point,
        num=num,
        seed=seed,
        device=where_it_is(function, given),
    )
    reason = None
    try:
        out = probe(clouds[0])
        if out.dtype in (torch.float32, torch.float16, torch.bfloat16):
            reason = f"points in float64 gave an output in {str(out.dtype).removeprefix('torch.')}"
    except RuntimeError as error:
        if tolerance_float32 is None:
            raise
        reason = str(error).splitlines()[0]
    if reason is not None and tolerance_float32 is not None:
        notes.append(f"float64 could not be tried: {reason}")
        probe, clouds, tolerance = _float32(probe, function), float32_clouds, tolerance_float32
        tolerance_float32 = None
    probe = probe.but(size=probe.typical_size(clouds))
    every = (*GROUPS["SE(3)"], "reflection")
    each = [probe.worst([cloud], every) for cloud in clouds]
    errors = {kind: max(found[kind] for found in each) for kind in every}
    failed = [kind for kind in kinds if not errors[kind] <= tolerance]
    if group == "SE(3)":
        if not failed and not errors["reflection"] <= tolerance:
            notes.append(CAUSES["reflection"])
        del errors["reflection"]
    if failed:
        bad = [
            cloud
            for cloud, found in zip(clouds, each, strict=True)
            if any(not found[kind] <= tolerance for kind in failed)
        ]
        cause, evidence, explained = _diagnose(probe, bad, failed, tolerance)
        return _report(cause, failed, explained, errors, {}, evidence, notes)
    if tolerance_float32 is None:
        return EquivarianceReport(True, None, "", errors, notes=tuple(notes))
    single = _float32(probe, function)
    found = single.median(float32_clouds, kinds)
    failed = [kind for kind in kinds if not found[kind] <= tolerance_float32]
    if failed:
        cause, evidence = _rounding(probe, single, float32_clouds, failed, tolerance_float32)
        return _report(cause, failed, failed, errors, found, evidence, notes)
    return EquivarianceReport(True, None, "", errors, found, notes=tuple(notes))


def assert_equivariant(
    function: Callable[[Tensor], Tensor], pos: Tensor | Sequence[Tensor] | None = None, **settings
) -> None:
    """``check_equivariance`` for tests: nothing, or an error with the report.

    Args:
        function, pos, settings: see ``check_equivariance``.

    Raises:
        AssertionError: a motion failed; the message is the whole report.

    **Equivariance:** a figure about it.
    """
    report = check_equivariance(function, pos, **settings)
    if not report.ok:
        raise AssertionError(str(report))


def _clouds(given: list[Tensor] | None, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Clouds to check on in float64, and in float32."""
    if given is not None:
        clouds = [check_cloud(cloud).cpu() for cloud in given]
        if not clouds:
            raise ArgumentError("`pos` (=[]) must hold at least one cloud")
        return clouds, clouds
    generator = torch.Generator("cpu").manual_seed(seed)
    plain = {"dtype": torch.float64, "device": "cpu"}
    generic = generic_clouds(2, least=40, most=60, generator=generator)
    crowd = torch.randn(500, 3, generator=generator, **plain)
    # Most points within a tenth of the radius: more neighbours than any cap.
    crowd[:350] *= 0.03
    crowd[350:] /= crowd[350:].norm(dim=1, keepdim=True)
    crowd = crowd[torch.randperm(500, generator=generator, device="cpu")]
    axis = torch.linspace(-0.55, 0.55, 4, **plain)
    return [*generic, torch.cartesian_prod(axis, axis, axis), crowd], [*generic, crowd]


def _float32(probe: Probe, function: Callable) -> Probe:
    return probe.but(function=in_dtype(function, torch.float32), dtype=torch.float32)


def _diagnose(probe: Probe, clouds, failed, tolerance):
    """Cause, evidence, and the kinds of motion that the cause explains."""
    for cause, experiment in EXPERIMENTS.items():
        evidence = experiment(probe, clouds, failed, tolerance)
        if evidence is not None:
            return cause, evidence, failed
        if cause == "ties":
            # Ties may explain some kinds and hide the cause of the others.
            plain = [jittered(cloud) for cloud in clouds]
            found = {kind: attempt(probe.worst, plain, [kind]) for kind in failed}
            left = [kind for kind in failed if not found[kind] <= tolerance]
            if 0 < len(left) < len(failed):
                return _diagnose(probe, plain, left, tolerance)
    for kind in failed if len(failed) > 1 else ():  # a cause for each kind, perhaps
        cause, evidence, _ = _diagnose(probe, clouds, [kind], tolerance)
        if cause != "unknown":
            return cause, evidence, [kind]
    return "unknown", {}, failed


def _rounding(double: Probe, single: Probe, clouds, failed, tolerance):
    """Why it fails in float32 alone."""
    tie = EXPERIMENTS["ties"](single, clouds, failed, tolerance)
    if tie is not None:
        return "ties", tie
    rounded = double.but(function=lambda pos: double.function(pos.float().double()))
    evidence = {"change in float64 of points rounded to float32": attempt(
        rounded.median, clouds, failed
    )}  # fmt: skip
    return "dtype", evidence | (missing_centring(single, clouds, failed, tolerance) or {})


def _report(cause, failed, explained, errors, float32, evidence, notes) -> EquivarianceReport:
    explanation = f"Fails under {', '.join(failed)}. {CAUSES[cause]}"
    if explained != failed:
        rest = ", ".join(kind for kind in failed if kind not in explained)
        explanation += f" This explains {', '.join(explained)}; then check again for {rest}."
    return EquivarianceReport(False, cause, explanation, errors, float32, evidence, tuple(notes))
