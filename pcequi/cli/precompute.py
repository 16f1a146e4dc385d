"""``pcequi precompute``."""

from __future__ import annotations

from typing import Annotated

import typer

from pcequi.cli.common import (
    Cache,
    Data,
    Json,
    Limit,
    NumPoints,
    Preset,
    Root,
    Seed,
    Source,
    TestList,
    TestShare,
    Timeout,
    Workers,
    print_json,
    show,
    table,
    text,
)


def precompute(
    data: Data = "shapes",
    source: Source = None,
    root: Root = None,
    test_share: TestShare = 0.2,
    test_list: TestList = None,
    protocol: Annotated[
        str, typer.Option(help="Rotations of training and test: z/z, z/SO3 or SO3/SO3.")
    ] = "z/SO3",
    preset: Preset = "default",
    num_points: NumPoints = 1024,
    limit: Limit = None,
    seed: Seed = 0,
    cache: Cache = None,
    workers: Workers = None,
    timeout: Timeout = 30.0,
    json: Json = False,
) -> None:
    """Build the pose graphs of a data set, or finish what was begun.

    `pcequi train` and `pcequi evaluate` with the same settings find them in the
    cache. An interrupted precomputation goes on where it stopped. Processes started
    together by torchrun or fabric run share the work, in a folder that all can see.
    """
    import time

    from pcequi.models import preset as preset_settings
    from pcequi.training import splits
    from pcequi.training.launch import launched
    from pcequi.training.progress import progress_bar
    from pcequi.training.protocols import parse_protocol

    kinds, levels = parse_protocol(protocol), preset_settings(preset)["levels"]

    def build(train: bool, kind: str, ranks) -> dict:
        with ranks.first_goes_first():
            split = splits.load_split(
                data,
                train,
                root=text(root),
                source=text(source),
                num_points=num_points,
                limit=limit,
                test_share=test_share,
                test_list=test_list,
            )
        name, start = "train" if train else "test", time.perf_counter()
        title = f"precomputing {len(split)} {name} clouds, {kind}"
        with progress_bar(title, quiet=not ranks.first) as bar:
            store = splits.precompute(
                split,
                levels,
                kind,
                seed=seed,
                cache=cache,
                workers=workers,
                progress=bar,
                ranks=ranks,
            )
        return {
            "split": name,
            "rotations": kind,
            "clouds": len(store),
            "seconds": round(time.perf_counter() - start, 2),
            "bytes": sum(chunk.path.stat().st_size for chunk in store.chunks),
            "folder": str(store.folder),
        }

    halves = ((True, kinds.train), (False, kinds.test))
    # Graphs are built on CPUs, whatever else there is.
    with launched("cpu", 60 * timeout) as (ranks, _):
        stores = [build(train, kind, ranks) for train, kind in halves]
    if not ranks.first:
        return
    if json:
        print_json({"data": data, "protocol": protocol, "seed": seed, "stores": stores})
        return
    rows = table(f"{data}, preset {preset}", "split", "rotations", "clouds", "s", "MB", "folder")
    for store in stores:
        rows.add_row(
            store["split"],
            store["rotations"],
            str(store["clouds"]),
            f"{store['seconds']:.1f}",
            f"{store['bytes'] / 1e6:.1f}",
            store["folder"],
        )
    show(rows)
