"""From a folder of your own files to a classifier, its answers and its report.

Makes 60 small meshes, turned at random, as a stand-in for files of your own: a sub-folder
a class. Then it runs the commands that you would type.

    python examples/own_folder.py [--quick]
    python examples/own_folder.py --make parts    # only the 60 meshes, to try things on
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import trimesh

from pcequi.datasets import make_shape
from pcequi.rotations import random_rotations


def make_files(folder: Path, num: int, seed: int) -> None:
    """Meshes in ``folder/CLASS/``, each in an orientation of its own."""
    generator = torch.Generator().manual_seed(seed)
    for place, name in enumerate(("cup", "hammer", "table")):
        (folder / name).mkdir(parents=True)
        for n, turn in enumerate(random_rotations(num, generator=generator).double().numpy()):
            vertices, faces = make_shape(name, np.random.default_rng([seed, place, n]))
            file = folder / name / f"{name}{n}{('.stl', '.ply', '.glb', '.obj')[n % 4]}"
            trimesh.Trimesh(vertices @ turn.T, faces, process=False).export(file)


def pcequi(*words) -> dict:
    """Run the command and return what it says as JSON."""
    command = [sys.executable, "-m", "pcequi", *map(str, words), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(f"pcequi {words[0]}: exit code {done.returncode}")
    return json.loads(done.stdout)


def main(place: Path, run: Path, quick: bool) -> None:
    make_files(place / "parts", 4 if quick else 20, seed=0)
    own = ["--data", "folder", "--root", place / "parts", "--cache", place / "cache"]
    own += ["--epochs", 2, "--num-points", 256] if quick else ["--epochs", 20]
    found = pcequi("train", *own, "--run", run, "--preset", "small", "--batch-size", 8)
    print(f"{found['accuracy']['z/SO3']:.0%} of {found['shapes']['test']} held-out files, turned")
    make_files(place / "new", 2 if quick else 10, seed=1)
    (place / "new" / "broken.stl").write_text("no mesh")
    found = pcequi("predict", run, place / "new")
    told = [(Path(one["file"]).parent.name, one.get("predictions")) for one in found["files"]]
    right = sum(answers[0]["class"] == name for name, answers in told if answers)
    print(f"{right} of {found['classified']} new files right, {found['failed']} not readable")
    size = (run / "report.html").stat().st_size / 1000  # `pcequi report` writes it again
    print(f"report.html: {size:.0f} kB, opens in any browser")


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="From a folder of files to a classifier.")
    parser.add_argument("--quick", action="store_true", help="fewer files, points and epochs")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="only make the 60 meshes")
    found = parser.parse_args(words)
    if found.make and found.make.exists():
        parser.error(f"argument --make: {found.make} is there already; name a new folder")
    return found


if __name__ == "__main__":
    asked = read_arguments()
    if asked.make:
        make_files(asked.make, 20, seed=0)
        print(f"60 meshes of three classes in {asked.make}")
    else:
        with tempfile.TemporaryDirectory() as place:
            os.environ["PCEQUI_DATASETS"] = place  # leave nothing behind
            main(Path(place), Path(place, "run"), asked.quick)
