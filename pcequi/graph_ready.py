"""From what is kept of graphs to a batch on which a network runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcequi.errors import DataError
from pcequi.graph_build import build_stored_graph
from pcequi.ops import Characters, dense_blocks, row_pointer, turned_rows
from pcequi.pose_graph import (
    TENSORS,
    Level,
    LevelGraph,
    PoseGraph,
    block_characters,
    stored_turns,
)

__all__ = ["ready_batch", "ready_graphs"]

#: Representatives of a batch from which weights are taken apart as rows of A are
#: (``ops.twofold_product``; ``docs/decisions.md``, 41): that costs as much for one cloud as for
#: all.
TWOFOLD_POSES = 1024


def ready_graphs(
    clouds: Sequence[Tensor],
    levels: Sequence[Level],
    blocks: torch.dtype | None = None,
    least_fill: float = 0.0,
    twofold: bool = False,
) -> PoseGraph:
    """The graphs of some clouds in single precision as one, as ``GraphStore.batch`` gives them,
    without the 16 bits of a store: for predictions, which want no rows but those of the first pose
    of each point.

    Args:
        clouds: points of each [N, 3].
        levels: of the network.
        blocks, least_fill, twofold: as ``GraphStore.batch`` takes them.

    Raises:
        ShapeError, DataError: a cloud is unusable.

    **Equivariance:** as ``build_pose_graph``.
    """
    graphs, kept = [build_stored_graph(pos, levels).levels for pos in clouds], []
    for parts in zip(*graphs, strict=True):
        names = (name for name in TENSORS if getattr(parts[0], name) is not None)
        kept.append({name: torch.cat([getattr(part, name) for part in parts]) for name in names})
    return ready_batch(
        kept, levels, stored_turns(levels), block_characters(levels), blocks, least_fill, twofold
    )


def ready_batch(
    kept: Sequence[dict[str, Tensor]],
    levels: Sequence[Level],
    turns: Sequence[tuple[Tensor, Tensor] | None],
    characters: Sequence[Characters | None],
    blocks: torch.dtype | None = None,
    least_fill: float = 0.0,
    twofold: bool = False,
) -> PoseGraph:
    """The graphs of some clouds as one, from what is kept of each level.

    Args:
        kept: tensors by their names in ``LevelGraph``, of all clouds one after the other.
        levels: of which the graphs were made.
        turns, characters: ``stored_turns`` and ``block_characters`` of these.
        blocks, least_fill, twofold: as ``GraphStore.batch`` takes them.

    Raises:
        DataError: rows that do not fit their entries.

    **Equivariance:** as the graphs.
    """
    made: list[LevelGraph] = []
    dense = blocks is not None and all(len(values["count"].unique()) == 1 for values in kept)
    for level, values, turn, character in zip(levels, kept, turns, characters, strict=True):
        basis = level.basis if "entries" in values else 0
        filled = basis and dense and _fill(values, made[-1], character) >= least_fill
        if turn is not None and not (filled and character is not None):
            values = values | _all_rows(values, *turn)
        if filled:
            values = _with_blocks(values, made[-1], character, basis, blocks, twofold)
        made.append(LevelGraph(basis=basis, **values))
    return PoseGraph(made)


def _all_rows(values: dict[str, Tensor], turns: Tensor, products: Tensor) -> dict:
    """The rows of all poses from those of the first pose of each point."""
    count = values["entries"].long()
    ptr = row_pointer(count)
    # Rows are copied by these numbers: wrong ones would write beyond the end.
    fits = len(count) % turns.shape[1] == 0 and int(ptr[-1]) == len(values["col"])
    if not fits or any(bool((part < 0).any()) for part in (count, values["col"])):
        raise _damaged()
    ptr, col, val = turned_rows(ptr, values["col"], values["val"], turns, products)
    return {"entries": (ptr[1:] - ptr[:-1]).to(torch.int32), "col": col, "val": val}


def _with_blocks(values: dict, below: LevelGraph, characters, basis, dtype, twofold) -> dict:
    """A of some clouds as dense blocks in place of its entries."""
    values = dict(values)
    entries, col, clouds = values.pop("entries"), values.pop("col"), len(values["count"])
    each, seen = int(values["count"][0]), int(below.count[0])
    size = 1 if characters is None else characters.size
    if twofold and characters is not None and dtype == torch.float32:
        characters = characters.twofold if clouds * each >= TWOFOLD_POSES else characters
    fits = len(entries) == clouds * (each // size) * basis and int(entries.sum()) == len(col)
    fits = fits and each % size == seen % size == 0 and not bool((entries < 0).any())
    # Blocks are filled by these numbers: wrong ones would write elsewhere.
    if not fits or (len(col) and not 0 <= int(col.min()) <= int(col.max()) < seen):
        raise _damaged()
    made = dense_blocks(entries, col, values.pop("val"), clouds, seen, dtype, characters)
    return {**values, "blocks": made, "characters": characters, "each": each}


def _damaged() -> DataError:
    return DataError("rows do not fit its entries")


def _fill(values: dict[str, Tensor], below: LevelGraph, characters) -> float:
    """Entries of A for each cell of its blocks, of all clouds the same size."""
    size = 1 if characters is None else characters.size
    return size * len(values["col"]) / max(1, len(values["entries"]) * int(below.count[0]))
