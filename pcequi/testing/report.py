"""What the checker found, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["CAUSES", "EquivarianceReport"]

#: Every cause that the checker can name, and what to do about it.
CAUSES = {
    "not finite": (
        "The output holds NaN or infinity for points as they are: look for a division by zero, "
        "the root or logarithm of a negative number, or a mean of nothing."
    ),
    "randomness": (
        "Two calls with the same points differ. Call `eval()` on the module, and give random "
        "draws inside the function a seed."
    ),
    "wrong action": (
        "The output moves by another rule than the one it was checked against: correct `action` "
        "or `per_point`, or the convention of the function."
    ),
    "ties": (
        "It fails where distances or eigenvalues are equal, and passes once the points are "
        "jittered: a selection (nearest neighbours, farthest points, arg max, axes) is decided "
        "by rounding or by the order of the points. Decide ties by a rule that turns with the "
        "cloud, or weight candidates smoothly."
    ),
    "dtype": (
        "It passes in float64 and fails in float32. Look for differences of large numbers "
        "(|a|^2 + |b|^2 - 2ab, coordinates far from the origin): subtract the mean first, or "
        "compute geometry in float64."
    ),
    "missing centring": (
        "It passes once the centroid is subtracted: absolute positions enter. Use positions "
        "relative to the centroid or to each neighbour."
    ),
    "sign of normals": (
        "Eigenvectors (normals, principal axes) have no sign of their own, and the output "
        "changes with it. Fix the sign by the data, such as away from the centroid or towards "
        "the heavier side, or use expressions that are even in the vector."
    ),
    "neighbour cap": (
        "It passes where every point has few neighbours and fails where there are many: a "
        "neighbour search stops at a number and keeps whichever it meets first. Raise the cap "
        "above the largest neighbourhood, or take the nearest k, or all within a radius."
    ),
    "point order": (
        "A new order of the points changes the result: a first point, a start of sampling or a "
        "sort key depends on the order. Use symmetric sums, and start from a point that the "
        "geometry singles out."
    ),
    "reflection": (
        "Rotations pass and mirror images do not. Cross products and frames made right-handed "
        "tell the two apart; that is right for SE(3), and has to go for E(3)."
    ),
    "world axes": (
        "The coordinate axes enter: raw coordinates, a voxel grid, or frames fixed in the "
        "world. Feed invariants (distances, angles) or coordinates in frames taken from the data."
    ),
    "unknown": (
        "No single experiment explains it: two causes may hide one another. Check parts of the "
        "function one at a time."
    ),
}


@dataclass(frozen=True)
class EquivarianceReport:
    """The answer of ``check_equivariance``; print it to read it.

    Attributes:
        ok: whether every motion that was asked for passed.
        cause: None, or the likeliest of ``CAUSES``.
        explanation: what failed, what the experiments say, and the remedy.
        errors: largest relative change in float64 (or, where the function takes
            no float64, in float32) by kind of motion.
        errors_float32: relative change in float32 by kind of motion, the median
            over motions of the worst cloud; empty where it was not measured.
        evidence: figures of the experiments behind ``cause``.
        notes: what is worth knowing but no failure.

    **Equivariance:** figures about it.
    """

    ok: bool
    cause: str | None
    explanation: str
    errors: dict[str, float]
    errors_float32: dict[str, float] = field(default_factory=dict)
    evidence: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {**vars(self), "notes": list(self.notes)}

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = ["equivariant" if self.ok else f"NOT equivariant; likely cause: {self.cause}"]
        lines += [self.explanation] if self.explanation else []
        for title, errors in (("worst", self.errors), ("float32, median", self.errors_float32)):
            if errors:
                figures = ", ".join(f"{kind} {value:.1e}" for kind, value in errors.items())
                lines.append(f"relative change, {title}: {figures}")
        lines += [f"  {name}: {value:.3g}" for name, value in self.evidence.items()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)
