"""The graphs of a run's training clouds and of their resampled versions."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from pcequi.files import expanded
from pcequi.graph_store import GraphStore, store_key
from pcequi.pose_graph import Level
from pcequi.progress import progress_bar
from pcequi.ranks import ALONE, Ranks, local_cores
from pcequi.training.fit import LazyStore, store_of_epoch
from pcequi.training.protocols import parse_protocol, protocol_rotations
from pcequi.training.resample import resampled_clouds
from pcequi.training.run_settings import RunSettings
from pcequi.training.splits import Split, default_cache, precompute_shown

__all__ = ["TrainVersions", "own_cache", "precompute_train"]


def precompute_train(
    train: Split,
    levels: Sequence[Level],
    settings: RunSettings,
    *,
    cache: str | Path | None = None,
    **options,
) -> Iterator[GraphStore]:
    """The graphs of a run's training clouds, then those of each resampling of them.

    Args:
        train: the training split of the run.
        levels: of the network.
        settings: of the run.
        cache, options: ``workers``, ``quiet`` and ``ranks`` too, of ``splits.precompute_shown``.

    Yields:
        One store for each version of the clouds, ``settings.resamplings`` + 1 in all.

    **Equivariance:** as ``splits.precompute``.
    """
    for number in range(settings.resamplings + 1):
        split = _version(train, number, settings, **options)
        yield _precompute(split, number, levels, settings, cache=cache, **options)


class TrainVersions:
    """The same for ``fit``, each made when the first epoch comes that reads it.

    Versions that several epochs read, and the clouds themselves, are kept in the cache.
    A version that one epoch alone reads is taken from there if it is there; else it is
    made in a folder of this run's in the cache and is deleted after its epoch: with as
    many versions as epochs, what training needs on disk does not grow with them.

    Args:
        train, levels, settings, cache, workers, quiet, ranks: as ``precompute_train``.
        number: of the run, after which its folder in the cache is named, see ``own_cache``.

    Attributes:
        stores: what ``fit`` takes.

    **Equivariance:** as ``splits.precompute``.
    """

    def __init__(
        self,
        train: Split,
        levels: Sequence[Level],
        settings: RunSettings,
        number: int,
        *,
        cache: str | Path | None = None,
        workers: int | None = None,
        quiet: bool = False,
        ranks: Ranks = ALONE,
    ):
        self._of = train, levels, settings
        self._cache = default_cache() if cache is None else expanded(cache)
        self._own = own_cache(self._cache, number)
        self._options = {"workers": workers, "quiet": quiet, "ranks": ranks}
        self._made: dict[int, Path] = {}
        numbers = range(settings.resamplings + 1)
        self.stores = [LazyStore(partial(self._make, n), partial(self._done, n)) for n in numbers]

    def clear(self) -> None:
        """Delete this run's folder in the cache, with what killed processes left there."""
        if self._options["ranks"].first:
            shutil.rmtree(self._own, ignore_errors=True)

    def _make(self, number: int) -> GraphStore:
        train, levels, settings = self._of
        split = _version(train, number, settings, **self._options)
        cache, ranks, epochs = self._cache, self._options["ranks"], settings.fit.epochs
        readers = [store_of_epoch(e, epochs, len(self.stores)) for e in range(epochs)]
        if number and readers.count(number) == 1:
            kind, seed = parse_protocol(settings.protocol).train, settings.fit.seed + number
            turns = protocol_rotations(kind, len(split), train=True, seed=seed)
            # One process looks: another may finish the store between two looks.
            begun = os.path.exists(cache / store_key(split.clouds, levels, turns))
            begun = ranks.gather(torch.tensor([begun]).long(), even=True)[0]
            cache = cache if begun else self._own
        store = _precompute(split, number, levels, settings, cache=cache, **self._options)
        if cache == self._own:
            self._made[number] = store.folder
        return store

    def _done(self, number: int) -> None:
        if number in self._made and self._options["ranks"].first:
            folder = self._made[number]
            (folder / "store.json").unlink(missing_ok=True)  # It is no longer whole.
            shutil.rmtree(folder, ignore_errors=True)


def own_cache(cache: str | Path | None, number: int) -> Path:
    """Folder, in the cache, of graphs that a run alone reads.

    Args:
        cache: None: the usual one.
        number: of the run, not its path: two machines may share a cache, and have runs of one
            path on disks of their own.

    **Equivariance:** does not apply.
    """
    cache = default_cache() if cache is None else expanded(cache)
    return cache / f"run-{hashlib.sha256(str(number).encode()).hexdigest()[:16]}"


def _version(
    train: Split,
    number: int,
    settings: RunSettings,
    *,
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
