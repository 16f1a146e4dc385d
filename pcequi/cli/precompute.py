"""``pcequi precompute``."""

from __future__ import annotations

from typing import Annotated

import typer

from pcequi.cli.common import (
    Cache,
    Data,
    DataSeed,
    Json,
    Limit,
    NumPoints,
    Preset,
    ResampleAs,
    Resamplings,
    Root,
    RunSeed,
    Source,
    TestList,
    TestShare,
    Timeout,
    Workers,
    check_split,
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
    resamplings: Resamplings = 0,
    resample_as: ResampleAs = "shape",
    num_points: NumPoints = 1024,
    limit: Limit = None,
    seed: RunSeed = 0,
    data_seed: DataSeed = 0,
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
    from pcequi.training.protocols import parse_protocol
    from pcequi.training.run_settings import RunSettings, load_run_split
    from pcequi.training.settings import FitSettings
    from pcequi.training.versions import precompute_train

    check_split(test_share, test_list)
    settings = RunSettings(
        data=data,
        root=text(root),
        source=text(source),
        num_points=num_points,
        limit=limit,
        data_seed=data_seed,
        protocol=protocol,
        preset=preset,
        test_share=test_share,
        test_list=text(test_list),
        resamplings=resamplings,
        resample_as=resample_as,
        fit=FitSettings(seed=seed),
    )
    kinds, levels = parse_protocol(protocol), preset_settings(preset)["levels"]

    def build(train, test, ranks):
        """Names, rotations and stores, one after the other."""
        options = {"cache": cache, "workers": workers, "ranks": ranks}
        versions = precompute_train(train, levels, settings, **options)
        for number, store in enumerate(versions):
            yield f"train, resampling {number}" if number else "train", kinds.train, store
        options["seed"] = seed
        store = splits.precompute_shown(test, levels, kinds.test, "test clouds", **options)
        yield "test", kinds.test, store

    stores = []
    # Graphs are built on CPUs, whatever else there is.
    with launched("cpu", 60 * timeout) as (ranks, _):
        with ranks.first_goes_first(), ranks.first_warns():
            # A data set that is not unpacked yet is unpacked once.
            train, test = (load_run_split(settings, part) for part in (True, False))
        start = time.perf_counter()
        for name, kind, store in build(train, test, ranks):
            end = time.perf_counter()
            stores.append(
                {
                    "split": name,
                    "rotations": kind,
                    "clouds": len(store),
                    "seconds": round(end - start, 2),
                    "bytes": sum(chunk.path.stat().st_size for chunk in store.chunks),
                    "folder": str(store.folder),
                }
            )
            start = end
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
