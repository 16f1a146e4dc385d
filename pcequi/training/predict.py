"""Classes of files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pcequi.errors import ArgumentError, PcequiError
from pcequi.pose_graph import build_pose_graph
from pcequi.training.checkpoints import Checkpoint

__all__ = ["predict_cloud", "predict_files"]


@torch.no_grad()
def predict_cloud(
    checkpoint: Checkpoint, pos: Tensor, *, top: int = 3, device: torch.device | str = "cpu"
) -> list[dict]:
    """The likeliest classes of one cloud, moved to zero mean and unit radius.

    Args:
        checkpoint: a trained network.
        pos: points [N, 3].
        top: classes to name, at most all.
        device: where the network runs.

    Returns:
        ``class`` and ``probability``, the likeliest first.

    Raises:
        ArgumentError: ``top`` is below 1.
        ShapeError, DataError: the cloud is unusable.

    **Equivariance:** invariant to rotation, shift and scale, and to the order of
    the points, as the network.
    """
    from pcequi.datasets.meshes import normalize_cloud

    if top < 1:
        raise ArgumentError(f"`top` (={top}) must be at least 1")
    cloud = torch.from_numpy(normalize_cloud(pos.double().numpy(), "pos"))
    model = checkpoint.model.to(device).eval()
    graph = build_pose_graph(cloud, model.levels, dtype=model.head[0].weight.dtype)
    share = model(graph.to(device))[0].float().softmax(0).cpu()
    best = share.topk(min(top, len(share)))
    return [
        {"class": checkpoint.classes[place], "probability": round(value, 6)}
        for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def predict_files(
    checkpoint: Checkpoint,
    files: Sequence[str | Path],
    *,
    top: int = 3,
    num_points: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[dict]:
    """Classify meshes and point clouds; one that cannot be used does not stop the rest.

    Args:
        checkpoint: a trained network.
        files: see ``datasets.readers.read_points`` for the formats.
        top: classes to name.
        num_points: points of a cloud; by default as in training.
        seed: of the points drawn from a mesh.
        device: where the network runs.
        progress: called with (files done, files in all).

    Returns:
        For each file ``file`` and ``predictions`` (see ``predict_cloud``), or
        ``error``.

    Raises:
        ArgumentError: ``top``, ``num_points`` or ``seed`` is out of range: that is
            no file's fault.

    **Equivariance:** as ``predict_cloud``.
    """
    from pcequi.datasets.base import check_count
    from pcequi.datasets.readers import read_points

    if num_points is None:
        num_points = checkpoint.extra.get("num_points") or 1024
    for name, value, least in (("top", top, 1), ("num_points", num_points, 1), ("seed", seed, 0)):
        check_count(name, value, least)
    results = []
    for file in files:
        try:
            pos = read_points(file, num_points, seed).pos
            result = {"predictions": predict_cloud(checkpoint, pos, top=top, device=device)}
        except (PcequiError, OSError, MemoryError) as error:
            result = {"error": str(error) or type(error).__name__}
        results.append({"file": str(file)} | result)
        if progress:
            progress(len(results), len(files))
    return results
