"""From a folder of your own files to a classifier, its answers and its report.

Makes 60 small meshes of three classes, turned at random, as a stand-in for files
of your own: a sub-folder a class. Then it runs the commands that you would type.

    python examples/own_folder.py [--quick]
    python examples/own_folder.py --make parts    # only the 60 meshes, to try things on
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import trimesh

from pcequi.datasets import make_shape
from pcequi.rotations import random_rotations

CLASSES = ("cup", "hammer", "table")


def make_files(folder: Path, num: int, seed: int) -> list[Path]:
    """Meshes in ``folder/CLASS/``, each in an orientation of its own."""
    files = []
    turns = random_rotations(num * len(CLASSES), generator=torch.Generator().manual_seed(seed))
    for place, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for n in range(num):
            vertices, faces = make_shape(name, np.random.default_rng([seed, place, n]))
            vertices = vertices @ turns[place * num + n].double().numpy().T
            files.append(folder / name / f"{name}{n}{('.stl', '.ply', '.glb', '.obj')[n % 4]}")
            trimesh.Trimesh(vertices, faces, process=False).export(files[-1])
    return files


def pcequi(*words) -> dict:
    """Run the command and return what it says as JSON."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pcequi", *map(str, words), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(f"pcequi {words[0]}: {time.perf_counter() - start:.0f} s, exit code {done.returncode}")
    return json.loads(done.stdout)


def main(quick: bool) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.environ["PCEQUI_DATASETS"] = place  # leave nothing behind
        parts, new, run = Path(place, "parts"), Path(place, "new"), Path(place, "run")
        make_files(parts, 4 if quick else 20, seed=0)
        own = ["--data", "folder", "--root", parts, "--run", run, "--cache", Path(place, "cache")]
        size = ["--epochs", 2, "--num-points", 256] if quick else ["--epochs", 20]
        found = pcequi("train", *own, *size, "--preset", "small", "--batch-size", 8)
        count, share = found["shapes"]["test"], found["accuracy"]["z/SO3"]
        print(f"{share:.0%} of {count} files held out, turned any way")

        files = make_files(new, 2 if quick else 10, seed=1)
        (broken := new / "broken.stl").write_text("no mesh")
        found = pcequi("predict", run, *files, broken)
        right = sum(
            entry["predictions"][0]["class"] == Path(entry["file"]).parent.name
            for entry in found["files"]
            if "predictions" in entry
        )
        print(f"{right} of {found['classified']} new files right, {found['failed']} not readable")

        report = run / "report.html"  # training wrote it; `pcequi report` makes it again
        print(f"{report.name}: {report.stat().st_size / 1000:.0f} kB, opens in any browser")


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="From a folder of files to a classifier.")
    parser.add_argument("--quick", action="store_true", help="fewer files, points and epochs")
    parser.add_argument(
        "--make", type=Path, metavar="FOLDER", help="only make the 60 meshes, in a new FOLDER"
    )
    found = parser.parse_args(words)
    if found.make and found.make.exists():
        parser.error(f"argument --make: {found.make} is there already; name a new folder")
    return found


if __name__ == "__main__":
    asked = read_arguments()
    if asked.make:
        files = make_files(asked.make, 20, seed=0)
        print(f"{len(files)} meshes of {len(CLASSES)} classes in {asked.make}")
    else:
        main(asked.quick)
