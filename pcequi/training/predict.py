"""Classes of files."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pcequi.clouds import check_cloud
from pcequi.datasets.meshes import normalize_cloud
from pcequi.datasets.readers import read_points
from pcequi.errors import ArgumentError, PcequiError, ScaleWarning, ShapeError, check_count
from pcequi.models.classifier import check_head
from pcequi.models.orders import averaged_logits
from pcequi.outliers import kept_points
from pcequi.pose_graph.point_numbers import check_points_alone
from pcequi.training.checkpoints import Checkpoint
from pcequi.training.predict_workers import packed, shared_answers
from pcequi.training.rows import built_batch

__all__ = ["predict_cloud", "predict_each", "predict_files", "sparse_warning", "trained_points"]

# Share of the points of training below which a cloud is called sparse: with a quarter of
# them `modelnet40` has lost two fifths of its accuracy (docs/claims.md, 7).
SPARSE = 0.25
# How many times as far from the middle as all points that are kept stray points lie that are
# told. Of ModelNet40's 2,468 test clouds 2 have such, of 2,700 Gaussian discs and balls none.
_FAR = 2.0
# Share of the points in one place that is told.
_HEAP = 0.05


@torch.no_grad()
def predict_cloud(
    checkpoint: Checkpoint | Sequence[Checkpoint],
    pos: Tensor,
    *,
    top: int = 3,
    drop_outliers: bool = False,
    device: torch.device | str = "cpu",
) -> list[dict]:
    """The likeliest classes of one cloud, moved to zero mean and unit radius.

    Args:
        checkpoint: a trained network; or several of the same classes, whose
            probabilities are averaged.
        pos: points [N, 3], a tensor or an array of any real type.
        top: classes to name, at most all.
        drop_outliers: leave out points that lie alone, see ``outliers.kept_points``.
        device: where the network runs. It is moved there, and to single precision where its
            weights have 16 bits.

    Returns:
        ``class`` and ``probability``, the likeliest first.

    Raises:
        ArgumentError: ``top`` is below 1, or networks that do not have the same classes, or
            none.
        ShapeError, DataError: the cloud is unusable.

    **Equivariance:** invariant to rotation, shift and scale, and to the order of
    the points, as the network.
    """
    check_count("top", top)
    networks = _same_classes(checkpoint)
    points = check_cloud(_points(pos))
    points = points[kept_points(points)] if drop_outliers else points
    cloud = torch.from_numpy(normalize_cloud(points.numpy(), "pos"))
    graphs: list = []
    share = sum(_probabilities(network.model, cloud, device, graphs) for network in networks)
    share, classes = share / len(networks), networks[0].classes
    best = share.topk(min(top, len(share)))
    return [
        {"class": classes[place], "probability": round(value, 6)}
        for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _points(pos: Tensor | np.ndarray | Sequence) -> Tensor:
    """In float64, whatever holds them: NumPy's may lie in ways that torch does not know."""
    kind, cause = type(pos).__name__, None
    try:
        array = pos.detach().cpu() if isinstance(pos, Tensor) else np.ma.asanyarray(pos)
        kind += f" of {array.dtype}"
        if isinstance(array, Tensor) and not array.is_complex():
            return array.double().to_dense()
        if array.dtype.kind in "biuf":  # what is masked is no point
            with np.errstate(over="ignore"):  # an infinite one is told
                array = np.ma.filled(np.ma.asarray(array, np.float64), np.nan)
            return torch.from_numpy(np.array(array, order="C"))
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        cause = error
    raise ShapeError(
        f"`pos` (a {kind}) must be points [N, 3], real numbers: of a Data, `data.pos`"
    ) from cause


def _same_classes(checkpoint: Checkpoint | Sequence[Checkpoint]) -> list[Checkpoint]:
    several = isinstance(checkpoint, (list, tuple))
    networks = list(checkpoint) if several else [checkpoint]
    if not networks:
        raise ArgumentError("`checkpoint` (=[]) must be at least one trained network")
    for one in networks:
        if not isinstance(one, Checkpoint):
            raise ArgumentError(
                f"`checkpoint` (a {type(one).__name__}) must be what `networks.load_network` or "
                "`load_checkpoint` returns: a network with the names of its classes"
            )
        check_head(one.model)
        check_points_alone(one.model.levels, "checkpoint")
    for other in networks[1:]:
        if list(other.classes) != list(networks[0].classes):
            raise ArgumentError(
                f"`checkpoint` (={len(networks)} networks) must all have the same classes in the "
                "same order; ask networks of different classes one by one"
            )
    return networks


def _probabilities(model: torch.nn.Module, cloud: Tensor, device, graphs: list) -> Tensor:
    """Of one network; ``graphs`` of the cloud, which networks of equal levels share, grows."""
    # Weights that are kept in 16 bits compute in 32.
    wide, place = torch.promote_types(model.dtype, torch.float32), torch.device(device)
    if not all(_is_there(one, place, wide) for one in (*model.parameters(), *model.buffers())):
        model.to(place, wide)  # looks at each module, which takes longer
    model.eval()
    kind = (model.settings["levels"], wide)
    graph = next((graph for other, graph in graphs if other == kind), None)
    if graph is None:
        graph = built_batch([cloud], model.levels, wide, place)
        graphs.append((kind, graph))
    return averaged_logits(model, graph)[0].float().softmax(0).cpu()


def _is_there(value: Tensor, place: torch.device, dtype: torch.dtype) -> bool:
    return value.device == place and (not value.is_floating_point() or value.dtype == dtype)


def predict_files(
    checkpoint: Checkpoint | Sequence[Checkpoint],
    files: Sequence[str | Path],
    *,
    progress: Callable[[int, int], None] | None = None,
    **options,
) -> list[dict]:
    """What ``predict_each`` hands out, in one list.

    Args:
        checkpoint, files, options: as ``predict_each`` takes.
        progress: called with (files done, files in all).

    Raises:
        ArgumentError, PcequiError: as ``predict_each``, which keeps what is finished where a
            worker dies.

    **Equivariance:** as ``predict_cloud``.
    """
    results = []
    for result in predict_each(checkpoint, files, **options):
        results.append(result)
        if progress:
            progress(len(results), len(files))
    return results


def predict_each(
    checkpoint: Checkpoint | Sequence[Checkpoint],
    files: Sequence[str | Path],
    *,
    top: int = 3,
    num_points: int | None = None,
    seed: int = 0,
    drop_outliers: bool = False,
    device: torch.device | str = "cpu",
    workers: int = 1,
) -> Iterator[dict]:
    """Classify meshes and point clouds; one that cannot be used does not stop the rest.

    Answers come one by one, so that whoever stops keeps what is finished.

    Args:
        checkpoint: a trained network, or several; see ``predict_cloud``.
        files: see ``datasets.readers.read_points`` for the formats.
        top: classes to name.
        num_points: points of a cloud; by default as in training.
        seed: of the points drawn from a mesh.
        drop_outliers: see ``predict_cloud``.
        device: where the network runs.
        workers: processes that share the files, on the CPU; answers come in the order of the
            files. Each takes a few seconds to start and half a gigabyte, and networks are sent to
            them by ``pickle``.

    Returns:
        For each file ``file`` and ``predictions`` (see ``predict_cloud``), or
        ``error``; ``dropped``, the number of points that were left out as outliers, if that
        was asked; and ``warning`` for clouds of which less than a quarter of the
        points of training is left, or of which many lie in one place or far from all others.

    Raises:
        ArgumentError: ``top``, ``num_points``, ``seed`` or ``workers`` is out of range, several
            workers on a GPU or for networks that cannot be sent to them, or networks of
            different classes: that is no file's fault, and raised before the first.
        PcequiError: a worker died; the answers before it have been handed out.

    **Equivariance:** as ``predict_cloud``.
    """
    networks = _same_classes(checkpoint)
    if num_points is None:
        num_points = networks[0].extra.get("num_points") or 1024  # looked at below
    counts = {"top": (top, 1), "num_points": (num_points, 1), "seed": (seed, 0)}
    for name, (value, least) in (counts | {"workers": (workers, 1)}).items():
        check_count(name, value, least)
    if workers > 1 and torch.device(device).type != "cpu":
        raise ArgumentError(
            f"`workers` (={workers}) share the files of a CPU; `device` is {str(device)!r}: take "
            "workers=1 there, or device 'cpu'"
        )
    options = {"num_points": num_points, "seed": seed, "top": top}
    options |= {"drop_outliers": drop_outliers, "device": device}
    ask = functools.partial(_predicted, **options)
    workers = min(workers, len(files))
    if workers <= 1:
        return (ask(networks, file) for file in files)
    return shared_answers(ask, packed(networks), files, workers)


def _predicted(networks, file, *, num_points, seed, top, drop_outliers, device) -> dict:
    """The answer to one file, or its error."""
    result: dict = {"file": str(file)}
    try:
        pos = torch.as_tensor(read_points(file, num_points, seed).pos)
        if drop_outliers:
            kept = kept_points(pos)
            result["dropped"], pos = len(pos) - len(kept), pos[kept]
        told = [sparse_warning(networks[0], pos)]
        far = 0 if drop_outliers else stray_points(pos)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result["predictions"] = predict_cloud(networks, pos, top=top, device=device)
        strays = [one for one in caught if issubclass(one.category, ScaleWarning)]
        for one in caught:
            if one not in strays:  # not ours to keep
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        if far:
            points = f"{far} point{'s lie' if far > 1 else ' lies'}"
            told.append(
                f"{points} far from all others, as stray points of a scan do: leave them out "
                "(`drop_outliers`, --drop-outliers)"
            )
        elif strays:
            told.append(
                "half of the points lie close together and some far away: stray points? Leave "
                "them out (`drop_outliers`, --drop-outliers)"
            )
        if any(told):
            result["warning"] = "; ".join(filter(None, told))
    # RuntimeError: torch's own, such as that memory ran out.
    except (PcequiError, OSError, MemoryError, RuntimeError) as error:
        return {"file": str(file), "error": str(error) or type(error).__name__}
    return result


def sparse_warning(checkpoint: Checkpoint, pos: Tensor) -> str | None:
    """What to tell of a cloud of fewer than a quarter of the points of training, or one of whose
    places has many of them; else None.

    Args:
        checkpoint: the network.
        pos: points [N, 3].

    **Equivariance:** invariant.
    """
    trained = trained_points(checkpoint)
    different = len(torch.unique(pos, dim=0))
    if different < SPARSE * trained:
        kind = "different point" if different < len(pos) else "point"
        points = f"{different} {kind}{'s' * (different > 1)}"
        return f"{points}, where the network was trained on {trained}: too few to trust the answer"
    if heap := largest_heap(pos):
        return (
            f"{heap} of {len(pos)} points lie in one place, as where a scanner saw nothing: leave "
            "them out"
        )
    return None


def largest_heap(pos: Tensor) -> int:
    """How many of the points [N, 3] lie in one place, if so many that something is wrong; else 0.

    **Equivariance:** invariant.
    """
    most = max(2, _HEAP * len(pos))
    for axis in range(3):  # most clouds have not even a coordinate so often
        _, back, count = torch.unique(pos[:, axis], return_inverse=True, return_counts=True)
        pos = pos[(count > most)[back]]
        if not len(pos):
            return 0
    heap = int(torch.unique(pos, dim=0, return_counts=True)[1].max())
    return heap if heap > most else 0


def stray_points(pos: Tensor) -> int:
    """How many of the points [N, 3] lie alone, and so far out that the size and the middle of the
    cloud are theirs; see ``outliers.kept_points``.

    **Equivariance:** invariant, also to scale.
    """
    kept = kept_points(pos)
    if len(kept) == len(pos):
        return 0
    pos = pos.double()
    radius = (pos - pos[kept].mean(0)).norm(dim=1)
    return int((radius > _FAR * radius[kept].max()).sum())


def trained_points(checkpoint: Checkpoint) -> int:
    """Points that the clouds had which a network was trained on: their median where that is known,
    or what was asked for; 1,024 where nothing says it.

    **Equivariance:** does not apply.
    """
    points = checkpoint.extra.get("points_seen", checkpoint.extra.get("num_points"))
    return points if isinstance(points, int) and points > 0 else 1024
