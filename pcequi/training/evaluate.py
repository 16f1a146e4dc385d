"""Accuracy under the protocols, and the three ways of running side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pcequi.errors import ArgumentError, DataError, ShapeError, check_count
from pcequi.models import averaged_logits, online_graph
from pcequi.models.classifier import check_head
from pcequi.progress import progress_bar
from pcequi.ranks import ALONE, Ranks
from pcequi.training.fit import predict_logits
from pcequi.training.protocols import parse_protocol, protocol_rotations
from pcequi.training.rows import built_batch
from pcequi.training.splits import Split, check_labels, precompute_shown

__all__ = [
    "MODES",
    "agreement",
    "check_modes",
    "classification_report",
    "compare_modes",
    "evaluate_protocol",
    "evaluate_together",
]

#: The ways of running a network.
MODES = ("dense", "online", "precomputed")


def classification_report(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict:
    """Accuracy in all and of each class, and the confusion matrix.

    Args:
        logits: [n, num_classes].
        labels: [n].
        classes: names.

    Returns:
        ``accuracy``; ``mean_class_accuracy`` over the classes that occur;
        ``per_class``, None for a class without clouds; ``confusion``, counts,
        a row for each true class; ``shapes``, n.

    Raises:
        DataError: a label outside the classes, or logits that are NaN.
        ShapeError: ``logits`` do not fit the labels and classes.

    **Equivariance:** as the logits.
    """
    labels, num = check_labels(labels, len(classes)), len(classes)
    if logits.shape != (len(labels), num):
        raise ShapeError(
            f"`logits` (={list(logits.shape)}) must be of shape [{len(labels)}, {num}]: a row for "
            "each of `labels`, a column for each of `classes`"
        )
    if torch.isnan(logits).any():
        raise DataError("`logits` has NaN, which no class can be read from; the network is broken")
    guess = logits.argmax(1)
    confusion = torch.bincount(labels * num + guess, minlength=num * num).view(num, num)
    total = confusion.sum(1)
    share = confusion.diag().double() / total.clamp_min(1)
    return {
        "accuracy": float((guess == labels).double().mean()),
        "mean_class_accuracy": float(share[total > 0].mean()),
        "per_class": {
            name: float(share[row]) if total[row] else None for row, name in enumerate(classes)
        },
        "confusion": confusion.tolist(),
        "shapes": len(labels),
    }


def agreement(first: Tensor, second: Tensor) -> float:
    """Share of clouds whose largest logit is the same in both [n, C].

    **Equivariance:** a figure about it, where the clouds differ by rotations.
    """
    return float((first.argmax(1) == second.argmax(1)).double().mean())


def evaluate_protocol(
    model: nn.Module,
    split: Split,
    protocol: str,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    workers: int | None = None,
    device: torch.device | str = "cpu",
    quiet: bool = False,
    ranks: Ranks = ALONE,
) -> tuple[dict, Tensor]:
    """Precompute the test clouds, turned by a protocol, and classify them.

    Args:
        model: a ``GroupConvClassifier``.
        split: the test split.
        protocol: one of ``PROTOCOLS``; its second half turns the clouds.
        seed: of the rotations.
        cache, workers: see ``splits.precompute``.
        device: where the network runs.
        quiet: no progress on standard error.
        ranks: processes that share the clouds; each gets the whole report.

    Returns:
        What ``classification_report`` returns with ``protocol``, ``seed`` and
        ``seconds`` of precomputing and of the network; and the logits.

    Raises:
        ArgumentError: no such protocol, or a network without a head.

    **Equivariance:** as the network.
    """
    check_head(model)
    kind, start = parse_protocol(protocol).test, time.perf_counter()
    quiet = quiet or not ranks.first
    options = {"seed": seed, "cache": cache, "workers": workers}
    store = precompute_shown(
        split, model.levels, kind, "test clouds", quiet=quiet, ranks=ranks, **options
    )
    built = time.perf_counter()
    with progress_bar(f"evaluating {protocol}", quiet=quiet) as bar:
        logits = predict_logits(model.to(device), store, device=device, progress=bar, ranks=ranks)
    report = classification_report(logits, split.labels, split.classes)
    report |= {
        "protocol": protocol,
        "seed": seed,
        "seconds": {
            "precompute": round(built - start, 3),
            "network": round(time.perf_counter() - built, 3),
        },
    }
    return report, logits


def evaluate_together(
    models: Sequence[nn.Module], split: Split, protocol: str, **options
) -> tuple[dict, Tensor]:
    """Classify the test clouds by the mean of several networks' probabilities.

    Args:
        models: networks of the classes of ``split``, in their order.
        split, protocol, options: as ``evaluate_protocol`` takes.

    Returns:
        The report of the mean, with ``alone``, the accuracy of each network; and the
        logarithm of the mean probabilities [n, C].

    Raises:
        ArgumentError: no network, or one with another number of classes.

    **Equivariance:** as the networks.
    """
    for model in models:
        if model.settings["num_classes"] != len(split.classes):
            raise ArgumentError(
                f"`models` (={model.settings['num_classes']} classes in one) must have the classes "
                f"of the data (={len(split.classes)})"
            )
    if not models:
        raise ArgumentError("`models` (=[]) must be at least one network")
    found = [evaluate_protocol(model, split, protocol, **options) for model in models]
    share = torch.stack([logits.float().softmax(1) for _, logits in found]).mean(0)
    logits = share.clamp_min(torch.finfo(share.dtype).tiny).log()
    report = {**found[0][0], **classification_report(logits, split.labels, split.classes)}
    report["alone"] = [one["accuracy"] for one, _ in found]
    report["seconds"] = {
        part: round(sum(one["seconds"][part] for one, _ in found), 3)
        for part in found[0][0]["seconds"]
    }
    return report, logits


def check_modes(modes: Sequence[str], budgets: Sequence[int]) -> None:
    """Whether ``compare_modes`` takes these.

    Raises:
        ArgumentError: an unknown mode, a budget below 1, or budgets where the dense network
            alone is run, which has none.

    **Equivariance:** does not apply.
    """
    for mode in modes:
        if mode not in MODES:
            raise ArgumentError(f"`mode` (={mode!r}) must be one of {', '.join(MODES)}")
    for budget in budgets:
        check_count("budget", budget)
    if budgets and set(modes) == {"dense"}:
        raise ArgumentError(
            f"`budget` (={list(budgets)}) is asked of 'dense', which has none; add the mode "
            "'online' or 'precomputed', or leave out the budget"
        )


@torch.no_grad()
def compare_modes(
    model: nn.Module,
    split: Split,
    protocol: str = "z/SO3",
    modes: Sequence[str] = MODES,
    budgets: Sequence[int] = (),
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    quiet: bool = False,
) -> list[dict]:
    """Run one trained network dense, online and precomputed, at several budgets.

    Clouds are run one by one and nothing is cached, so that times compare; the first is run
    once before, so that no row has the time in which kernels are loaded. Answers are means over
    the orders of the axes (``models.orders``); online, the network runs once more to sample.

    Args:
        model: a ``GroupConvClassifier``; its weights are used in all ways.
        split: labelled clouds.
        protocol: turns the clouds by its second half.
        modes: some of ``MODES``. With ``"dense"`` among them, the others are
            also compared with its logits.
        budgets: representatives of each level; by default those of the levels.
        seed: of the rotations.
        device: where the network runs; graphs are built on the CPU.
        quiet: no progress on standard error.

    Returns:
        One dictionary a row: ``mode``, ``budget`` (None: as trained; "all" for
        dense), ``accuracy``, ``seconds_per_shape``, and against dense
        ``logit_difference`` (largest), ``logit_difference_relative`` (the
        largest over the clouds of max |a - b| / max |b|), ``agreement``.

    Raises:
        ArgumentError: see ``check_modes``; or a network without a head.

    **Equivariance:** as the network.
    """
    check_head(model)
    check_modes(modes, budgets)
    turns = protocol_rotations(parse_protocol(protocol).test, len(split), train=False, seed=seed)
    clouds = [cloud.double() @ turn.T for cloud, turn in zip(split.clouds, turns, strict=True)]
    model = model.to(device).eval()
    jobs: list[tuple[str, int | str | None]] = [("dense", "all")] if "dense" in modes else []
    others = [mode for mode in ("online", "precomputed") if mode in modes]
    jobs += [(mode, budget) for mode in others for budget in (list(budgets) or [None])]
    table, dense = [], None
    for mode, budget in jobs:
        network = model
        if budget is not None:
            network = model.with_budget(num=None if budget == "all" else budget)
        with progress_bar(f"{mode} {budget or 'as trained'}", len(clouds), quiet=quiet) as bar:
            _run(network, clouds[:1], mode, device)
            logits, seconds = _run(network, clouds, mode, device, bar)
        row = {
            "mode": mode,
            "budget": budget,
            "accuracy": float((logits.argmax(1) == split.labels).double().mean()),
            "seconds_per_shape": round(seconds / len(clouds), 5),
        }
        if mode == "dense":
            dense = logits
        if dense is not None:
            difference = (logits - dense).abs().amax(1)
            row["logit_difference"] = float(difference.max())
            scale = dense.abs().amax(1).clamp_min(torch.finfo(dense.dtype).tiny)
            row["logit_difference_relative"] = float((difference / scale).max())
            row["agreement"] = agreement(logits, dense)
        table.append(row)
    return table


def _run(
    model, clouds: Sequence[Tensor], mode: str, device, bar: Callable | None = None
) -> tuple[Tensor, float]:
    out, seconds = [], 0.0
    for done, cloud in enumerate(clouds, 1):
        start = time.perf_counter()
        if mode == "online":
            graph = online_graph(model, [cloud.to(device)])
        else:
            graph = built_batch([cloud], model.levels, torch.float32, device)
        out.append(averaged_logits(model, graph).float().cpu())
        seconds += time.perf_counter() - start
        if bar:
            bar(done, len(clouds))
    return torch.cat(out), seconds
