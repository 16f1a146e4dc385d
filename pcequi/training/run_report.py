"""What a run reports: figures of its last epoch, and how they came about."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor, nn

from pcequi import __version__
from pcequi.training.evaluate import agreement
from pcequi.training.run_settings import RunSettings

__all__ = ["about_run", "run_report"]


def about_run(settings: RunSettings, clouds: Sequence[Tensor]) -> dict:
    """What a checkpoint says of the training that it comes from.

    Args:
        settings: of the run.
        clouds: that it trained on.

    **Equivariance:** does not apply.
    """
    about = {
        "data": settings.data,
        "num_points": settings.num_points,
        "points_seen": int(median(len(cloud) for cloud in clouds)),
        "protocol": settings.protocol,
        "preset": settings.preset,
        "seed": settings.fit.seed,
        "epochs": settings.fit.epochs,
    }
    return about | ({"start": settings.start} if settings.start else {})


def run_report(
    about: dict,
    settings: RunSettings,
    model: nn.Module,
    found: dict[str, dict],
    logits: dict[str, Tensor],
    history: Sequence[dict],
    seconds: dict,
    **more,
) -> dict:
    """What ``report.json`` holds.

    Args:
        about: what ``about_run`` says.
        settings: of the run.
        model: trained.
        found: ``classification_report`` of each protocol.
        logits: of the test clouds by protocol.
        history: metrics of each epoch.
        seconds: what took how long.
        more: what else there is to say: shapes, device, commit, memory.

    **Equivariance:** does not apply.
    """
    first, *others = settings.protocols
    return {
        **about,
        "accuracy": {name: part["accuracy"] for name, part in found.items()},
        "mean_class_accuracy": {n: part["mean_class_accuracy"] for n, part in found.items()},
        "agreement": {f"{first}, {n}": agreement(logits[first], logits[n]) for n in others},
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": seconds,
        "last_epoch": history[-1],
        "settings": settings.to_dict(),
        "pcequi": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **more,
        "per_class": {name: part["per_class"] for name, part in found.items()},
        "confusion": {name: part["confusion"] for name, part in found.items()},
    }
