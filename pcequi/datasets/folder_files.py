"""Which files of a folder belong to which class and split; none is opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from pcequi.datasets.readers import ENDINGS
from pcequi.errors import ArgumentError, DataError, FileError, check_count
from pcequi.files import check_reach, expanded, out_of_reach

__all__ = [
    "SPLITS",
    "check_no_classes",
    "find_files",
    "first_of_each",
    "is_searched",
    "split_files",
    "usable_files",
]

Item = TypeVar("Item")

#: Names of the splits, and of the folders that say them.
SPLITS = ("train", "test")
# Names of folders that people mean as splits, too; which split, a program cannot know.
_ALMOST = ("val", "valid", "validation", "training", "testing")
# Folders of a data set that is made or downloaded, beside which nothing is a class.
_MADE = ("raw", "processed")
# What macOS puts beside the folders that it packs.
_APPLE = "__MACOSX"
_REFUSED = "{!r} cannot be read ({}): allow it, or move it elsewhere"


def split_files(
    folder: Path, *, test_share: float = 0.2, test_list: str | Path | None = None, seed: int = 0
) -> list[tuple[Path, str, str]]:
    """Path, class and split of every file, as ``folder.FolderClouds`` says.

    Raises:
        ArgumentError, FileError, DataError: see ``folder.FolderClouds``.

    **Equivariance:** does not apply: no file is opened.
    """
    if not 0 < test_share < 1:
        raise ArgumentError(f"`test_share` (={test_share}) must be above 0 and below 1")
    files = find_files(folder)
    if test_list is not None:
        if any(part for _, _, part in files):
            raise ArgumentError(
                f"`test_list` (={str(test_list)!r}) and folders train and test in {str(folder)!r}: "
                "drop one of them"
            )
        files = _split_by_list(folder, files, expanded(test_list))
    elif not any(part for _, _, part in files):
        files = _split_by_share(folder, files, test_share, seed)
    for part in SPLITS:
        if not any(found == part for _, _, found in files):
            raise DataError(
                f"`folder` (={str(folder)!r}) has no file for the {part} split: add files, or "
                "split them otherwise (`test_share`, `test_list`)"
            )
    trained = {name for _, name, part in files if part == "train"}
    missing = sorted({name for _, name, _ in files} - trained)
    if missing:
        raise DataError(
            f"`folder` (={str(folder)!r}) has no training file of class {missing[0]!r}: add one, "
            "or remove the class"
        )
    return files


def first_of_each(labelled: Iterable[tuple[Item, int]], limit: int | None) -> list:
    """Of things with their labels the first few of each label; all without a limit.

    **Equivariance:** does not apply.
    """
    check_count("limit", limit, none=True)
    kept, seen = [], {}
    for item, label in labelled:
        seen[label] = seen.get(label, 0) + 1
        if limit is None or seen[label] <= limit:
            kept.append((item, label))
    return kept


def find_files(folder: Path, least: int = 2) -> list[tuple[Path, str, str]]:
    """Path, class and split (``""`` where no folder says it) of every usable file, sorted.

    Args:
        folder: Whose sub-folders are the classes.
        least: Classes that are needed.

    Raises:
        FileError: There is no such folder, or it may not be read.
        DataError: Fewer classes than ``least``; a class without files; classes that are
            split by folders and others that are not.

    **Equivariance:** does not apply: no file is opened.
    """
    check_reach(folder, "folder")
    if not os.path.isdir(folder):
        raise FileError(
            f"`folder` (={str(folder)!r}) is no folder: give one whose sub-folders are the classes"
        )
    above = _split_folders(folder, [path.name for path in _entries(folder) if os.path.isdir(path)])
    if len(above) == 1:
        raise DataError(
            f"`folder` (={str(folder)!r}) has a folder {next(iter(above))!r} and not its partner: "
            "there must be both train and test, or neither"
        )
    places = [(folder / name, part) for name, part in above.items()] or [(folder, "")]
    files = [found for place, part in places for found in _find_classes(place, part)]
    names = sorted({name for _, name, _ in files})
    if len(names) < least:
        number = "one is" if least == 1 else "two are"
        raise DataError(
            f"`folder` (={str(folder)!r}) has {len(names)} classes, and at least {number} needed: "
            "put the files of each class into a sub-folder of its own"
        )
    loose = [path for path, _, part in files if not part]
    if loose and len(loose) < len(files):
        raise DataError(
            f"`folder` (={str(folder)!r}) has classes with folders train and test, and a file "
            f"outside of them, {loose[0].relative_to(folder).as_posix()!r}: move it into one"
        )
    return sorted(files, key=lambda found: found[0].relative_to(folder).as_posix())


def check_no_classes(root: str | Path | None, data: str) -> None:
    """Whether a folder, in which clouds are to be made, holds none of the user's own.

    Args:
        root: The folder, which need not exist.
        data: Name of the data set that would be made in it.

    Raises:
        ArgumentError: Two or more of its sub-folders hold files that could be read.

    **Equivariance:** does not apply: no file is opened.
    """
    folder = None if root is None else expanded(root)
    if folder is None or not os.path.isdir(folder):
        return
    kinds = [path for path in _entries(folder) if os.path.isdir(path)]
    kinds = [path for path in kinds if path.name not in _MADE and not _is_passed_over(path)]
    held = [path.name for path in kinds if any(map(_is_usable, all_files(path)))]
    if len(held) > 1:
        raise ArgumentError(
            f"`root` (={str(root)!r}) has sub-folders with files, {held[0]!r} and {held[1]!r}, and "
            f"{data!r} would be made among them: for a data set of these files give `data` "
            "'folder' (--data folder), or another root"
        )


def is_searched(folder: Path, path: Path) -> bool:
    """Whether files in a place would be taken for those of a class of a folder.

    Args:
        folder: Whose sub-folders are the classes.
        path: The place, which need not exist.

    **Equivariance:** does not apply.
    """
    folder, path = (Path(os.path.realpath(expanded(one))) for one in (folder, path))
    if not os.path.isdir(folder) or not path.is_relative_to(folder):
        return False
    parts = path.relative_to(folder).parts
    if any(_is_passed_over(Path(part)) for part in parts):
        return False
    names = [part.name.lower() for part in _entries(folder) if os.path.isdir(part)]
    return not set(SPLITS) <= set(names) or (bool(parts) and parts[0].lower() in SPLITS)


def _is_usable(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def usable_files(folder: Path) -> list[Path]:
    """All files of a folder, and of the folders in it, whose ending can be read.

    Raises:
        FileError: A folder cannot be read.

    **Equivariance:** does not apply: no file is opened.
    """
    return list(filter(_is_usable, all_files(folder)))


def _find_classes(place: Path, part: str) -> Iterator[tuple[Path, str, str]]:
    for kind in _entries(place):
        if not os.path.isdir(kind) or _is_passed_over(kind):
            continue
        found = sorted(usable_files(kind))
        if not found:
            raise DataError(
                f"`folder` (={str(place)!r}) has a class {kind.name!r} without files: add some "
                f"that end in {' '.join(ENDINGS)}, or remove it"
            )
        first = [path.relative_to(kind).parts[0] for path in found]
        inner = {name for name in first if os.path.isdir(kind / name)}
        below = {} if part else _split_folders(kind, inner)
        for path, name in zip(found, first):
            yield path, kind.name, part or below.get(name, "")


def _is_passed_over(folder: Path) -> bool:
    # Checkpoints of editors and old versions of tools that synchronise are no clouds.
    return folder.name.startswith(".") or folder.name == _APPLE


def all_files(
    place: Path, seen: set[str] | None = None, *, dangling: bool = False
) -> Iterator[Path]:
    """All files of a folder, but those of hidden folders. Links to folders are followed, after the
    folders themselves; what is reached a second time is passed over, or a cloud could be trained
    and tested on.

    Args:
        place: The folder.
        seen: Folders that were searched, as the system calls them.
        dangling: Whether links to nothing are files.

    Raises:
        FileError: A folder cannot be read.

    **Equivariance:** does not apply: no file is opened.
    """
    seen = set() if seen is None else seen
    real = os.path.realpath(place)
    if real in seen:
        return
    seen.add(real)
    entries = _entries(place)
    folders = [path for path in entries if os.path.isdir(path) and not _is_passed_over(path)]
    for path in entries:
        lost = dangling and os.path.islink(path) and not os.path.exists(path)
        if os.path.isfile(path) or lost:
            yield path
    for path in sorted(folders, key=os.path.islink):
        yield from all_files(path, seen, dangling=dangling)


def _entries(place: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing is left out because the system does not say what it
    is."""
    try:
        entries = sorted(place.iterdir())
    except OSError as error:
        raise FileError(_REFUSED.format(str(place), error.strerror)) from error
    for path in entries:
        if why := out_of_reach(path):
            raise FileError(_REFUSED.format(str(path), why))
    return entries


def _split_folders(place: Path, names: Iterable[str]) -> dict[str, str]:
    """Of the names of the folders in a place those that say a split, and which."""
    found = {name: name.lower() for name in sorted(names) if name.lower() in SPLITS}
    almost = sorted(name for name in names if name.lower() in _ALMOST)
    if almost and len(found) + len(almost) > 1:
        beside = next(name for name in [*found, *almost] if name != almost[0])
        raise DataError(
            f"`folder` (={str(place)!r}) has a folder {almost[0]!r} beside {beside!r}, and splits "
            "are called train and test: rename it, move its files into one of these, or move it "
            "elsewhere"
        )
    for part in SPLITS:
        same = [name for name in found if found[name] == part]
        if len(same) > 1:
            raise DataError(
                f"`folder` (={str(place)!r}) has the folders {' and '.join(map(repr, same))} for "
                f"the {part} split: join them"
            )
    return found


def _split_by_share(folder: Path, files: list, share: float, seed: int) -> list:
    def stem(found) -> str:
        return found[0].relative_to(folder).with_suffix("").as_posix()

    def lot(name: str) -> bytes:
        return hashlib.sha256(os.fsencode(f"{seed}:{name}")).digest()

    tested, of_kind = set(), {}
    for found in files:
        # bolt.stl and bolt.obj are one shape, which is trained or tested on.
        of_kind.setdefault(found[1], {}).setdefault(stem(found), []).append(found[0])
    for shapes in of_kind.values():
        drawn = sorted(shapes, key=lot)
        sizes = np.cumsum([len(shapes[name]) for name in drawn])
        wanted = round(share * int(sizes[-1]))
        # At least one, and one is left to train on.
        nearest = 1 + int(np.abs(sizes - wanted).argmin())
        count = min(nearest, len(drawn) - 1)
        tested.update(path for name in drawn[:count] for path in shapes[name])
    return [(path, name, SPLITS[path in tested]) for path, name, _ in files]


def _split_by_list(folder: Path, files: list, test_list: Path) -> list:
    try:
        # Names of files may be in any encoding.
        lines = test_list.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise FileError(
            f"`test_list` (={str(test_list)!r}) cannot be read ({error}): give a text file with a "
            "path a line"
        ) from error
    wanted = {line.strip().replace("\\", "/").removeprefix("./") for line in lines} - {""}
    known = {path.relative_to(folder).as_posix() for path, _, _ in files}
    unknown = sorted(wanted - known)
    if unknown:
        raise DataError(
            f"`test_list` (={str(test_list)!r}) names {unknown[0]!r}, which is no usable file of "
            f"{str(folder)!r} ({len(unknown)} such lines): write paths as CLASS/FILE"
        )
    return [
        (path, name, SPLITS[path.relative_to(folder).as_posix() in wanted])
        for path, name, _ in files
    ]
