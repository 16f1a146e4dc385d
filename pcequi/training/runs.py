"""One training run in a folder: data, graphs, training, evaluation, figures."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from pcequi.datasets.folder_files import is_searched
from pcequi.errors import ArgumentError, DataError, PcequiError
from pcequi.files import expanded, is_there, locked, make_folder
from pcequi.models import GroupConvClassifier
from pcequi.ranks import ALONE, Ranks
from pcequi.training.checkpoints import save_checkpoint
from pcequi.training.evaluate import evaluate_protocol
from pcequi.training.files import write_json
from pcequi.training.fit import fit
from pcequi.training.plots import plot_confusion, plot_curves
from pcequi.training.predict import SPARSE, largest_heap
from pcequi.training.predictions import PREDICTIONS, write_predictions
from pcequi.training.rows import split_rows
from pcequi.training.run_data import check_data, run_number
from pcequi.training.run_report import about_run, run_report
from pcequi.training.run_settings import RunSettings, load_run_settings, load_run_split
from pcequi.training.splits import Split, check_root
from pcequi.training.start import start_from
from pcequi.training.versions import TrainVersions, own_cache

__all__ = ["train_run"]

# The state first: what is left of it by a process that is killed must not outlive what it is of.
_OWN_FILES = (
    "state.safetensors",
    "settings.json",
    "data.json",
    "metrics.jsonl",
    "model.safetensors",
    "model.json",
    "report.json",
    "curves.png",
    "confusion.png",
    "hardest.json",
    "predictions.csv",
    "report.html",
)


def train_run(
    settings: RunSettings,
    run: str | Path,
    *,
    cache: str | Path | None = None,
    workers: int | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    on_epoch: Callable[[dict], None] | None = None,
    ranks: Ranks = ALONE,
) -> dict:
    """Train a network and evaluate it, with everything kept in one folder.

    The folder gets ``settings.json``, ``metrics.jsonl`` (a line an epoch),
    ``state.safetensors`` (to resume), ``model.safetensors`` and ``model.json``
    (see ``checkpoints``), ``report.json``, ``curves.png``, ``confusion.png``,
    ``hardest.json`` (the worst mistakes), ``predictions.csv`` (what each test cloud was called)
    and ``report.html``, which shows it all. ``data.json`` has the classes and digests of the
    training clouds, see ``run_data``.

    Args:
        settings: what to do.
        run: the folder.
        cache, workers: of the precomputed graphs, see ``splits.precompute`` and
            ``versions.TrainVersions``.
        device: where the network runs.
        resume: go on with an interrupted run.
        overwrite: start again in a folder that holds a run.
        quiet: no progress on standard error.
        on_epoch: called with the metrics of each epoch.
        ranks: processes that call this together, see ``launch.launched``; the first
            one writes all files, in folders that all machines share.

    Returns:
        The report: ``accuracy`` and ``per_class`` by protocol, of the last epoch;
        ``agreement`` of the predictions under two protocols; ``seconds``, sizes
        and settings.

    Raises:
        ArgumentError: the folder holds another run, or another process trains in it.
        FileError, DataError: what is on disk is missing or damaged.

    **Equivariance:** as the network.
    """
    folder = expanded(run)
    quiet = quiet or not ranks.first
    # All before the folder is made.
    check_root(settings.data, settings.root)
    _check_place(folder, settings)
    _check_folder(folder, settings, resume, overwrite)
    overwrite = overwrite or not (resume or _has_begun(folder))
    if resume and not quiet and not is_there(folder / "settings.json"):
        print(f"nothing to resume in {folder}: starting", file=sys.stderr)
    options = {"cache": cache, "workers": workers, "quiet": quiet, "ranks": ranks}
    with _alone(folder, ranks):
        return _train_run(settings, folder, resume, overwrite, device, on_epoch, options)


def _train_run(settings, folder, resume, overwrite, device, on_epoch, options) -> dict:
    # Imported here: the report reads the files of this package.
    from pcequi.report import code_commit, peak_memory, save_hardest, write_report

    quiet, ranks = options["quiet"], options["ranks"]
    commit, memory = code_commit(), peak_memory()
    with ranks.first_goes_first(), ranks.first_warns():
        # A data set that is not unpacked yet is unpacked once.
        train, test = (load_run_split(settings, part) for part in (True, False))
    if not quiet:
        _warn_of_clouds((train, test), settings.num_points)
    seed = settings.fit.seed
    rows, val_rows = split_rows(train.labels, settings.val_share, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GroupConvClassifier.from_preset(settings.preset, len(train.classes))
    if settings.start and not (resume and is_there(folder / "state.safetensors")):
        start_from(model, train.classes, settings.start)
    number = _begin(folder, settings, train, rows, resume, overwrite, options)
    versions = TrainVersions(train, model.levels, settings, number, **options)
    history = fit(
        model,
        versions.stores,
        train.labels,
        settings.fit,
        rows=rows,
        val_rows=val_rows,
        folder=folder,
        resume=resume,
        device=device,
        quiet=quiet,
        on_epoch=on_epoch,
        ranks=ranks,
    )
    versions.clear()
    about = about_run(settings, train.clouds)
    if ranks.first:
        save_checkpoint(folder, model, train.classes, about)
    reports, logits = {}, {}
    for protocol in settings.protocols:
        reports[protocol], logits[protocol] = evaluate_protocol(
            model, test, protocol, seed=seed, device=device, **options
        )
    seconds = {
        "precompute_train": round(sum(m.get("precompute_seconds", 0.0) for m in history), 2),
        "precompute_test": {n: part["seconds"]["precompute"] for n, part in reports.items()},
        "train": round(sum(metrics["seconds"] for metrics in history), 2),
        "evaluate": {n: part["seconds"]["network"] for n, part in reports.items()},
    }
    report = run_report(
        about,
        settings,
        model,
        reports,
        logits,
        history,
        seconds,
        shapes={"train": len(rows), "held_out": len(val_rows), "test": len(test)},
        classes=len(train.classes),
        commit=commit,
        device=str(device),
        processes=ranks.size,
        peak_memory_mb=peak_memory(device, memory),
        run=str(folder),
    )
    first = settings.protocols[0]
    if ranks.first:
        write_json(folder / "report.json", report)
        save_hardest(folder, first, logits[first], test)
        write_predictions(folder / PREDICTIONS, logits, test)
        write_report(folder)
        plot_curves(history, folder / "curves.png")
        title = f"{first}: {reports[first]['accuracy']:.1%}"
        plot_confusion(reports[first]["confusion"], train.classes, folder / "confusion.png", title)
    return report


def _check_folder(folder: Path, settings: RunSettings, resume: bool, overwrite: bool) -> None:
    path = folder / "settings.json"
    if resume and overwrite:
        raise ArgumentError(
            "`resume` (=True) goes on with a run and `overwrite` (=True) throws it away; give one"
        )
    if resume and is_there(path):
        kept, wanted = _flat(load_run_settings(folder)), _flat(settings)
        # The training clouds are compared; how their split is said may change.
        free = ("also", "test_list", "test_share")
        changed = [key for key in wanted if kept.get(key) != wanted[key] and key not in free]
        if changed:
            raise ArgumentError(
                f"`resume` (=True) cannot go on with other settings than those of {folder}: "
                + ", ".join(f"{key} was {kept.get(key)!r}, not {wanted[key]!r}" for key in changed)
                + "; give the same ones, or another folder"
            )
    elif _has_begun(folder) and not overwrite:
        raise ArgumentError(
            f"`run` (={str(folder)!r}) holds a run already; go on with it (`resume`, "
            "--resume), throw it away (`overwrite`, --overwrite), or give another folder"
        )


def _has_begun(folder: Path) -> bool:
    """Whether there is anything to lose: a start that failed leaves settings alone."""
    made = ("state.safetensors", "metrics.jsonl", "model.safetensors", "report.json")
    return any(is_there(folder / name) for name in made)


def _check_place(folder: Path, settings: RunSettings) -> None:
    """No run lies where its own tables would be read as clouds."""
    if settings.data == "folder" and settings.root and is_searched(Path(settings.root), folder):
        raise ArgumentError(
            f"`run` (={str(folder)!r}) is within the folder of the classes, {settings.root!r}, and "
            "would be read as one of them: give a folder elsewhere (--run elsewhere/mine)"
        )


def _warn_of_clouds(splits: Sequence[Split], num_points: int) -> None:
    for split, name in zip(splits, ("training", "test")):
        few = sum(len(cloud) < SPARSE * num_points for cloud in split.clouds)
        heaps = sum(largest_heap(cloud) > 0 for cloud in split.clouds)
        for count, what in (
            (few, f"have fewer than a quarter of the {num_points} points asked for"),
            (heaps, "have many points in one place, as where a scanner saw nothing"),
        ):
            if count:
                warnings.warn(f"{count} of {len(split)} {name} clouds {what}", stacklevel=2)


def _begin(
    folder, settings, train: Split, rows, resume: bool, overwrite: bool, options: dict
) -> int:
    """Ready the folder; the number of the run, which process 0 draws or reads, for all."""
    ranks, number, error = options["ranks"], 0, None
    if ranks.first:
        if overwrite and (thrown := run_number(folder)) is not None:
            shutil.rmtree(own_cache(options["cache"], thrown), ignore_errors=True)
        _start_folder(folder, settings, overwrite)
        try:
            root = settings.root if settings.data == "folder" else None
            number = check_data(folder, train, rows, resume, root)
        except PcequiError as found:  # the others must not wait for it
            number, error = -1, found
    number = int(ranks.gather(torch.tensor([number]), even=True)[0])
    if number < 0:
        raise error or DataError(f"`resume` (=True) cannot go on with {folder}; see process 0")
    return number


def _flat(settings: RunSettings) -> dict:
    values = settings.to_dict()
    if values["start"] and os.path.exists(values["start"]):
        values["start"] = str(Path(values["start"]).absolute())
    return values | values.pop("fit")


@contextmanager
def _alone(folder: Path, ranks: Ranks) -> Iterator[None]:
    """No other training writes the folder meanwhile; the first process holds the lock."""
    with ExitStack() as stack:
        made = [folder, *(path for path in folder.absolute().parents if not os.path.exists(path))]
        if ranks.first:
            make_folder(folder)
            if not stack.enter_context(locked(folder / "run.lock", wait=False)):
                raise ArgumentError(
                    f"`run` (={str(folder)!r}) is being trained by another process; wait for it, "
                    "or give another folder"
                )
        try:
            yield
        finally:
            stack.close()
            if ranks.first:
                with suppress(OSError):  # Not empty, as a rule; what failed at once leaves nothing.
                    for path in made:
                        path.rmdir()


def _start_folder(folder: Path, settings: RunSettings, overwrite: bool) -> None:
    make_folder(folder)
    for name in _OWN_FILES:
        if overwrite:
            (folder / name).unlink(missing_ok=True)
        for left in folder.glob(f"{name}.*.part"):  # by a process that was killed
            left.unlink(missing_ok=True)
    write_json(folder / "settings.json", settings.to_dict())
