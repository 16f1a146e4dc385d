"""``pcequi demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pcequi.cli.common import (
    Cache,
    Device,
    Json,
    Seed,
    Threads,
    Workers,
    print_json,
    show,
)
from pcequi.files import expanded


def demo(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer shapes and epochs: in a minute or so.")
    ] = False,
    run: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/demo"),
    seed: Seed = 0,
    cache: Cache = None,
    workers: Workers = None,
    threads: Threads = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """From raw shapes to a classifier that rotation cannot fool.

    Makes the default set, trains the small network on shapes turned about the
    vertical axis only, and tests it on shapes in any orientation. In full it
    also trains under SO3/SO3. Then it classifies two files and, with Open3D, draws what
    the network sees. Results of an
    earlier demo in the same folder are replaced.
    """
    from pcequi.cli.predict import show_predictions
    from pcequi.cli.train import show_report
    from pcequi.training.checkpoints import load_checkpoint
    from pcequi.training.predict import predict_files
    from pcequi.training.run_settings import RunSettings
    from pcequi.training.runs import train_run
    from pcequi.training.settings import FitSettings
    from pcequi.training.threads import choose_device, set_threads

    set_threads(threads)
    run = expanded(run)
    start, where = time.perf_counter(), choose_device(device)
    fit = FitSettings(epochs=10 if quick else 15, seed=seed)
    limit = 30 if quick else None
    reports = {}
    for protocol, also in (("z/SO3", ("z/z",)), ("SO3/SO3", ()))[: 1 if quick else 2]:
        settings = RunSettings(preset="small", limit=limit, protocol=protocol, also=also, fit=fit)
        reports[protocol] = train_run(
            settings,
            run / protocol.replace("/", "-"),
            cache=cache,
            workers=workers,
            device=where,
            overwrite=True,
        )
    folder = run / "z-SO3"
    files = write_examples(run / "files", seed)
    checkpoint = load_checkpoint(folder)
    predictions = predict_files(checkpoint, files, seed=seed, device=where)
    pictures, reason = draw(run / "pictures", folder, files[0], seed)
    accuracy = {
        name: value for part in reports.values() for name, value in part["accuracy"].items()
    }
    seconds = round(time.perf_counter() - start, 1)
    if json:
        result = {"accuracy": accuracy, "agreement": reports["z/SO3"]["agreement"]}
        result |= {"predictions": predictions, "quick": quick, "seed": seed}
        result |= {"pictures": [str(path) for path in pictures], "no_pictures": reason}
        print_json(result | {"seconds": seconds, "run": str(run), "reports": reports})
        return
    for report in reports.values():
        show_report(report)
    show_predictions(predictions)
    show(
        f"How it went, as a page: {folder / 'report.html'}",
        *(f"What the network sees, as a picture: {path}" for path in pictures),
        *([f"No pictures: {reason}"] if reason else []),
        f"The demo took {seconds:.0f} s. Try your own file: pcequi predict {folder} FILE",
        f"The ways of running it side by side: pcequi evaluate {folder} --mode all --limit 2",
    )


def draw(folder: Path, run: Path, mesh: Path, seed: int) -> tuple[list[Path], str | None]:
    """Pictures of a mesh and a turned copy: what is computed as one, and what
    speaks for the class; and why there are fewer, where they cannot be drawn."""
    import contextlib
    import io

    from pcequi.cli.view import view
    from pcequi.errors import PcequiError

    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for color in ("representative", "evidence"):
        path = folder / f"{mesh.stem}-{color}.png"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                view([mesh], run=run, color=color, rotated=True, save=path, size=420, seed=seed)
        except PcequiError as error:
            return drawn, str(error)
        drawn.append(path)
    return drawn, None


def write_examples(folder: Path, seed: int) -> list[Path]:
    """A mesh (OFF) and a cloud of points (XYZ), new to the network and turned at random."""
    import numpy as np
    import torch

    from pcequi.datasets.meshes import sample_mesh
    from pcequi.datasets.shapes import make_shape
    from pcequi.rotations import random_rotations

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 1])
    generator = torch.Generator().manual_seed(seed)
    turns = random_rotations(2, generator=generator, dtype=torch.float64).numpy()
    mesh, cloud = folder / "chair.off", folder / "cup.xyz"
    vertices, faces = make_shape("chair", rng)
    lines = ["OFF", f"{len(vertices)} {len(faces)} 0"]
    lines += [" ".join(f"{value:.6f}" for value in row) for row in vertices @ turns[0].T]
    lines += ["3 " + " ".join(map(str, row)) for row in faces.tolist()]
    mesh.write_text("\n".join(lines) + "\n")
    points, _ = sample_mesh(*make_shape("cup", rng), 1024, rng)
    np.savetxt(cloud, points @ turns[1].T, fmt="%.6f")
    return [mesh, cloud]
