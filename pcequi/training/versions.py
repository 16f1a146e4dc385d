"""The graphs of a run's training clouds and of their resampled versions."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pcequi.graph_store import GraphStore, store_key
from pcequi.pose_graph import Level
from pcequi.ranks import ALONE, Ranks, local_cores
from pcequi.training.fit import MakeStore
from pcequi.training.progress import progress_bar
from pcequi.training.protocols import parse_protocol, protocol_rotations
from pcequi.training.resample import resampled_clouds
from pcequi.training.run_settings import RunSettings
from pcequi.training.splits import Split, default_cache, precompute_shown

__all__ = ["VERSIONS", "TrainVersions", "precompute_train"]

#: Folder, in that of a run, of graphs that one epoch reads.
VERSIONS = "versions"


def precompute_train(
    train: Split, levels: Sequence[Level], settings: RunSettings, **options
) -> Iterator[GraphStore]:
    """The graphs of a run's training clouds, then those of each resampling of them.

    Args:
        train: the training split of the run.
        levels: of the network.
        settings: of the run.
        options: ``cache``, ``workers``, ``quiet`` and ``ranks`` of ``splits.precompute_shown``.

    Yields:
        One store for each version of the clouds, ``settings.resamplings`` + 1 in all.

    **Equivariance:** as ``splits.precompute``.
    """
    for number in range(settings.resamplings + 1):
        split = _version(train, number, settings, **options)
        yield _precompute(split, number, levels, settings, **options)


class TrainVersions:
    """The same for ``fit``: made when the first epoch comes that reads them.

    Versions that several epochs read, and the clouds themselves, are kept in the cache.
    A version that one epoch alone reads is taken from there if it is there; else
    it is made in the folder of the run and is deleted after its epoch: with as many
    versions as epochs, what training needs on disk does not grow with them.

    Args:
        train, levels, settings, cache, workers, quiet, ranks: as ``precompute_train``.
        folder: of the run.

    Attributes:
        stores: what ``fit`` takes.
        seconds: that the graphs have taken so far.

    **Equivariance:** as ``splits.precompute``.
    """

    def __init__(
        self,
        train: Split,
        levels: Sequence[Level],
        settings: RunSettings,
        folder: Path,
        *,
        cache: str | Path | None = None,
        workers: int | None = None,
        quiet: bool = False,
        ranks: Ranks = ALONE,
    ):
        self._of = train, levels, settings
        self._folder = folder / VERSIONS
        self._cache = default_cache() if cache is None else Path(cache).expanduser()
        self._options = {"workers": workers, "quiet": quiet, "ranks": ranks}
        self.seconds = 0.0
        self.stores: list[MakeStore] = [
            functools.partial(self._make, number) for number in range(settings.resamplings + 1)
        ]

    def clear(self) -> None:
        """Delete the graphs that one epoch alone reads, after that epoch."""
        if self._options["ranks"].first:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self, number: int) -> GraphStore:
        train, levels, settings = self._of
        start = time.perf_counter()
        split = _version(train, number, settings, **self._options)
        cache = self._cache
        if number and number + len(self.stores) >= settings.fit.epochs:
            kind, seed = parse_protocol(settings.protocol).train, settings.fit.seed + number
            turns = protocol_rotations(kind, len(split), train=True, seed=seed)
            kept = cache / store_key(split.clouds, levels, turns) / "store.json"
            cache = cache if kept.exists() else self._folder
        store = _precompute(split, number, levels, settings, cache=cache, **self._options)
        self.seconds += time.perf_counter() - start
        return store


def _version(
    train: Split,
    number: int,
    settings: RunSettings,
    *,
    cache: str | Path | None = None,
    workers: int | None = None,
    quiet: bool = False,
    ranks: Ranks = ALONE,
) -> Split:
    """The clouds, or a resampling of them."""
    if number == 0:
        return train
    with progress_bar(_name(number, settings), quiet=quiet or not ranks.first) as bar:
        clouds = resampled_clouds(
            train.clouds,
            number,
            settings.fit.seed,
            progress=bar,
            workers=workers or local_cores(),
            kind=settings.resample_as,
        )
    return replace(train, clouds=clouds)


def _precompute(split, number, levels, settings, **options) -> GraphStore:
    kind, seed = parse_protocol(settings.protocol).train, settings.fit.seed + number
    return precompute_shown(split, levels, kind, _name(number, settings), seed=seed, **options)


def _name(number: int, settings: RunSettings) -> str:
    return f"resampling {number} of {settings.resamplings}" if number else "training clouds"
