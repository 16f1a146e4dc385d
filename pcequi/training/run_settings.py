"""What decides the outcome of a training run, and its clouds."""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from pcequi.errors import ArgumentError, FileError, check_count
from pcequi.files import expanded, is_there
from pcequi.models.presets import check_preset
from pcequi.training.files import read_json, run_folder
from pcequi.training.protocols import parse_protocol
from pcequi.training.resample import check_kind
from pcequi.training.settings import FitSettings
from pcequi.training.splits import Split, check_data_name, load_split

__all__ = ["RunSettings", "load_run_settings", "load_run_split", "resumed_settings"]


@dataclass(frozen=True)
class RunSettings:
    """All that decides the outcome of a run.

    Args:
        data: name of the data set, see ``splits.DATA``.
        root, source: where it lies, see ``splits.load_split``.
        num_points: points of a cloud.
        limit: clouds of each class at most, for quick tries.
        data_seed: of the split and the samples, see ``splits.load_split``.
        protocol: under which the network is trained.
        also: further protocols under which it is evaluated, with the same
            training rotations.
        preset: name of the network's settings.
        start: a trained network whose weights it begins with, see ``start.start_from``.
        test_share, test_list: of a folder of own files, see ``splits.load_split``.
        val_share: share of the training split that is held out and measured.
        resamplings: further versions of the training clouds, see
            ``resample.resample``; epochs take turns with all versions, and the last one reads
            the clouds themselves.
        resample_as: what these are like, ``"shape"`` or ``"scan"``, see
            ``resample.resampled_clouds``.
        fit: how it is trained; its seed also draws the rotations.

    Raises:
        ArgumentError: a value outside its range, or ``also`` names a protocol with
            other training rotations.

    **Equivariance:** does not apply.
    """

    data: str = "shapes"
    root: str | None = None
    source: str | None = None
    num_points: int = 1024
    limit: int | None = None
    data_seed: int = 0
    protocol: str = "z/SO3"
    also: tuple[str, ...] = ()
    preset: str = "default"
    start: str | None = None
    test_share: float = 0.2
    test_list: str | None = None
    val_share: float = 0.0
    resamplings: int = 0
    resample_as: str = "shape"
    fit: FitSettings = field(default_factory=FitSettings)

    def __post_init__(self):
        check_data_name(self.data)
        check_count("num_points", self.num_points)
        check_count("limit", self.limit, none=True)
        check_count("data_seed", self.data_seed, 0)
        check_count("resamplings", self.resamplings, 0)
        if not 0 <= self.val_share < 1:
            raise ArgumentError(f"`val_share` (={self.val_share}) must be in [0, 1)")
        if self.data != "folder" and self.test_share != 0.2:
            raise ArgumentError(
                f"`test_share` (={self.test_share}) does not apply to {self.data!r}, which has a "
                "split of its own; drop it, or give your own files as `data` 'folder'"
            )
        if self.data not in ("folder", "shapes") and self.data_seed:
            raise ArgumentError(
                f"`data_seed` (={self.data_seed}) does not apply to {self.data!r}, which has a "
                "split of its own; drop it"
            )
        check_kind(self.resample_as, "resample_as")
        check_preset(self.preset)
        if self.resample_as != "shape" and not self.resamplings:
            raise ArgumentError(
                f"`resample_as` (={self.resample_as!r}) says what resampled versions are like, and "
                "`resamplings` (=0) asks for none; give at least 1"
            )
        train = parse_protocol(self.protocol).train
        for name in self.also:
            if parse_protocol(name).train != train:
                raise ArgumentError(
                    f"`also` (={name!r}) trains under other rotations than `protocol` "
                    f"(={self.protocol!r}): start a second run for it"
                )

    @property
    def protocols(self) -> tuple[str, ...]:
        """All protocols under which the network is evaluated, each once."""
        return tuple(dict.fromkeys((self.protocol, *self.also)))

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict) -> RunSettings:
        """The settings that ``to_dict`` described.

        Raises:
            ArgumentError: a setting that this version does not have, or a value outside its
                range.
        """
        values = dict(values)
        _check_names(values["fit"], FitSettings)
        values |= {"fit": FitSettings(**values["fit"]), "also": tuple(values["also"])}
        _check_names(values, cls)
        return cls(**values)


class _OtherVersion(ArgumentError):
    """Settings of another version of pcequi."""


def _check_names(values: dict, kind: type) -> None:
    if not isinstance(values, dict):
        raise ArgumentError(f"settings (={values!r}) must be names with values")
    names = [one.name for one in fields(kind)]
    for key, value in values.items():
        if key not in names:
            raise _OtherVersion(
                f"`{key}` (={value!r}) is a setting that this version does not have: the run was "
                "made by another version of pcequi, which report.json names; use that one, or "
                "`pcequi predict`, which needs the network alone"
            )


def load_run_settings(run: str | Path) -> RunSettings:
    """The settings of a run, given by its folder or by its network within that.

    Raises:
        FileError: the folder is none of a run, or ``settings.json`` is damaged or of a version
            of pcequi with other settings.

    **Equivariance:** does not apply.
    """
    path = run_folder(run) / "settings.json"
    values = read_json(path, "give the folder of a run made by `pcequi train`")
    try:
        return RunSettings.from_dict(values)
    except _OtherVersion as error:
        raise FileError(f"{path} cannot be used: {error}") from error
    except (TypeError, LookupError, ValueError) as error:
        raise FileError(f"{path} is damaged ({error}); train again") from error


def resumed_settings(run: str | Path, settings: RunSettings, given: Container[str]) -> RunSettings:
    """The settings with which an interrupted run goes on: its own, but for what was given.

    Args:
        run: its folder; without settings in it ``settings`` are returned.
        settings: as they would be for a new run.
        given: names of those that were asked for; ``train_run`` refuses what differs there.

    Raises:
        FileError: as ``load_run_settings``.

    **Equivariance:** does not apply.
    """
    if not is_there(expanded(run) / "settings.json"):
        return settings
    kept = load_run_settings(run)

    def asked(values) -> dict:
        names = [one.name for one in fields(values) if one.name in given]
        return {name: getattr(values, name) for name in names}

    return replace(kept, **asked(settings), fit=replace(kept.fit, **asked(settings.fit)))


def load_run_split(settings: RunSettings, train: bool) -> Split:
    """The clouds of a run.

    **Equivariance:** clouds come in the pose in which they are stored.
    """
    return load_split(
        settings.data,
        train,
        root=settings.root,
        source=settings.source,
        num_points=settings.num_points,
        limit=settings.limit,
        seed=settings.data_seed,
        test_share=settings.test_share,
        test_list=settings.test_list,
    )
