"""The benchmark measures what it says."""

import copy
import json
import time
from dataclasses import replace

import pytest
import torch
from torch_geometric.nn import EdgeConv

from pcequi.bench import EXPLANATIONS, GPU_EXPLANATIONS, bench_figures, gpu_figures, memory_mib
from pcequi.bench.dgcnn import DGCNN
from pcequi.bench.figures import MEMORY, with_rotations
from pcequi.bench.measure import interleaved, peak_bytes, summary
from pcequi.bench.steps import against_dense, against_others
from pcequi.cli import main
from pcequi.models import preset
from pcequi.training.precision import multiplies_bfloat16


def test_functions_take_turns_and_warm_ups_are_not_counted():
    order = []
    timing = interleaved(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warmup=2
    )
    assert order == ["a", "b"] * 5
    assert {name: len(values) for name, values in timing.items()} == {"a": 3, "b": 3}


def test_what_sleeps_longer_takes_longer():
    timing = interleaved({"a": lambda: time.sleep(0.03), "b": lambda: None}, rounds=2)
    assert summary(timing["a"])["least"] >= 0.03 > summary(timing["b"])["median"]


def test_summary_is_median_and_range():
    assert summary([3.0, 1.0, 8.0], scale=2) == {
        "median": 6.0,
        "least": 2.0,
        "largest": 16.0,
        "rounds": 3,
    }


def test_peak_memory_sees_what_is_freed_before_the_call_returns():
    def hold():
        block = torch.ones(16 * 2**20)  # 64 MiB
        time.sleep(0.05)
        return float(block.sum())

    peak = peak_bytes(hold)
    if peak is None:
        pytest.skip("this system does not tell a process's resident memory")
    assert 60 * 2**20 < peak < 120 * 2**20


def test_dgcnn_does_not_see_the_order_of_points_but_sees_rotation():
    torch.manual_seed(0)
    model = DGCNN(5, num_neighbors=8).double().eval()
    pos = torch.randn(2, 40, 3, dtype=torch.float64)
    logits = model(pos)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(model(pos[:, torch.randperm(40)]), logits)
    assert not torch.allclose(model(pos[:, :, [1, 2, 0]]), logits, rtol=1e-3)


def test_dgcnn_is_that_of_the_layers_of_pyg_in_value_and_gradient(check_alike):
    torch.manual_seed(0)
    model = DGCNN(5, num_neighbors=6).double().eval()  # without dropout
    plain = copy.deepcopy(model)
    for number, conv in enumerate(plain.convs):
        plain.convs[number] = EdgeConv(conv.nn, aggr="max")  # draws its weights anew
    plain.load_state_dict(model.state_dict())
    pos = torch.randn(3, 30, 3, dtype=torch.float64)
    check_alike(model, plain, pos)


@pytest.mark.parametrize(("rotations", "count"), [("O", 24), (8, 8)])
def test_only_the_rotations_change(rotations, count):
    levels = preset("default")["levels"]
    for old, new in zip(levels, with_rotations(levels, rotations), strict=True):
        assert new.sampling == replace(old.sampling, orbits=False) and new.radius == old.radius
    first = with_rotations(levels, rotations)[0]
    assert len(first.poses.grid()) == count


@pytest.mark.slow
def test_all_figures_are_there_and_positive():
    figures = bench_figures("small", quick=True, workers=1)
    assert all(figures[name] is None or figures[name] > 0 for name in EXPLANATIONS)
    assert figures["dense_24_memory_ratio"] > 1 and figures["dgcnn_time_ratio"] > 1
    assert figures["pointnet2_time_ratio"] > figures["pointnet2_ready_time_ratio"] / 2 > 0.5
    casts = multiplies_bfloat16("cpu")
    for name in ("train", *(["train_bfloat16"] if casts else []), "predict"):
        assert 0 < figures[f"{name}_share_of_floor"] < 1.2
    absent = {name for name in EXPLANATIONS if figures[name] is None}
    assert absent == {n for n in EXPLANATIONS if "_64" in n or ("bfloat16" in n and not casts)}
    steps = {step for steps in MEMORY.values() for step in steps if "64" not in step}
    steps = {step for step in steps if casts or "bfloat16" not in step}
    assert steps == set(figures["memory_mib"])
    assert all(peak is None or peak >= 0 for peak in figures["memory_mib"].values())


@pytest.fixture
def figures(monkeypatch):
    """Figures that are made up, in place of those of this machine."""
    found = {name: number + 0.5 for number, name in enumerate(EXPLANATIONS)}
    found |= {name: None for name in EXPLANATIONS if name.startswith("dense_64")}
    peaks = {step: 3.0 * len(step) for steps in MEMORY.values() for step in steps}
    found |= {"memory_mib": peaks, "rounds": {}, "floors": {}, "preset": "default"}
    monkeypatch.setattr("pcequi.bench.bench_figures", lambda *args, **rest: found)
    return found


def test_every_figure_is_printed_with_the_memory_behind_it(figures, capsys):
    with pytest.raises(SystemExit, match="^0$"):
        main(["bench", "--quick"])
    text = capsys.readouterr().out
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert set(EXPLANATIONS) <= set(rows)
    for name in ("pointnet2_time_ratio", "pointnet2_ms_per_shape", "train_floor_ms_per_shape"):
        assert f"{figures[name]:.3g}" in rows[name]
    assert " 12 / 27 " in rows["pointnet2_memory_ratio"] and " 15 " in rows["train_ms_per_shape"]


def test_every_figure_is_in_the_json(figures, capsys):
    with pytest.raises(SystemExit, match="^0$"):
        main(["bench", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert set(EXPLANATIONS) | {"memory_mib", "rounds", "floors", "threads"} <= set(found)
    assert found["memory_mib"]["pointnet2"] == 27


def test_memory_is_that_of_both_sides_of_a_ratio():
    peaks = {"dense_compressed_bfloat16": 2.0, "dense": 30.0, "dense_bfloat16": 20.0, "train": None}
    found = {"memory_mib": peaks}
    assert memory_mib(found, "dense_bfloat16_memory_ratio") == [2.0, 20.0]
    for name in ("train_ms_per_shape", "dgcnn_memory_ratio", "copy_gb_per_s"):
        assert memory_mib(found, name) is None  # not told, not measured, none of it


def test_casts_are_left_out_where_they_are_emulated(make_blob):
    levels, clouds = preset("small")["levels"], [make_blob(200).float()] * 2
    timing, peaks = against_dense("dense", levels, clouds, [8, 8, 8], 1, casts=False)
    assert list(timing) == list(peaks) == ["dense_compressed", "dense"]


def test_steps_take_turns_and_leave_their_memory(make_blob):
    levels = preset("small")["levels"]
    timing, peaks = against_others(levels, [make_blob(600).float()] * 2, [8, 8, 8], 2)
    assert list(timing) == list(peaks) == ["ours", "dgcnn", "pointnet2", "pointnet2_ready"]
    assert all(len(seconds) == 2 for seconds in timing.values())
    assert None in peaks.values() or peaks["dgcnn"] > peaks["ours"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_all_figures_of_a_gpu_are_there_and_positive():
    figures = gpu_figures("small", rounds=2)
    assert all(figures[name] is None or figures[name] > 0 for name in GPU_EXPLANATIONS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(capsys):
    with pytest.raises(SystemExit, match="^1$"):
        main(["bench", "--device", "cuda"])
    assert "`device` (='cuda')" in capsys.readouterr().err
