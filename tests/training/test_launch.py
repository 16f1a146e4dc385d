"""Two processes end where one does: the same batches, draws, norms and weights.

They are launched once, do all that ``together.py`` says, and save what they
found; each test compares a part of it with one process.
"""

import importlib.util
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from pcequi import graph_store
from pcequi.errors import ArgumentError, FileError, MissingPackageError
from pcequi.notices import OF_PYG
from pcequi.ranks import ALONE, Ranks, granted_cores, local_cores
from pcequi.training import FitSettings, fit
from pcequi.training.launch import launched
from pcequi.training.sync_norm import synchronized_norms
from pcequi.training.threads import set_threads

_HERE = Path(__file__).parent
# Rounding of sums in another order, after some steps of training.
CLOSE = {"everything": 1e-12, "plain": 1e-12, "float32": 1e-3, "bfloat16": 3e-2}
# A linear layer and a batch norm follow this bias, and the norm takes out whatever it adds: its
# gradient is rounding alone, which Adam divides by its own size. The logits do not see it.
FREE = ("lift.layers.0.bias", "lift.layers.2.running_mean")


@pytest.fixture(scope="module")
def together():
    spec = importlib.util.spec_from_file_location("together", _HERE / "together.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def launch(script, *arguments, processes=2, **env):
    """Run a script as torchrun does; fails with what was said on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
         str(processes), script, *arguments],
        capture_output=True, text=True, timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
                          "PYTHONWARNINGS": f"ignore:{OF_PYG[0]}"} | env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def job(together, tmp_path_factory):
    """What each of two launched processes found, the folder, and one process's store."""
    pytest.importorskip("lightning_fabric")
    folder = tmp_path_factory.mktemp("together")
    done = launch(_HERE / "together.py", folder)
    found = [torch.load(folder / f"found{rank}.pt") for rank in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_store, "CHUNK", 2)
        yield found, folder, together.built(folder / "graphs", ALONE)[0], done


@pytest.fixture(scope="module")
def found(job):
    return job[0]


def difference(one, other):
    """Largest change of a tensor, relative to its largest value, over a dictionary of them."""
    assert one.keys() == other.keys()
    changes = {}
    for name, value in one.items():
        size = value.double().abs().max().clamp_min(1e-3)
        changes[name] = float((value.double() - other[name].double()).abs().max() / size)
    return max(changes.values())


def felt(case):
    """The weights and statistics on which the logits depend."""
    return {name: value for name, value in case["weights"].items() if name not in FREE}


def without_seconds(history):
    return [{k: v for k, v in metrics.items() if k != "seconds"} for metrics in history]


@pytest.mark.parametrize("case", CLOSE)
def test_weights_are_those_of_one_process(job, together, case):
    found, _, store, _ = job
    alone = together.train(case, store, together.tiny.tiny_split(together.NUM).labels)
    for own in found:
        assert difference(felt(alone), felt(own[case])) < CLOSE[case]
        assert torch.allclose(own[case]["logits"], alone["logits"], atol=max(CLOSE[case], 1e-6))
        for metrics, same in zip(own[case]["history"], alone["history"], strict=True):
            assert metrics["loss"] == pytest.approx(same["loss"], rel=max(CLOSE[case], 1e-6))
            assert metrics["lr"] == same["lr"] and metrics["epoch"] == same["epoch"]
            if case != "bfloat16":
                assert metrics["accuracy"] == same["accuracy"]
                assert metrics["val_accuracy"] == same["val_accuracy"]


def test_the_comparison_would_notice_another_batch_draw_or_share(job, together, monkeypatch):
    """What the launched processes get right is not right by accident."""
    found, _, store, _ = job
    labels = together.tiny.tiny_split(together.NUM).labels
    for change in ({"seed": 4}, {"mixup": 0.0}, {"clip": 0.1}, {"batch_size": 5}):
        settings = FitSettings(**{**vars(together.FULL), **change})
        monkeypatch.setitem(together.CASES, "changed", (settings, torch.float64))
        other = together.train("changed", store, labels)
        assert difference(felt(other), felt(found[0]["everything"])) > 1e-6, change


def test_both_processes_hold_the_same_to_the_bit(found):
    one, other = found
    for case in CLOSE:
        assert difference(one[case]["weights"], other[case]["weights"]) == 0
        assert torch.equal(one[case]["logits"], other[case]["logits"])
        assert without_seconds(one[case]["history"]) == without_seconds(other[case]["history"])
        # One cloud for two processes: one of them has none to predict.
        assert torch.allclose(one[case]["few"], one[case]["logits"][2:3], atol=1e-5)


def test_ranks_and_devices(found):
    assert [own["place"] for own in found] == [(0, 2, "cpu"), (1, 2, "cpu")]


def test_the_first_process_writes_the_files_and_one_goes_on_from_them(job, together):
    found, folder, store, _ = job
    assert found[0]["files"] == ["metrics.jsonl", "state.safetensors"]
    labels = together.tiny.tiny_split(together.NUM).labels
    # One process reads what two wrote, and finds nothing left to do.
    again = together.train("everything", store, labels, folder / "run", resume=True)
    assert difference(again["weights"], found[0]["everything"]["weights"]) == 0
    assert again["history"] == found[0]["everything"]["history"]


def test_all_processes_take_up_the_state_of_one(found):
    for own in found:  # begun by one process, see ``together.main``
        assert difference(felt(own["everything"]), felt(own["resumed"])) < 1e-12
        assert [metrics["epoch"] for metrics in own["resumed"]["history"]] == [1, 2]
        assert own["begun"] == 1


def test_statistics_are_measured_over_the_clouds_of_all(job, together):
    found, _, store, _ = job
    alone = together.refreshed(store)
    for own in found:
        assert difference(alone, own["refreshed"]) < 1e-12


def test_a_norm_sees_the_rows_of_all_and_loses_no_digits_to_a_large_mean(found, together):
    alone = together.normalized()
    for own in found:
        for name in ("out", "x", "weights"):
            assert torch.allclose(own["normalized"][name], alone[name], rtol=1e-9, atol=1e-12)
        assert difference(alone["state"], own["normalized"]["state"]) < 1e-12


def test_norms_come_back_and_keep_their_names(tiny):
    class Two(Ranks):
        size = 2

    model = tiny.tiny_model()
    modules, names = list(model.modules()), list(model.state_dict())
    parameters = list(model.parameters())
    with synchronized_norms(model, Two()):
        assert list(model.state_dict()) == names
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
        kinds = [type(m).__name__ for m in model.modules() if hasattr(m, "running_mean")]
        assert kinds == ["SyncNorm"] * (len(kinds) - 1) + ["BatchNorm1d"]  # the head's
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))


def test_chunks_are_made_once_and_nothing_is_said(job):
    found, folder, _, done = job
    made = [own["made"] for own in found]
    (store,) = (folder / "graphs").iterdir()
    chunks = sorted(path.name for path in store.glob("chunk-*"))
    assert len(chunks) == 9 and sorted(made[0] + made[1]) == chunks
    assert made[0] and made[1]
    assert [own["said"] for own in found] == [[], []]
    assert found[0]["steps"][-1] == (17, 17)
    assert {path.suffix for path in store.iterdir()} == {".safetensors", ".json"}
    assert not re.search(r"\wWarning:", done.stderr)  # gloo's own may be about the host's name


def test_a_share_that_nobody_makes_is_made_by_the_others(tiny, tmp_path, monkeypatch):
    class Second(Ranks):
        rank, size = 1, 2

    monkeypatch.setattr(graph_store, "CHUNK", 2)
    monkeypatch.setattr(graph_store, "PATIENCE", 0.1)
    clouds, levels = tiny.tiny_split(9).clouds, tiny.tiny_levels()
    # The first process writes the settings, and is not there.
    with pytest.raises(FileError, match=r"lacks 1 files .*store.json.*that all machines share"):
        graph_store.GraphStore.build(tmp_path, clouds, levels, workers=1, ranks=Second())
    (store,) = tmp_path.iterdir()
    assert len(list(store.glob("chunk-*"))) == 5


def test_a_batch_must_have_a_cloud_for_each_process(tiny, split, store):
    class Five(Ranks):
        size = 5

    with pytest.raises(ArgumentError, match=r"`batch_size` \(=4\) makes .* 4 clouds for 5 proc"):
        fit(tiny.tiny_model(), store, split.labels, FitSettings(1, 4), quiet=True, ranks=Five())


def test_states_that_differ_are_refused(tiny, split, store, tmp_path):
    class Apart(Ranks):
        """The other process has done three epochs."""

        size = 2

        def gather(self, x, even=False):
            return torch.cat([x, x + 3])

    with pytest.raises(
        FileError, match=r"0 epochs for process 0, and \[0, 3\].*all machines share"
    ):
        fit(
            tiny.tiny_model(), store, split.labels, folder=tmp_path / "run", resume=True,
            quiet=True, ranks=Apart(),
        )  # fmt: skip


def test_one_process_needs_no_launcher_and_no_fabric(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched("cpu") as (ranks, device):
        assert ranks is ALONE and str(device) == "cpu"


@pytest.fixture
def as_launched(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # which would say how many threads
    return monkeypatch


def test_processes_of_a_machine_share_the_cores_that_they_may_use(as_launched):
    as_launched.setattr("os.sched_getaffinity", lambda pid: set(range(5)), raising=False)
    as_launched.setattr("os.cpu_count", lambda: 64)
    before = torch.get_num_threads()
    try:
        assert local_cores() == set_threads() == torch.get_num_threads() == 2
    finally:
        set_threads(before)
    as_launched.setenv("LOCAL_WORLD_SIZE", "9")
    assert local_cores() == 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu.max": "nonsense"}, 64),
        ({}, 64),
    ],
)
def test_a_container_has_the_cores_that_it_may_take(files, cores, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert min(64, granted_cores(tmp_path)) == cores


def test_several_without_fabric_are_told_what_to_install(as_launched):
    as_launched.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(MissingPackageError, match=r"2 processes .*\[distributed\]"):
        with launched("cpu"):
            pass


def test_what_cannot_work_is_named(as_launched):
    pytest.importorskip("lightning_fabric")
    with pytest.raises(ArgumentError, match=r"`timeout` \(=0\)"), launched("cpu", timeout=0):
        pass
    as_launched.setattr(torch.cuda, "is_available", lambda: True)
    as_launched.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ArgumentError, match=r"`device` \(='cuda:0'\)"), launched("cuda:0"):
        pass
    with pytest.raises(ArgumentError, match=r"`device` \(='auto'\) has 1 GPUs for 2 proc"):
        with launched():
            pass
    as_launched.setenv("LT_PRECISION", "bf16-mixed")
    with pytest.raises(ArgumentError, match=r"`--precision` \(='bf16-mixed'\) of `fabric run`"):
        with launched("cpu"):
            pass
    as_launched.setenv("WORLD_SIZE", "3")
    with pytest.raises(ArgumentError, match=r"`WORLD_SIZE` \(=3\) must be a multiple"):
        with launched("cpu"):
            pass
    as_launched.setenv("WORLD_SIZE", "x")
    with pytest.raises(ArgumentError, match=r"`WORLD_SIZE` \(='x', in the environment\)"):
        with launched("cpu"):
            pass


def test_warnings_of_all_processes_are_said_once():
    for rank in (0, 1):
        ranks = Ranks()
        ranks.rank = rank
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with ranks.first_warns():
                warnings.warn("copies", stacklevel=1)
            warnings.warn("later", stacklevel=1)
        assert [str(one.message) for one in caught] == ["copies", "later"][rank:]
