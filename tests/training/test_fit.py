"""Training learns, repeats itself, resumes exactly, and names what is wrong."""

import json

import pytest
import torch

from pcequi.errors import ArgumentError, DataError, FileError, PcequiError
from pcequi.training.fit import FitSettings, LazyStore, fit, predict_logits, store_of_epoch
from pcequi.training.rows import prefetch, split_rows
from pcequi.training.schedule import one_cycle

QUICK = FitSettings(epochs=3, batch_size=4, lr=1e-2)


def weights(model):
    return torch.cat([value.double().flatten() for value in model.state_dict().values()])


def test_it_learns_and_writes_metrics(tiny, split, store, tmp_path):
    settings = FitSettings(epochs=40, batch_size=6, lr=1e-2, label_smoothing=0.0)
    model = tiny.tiny_model()
    history = fit(model, store, split.labels, settings, folder=tmp_path / "run", quiet=True)
    assert [metrics["epoch"] for metrics in history] == list(range(1, 41))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    assert set(history[0]) == {"epoch", "loss", "accuracy", "lr", "seconds"}
    assert not model.training
    logits = predict_logits(model, store)
    assert logits.shape == (12, 3)
    assert (logits.argmax(1) == split.labels).float().mean() > 0.8


def test_a_seed_decides_the_outcome_and_leaves_the_global_draw_alone(tiny, split, store):
    found = []
    for seed in (0, 0, 1):
        model = tiny.tiny_model()
        before = torch.get_rng_state()
        fit(model, store, split.labels, FitSettings(2, 4, seed=seed), quiet=True)
        assert torch.equal(before, torch.get_rng_state())
        found.append(weights(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


class Stop(Exception):
    pass


def test_a_resumed_training_ends_where_it_would_have(tiny, split, store, tmp_path):
    whole = tiny.tiny_model()
    expected = fit(whole, store, split.labels, QUICK, folder=tmp_path / "a", quiet=True)

    def interrupt(metrics):
        if metrics["epoch"] == 2:
            raise Stop

    folder = tmp_path / "b"
    with pytest.raises(Stop):
        fit(
            tiny.tiny_model(), store, split.labels, QUICK, folder=folder, quiet=True,
            on_epoch=interrupt,
        )  # fmt: skip
    again = tiny.tiny_model(seed=9)  # its weights do not matter
    history = fit(again, store, split.labels, QUICK, folder=folder, resume=True, quiet=True)
    assert torch.equal(weights(whole), weights(again))
    for one, other in zip(expected, history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3


def test_resume_without_a_state_starts_at_the_beginning(tiny, split, store, tmp_path):
    history = fit(
        tiny.tiny_model(), store, split.labels, QUICK, folder=tmp_path / "new", resume=True,
        quiet=True,
    )  # fmt: skip
    assert len(history) == 3


def test_resume_refuses_other_settings_and_damage(tiny, split, store, tmp_path):
    def go(settings=QUICK, folder=tmp_path / "run", **options):
        return fit(
            tiny.tiny_model(), store, split.labels, settings, folder=folder, quiet=True, **options
        )

    go()
    with pytest.raises(ArgumentError, match=r"`resume` .*other settings.*: lr"):
        go(FitSettings(epochs=3, batch_size=4, lr=1e-3), resume=True)
    with pytest.raises(ArgumentError, match=r"`resume` .*needs a `folder`"):
        go(folder=None, resume=True)
    state = tmp_path / "run" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(FileError, match=r"state.safetensors is damaged .*delete it"):
        go(resume=True)


def test_held_out_clouds_are_measured_and_not_trained(tiny, split, store):
    rows, held = split_rows(split.labels, 0.25)
    assert sorted(split.labels[held].tolist()) == [0, 1, 2]
    assert sorted(rows.tolist() + held.tolist()) == list(range(12))
    history = fit(tiny.tiny_model(), store, split.labels, QUICK, val_rows=held, quiet=True)
    assert 0 <= history[-1]["val_accuracy"] <= 1
    # What is held out has no influence: other labels there change nothing.
    swapped = split.labels.clone()
    swapped[held] = (swapped[held] + 1) % 3
    again = fit(tiny.tiny_model(), store, swapped, QUICK, val_rows=held, quiet=True)
    assert [m["loss"] for m in again] == [m["loss"] for m in history]


def test_each_class_keeps_a_cloud_to_train_on():
    rows, held = split_rows(torch.tensor([0, 0, 1]), 0.9)
    assert set(torch.tensor([0, 0, 1])[rows].tolist()) == {0, 1}
    assert len(held) == 1
    rows, held = split_rows(torch.tensor([0] * 5 + [1] * 2 + [2]), 0.05)
    assert torch.tensor([0] * 5 + [1] * 2 + [2])[held].tolist() == [0, 1]  # one of each that can
    assert not len(split_rows(torch.tensor([0, 0, 1]), 0.0)[1])
    with pytest.raises(ArgumentError, match=r"`val_share` \(=1"):
        split_rows(torch.tensor([0, 1]), 1.0)
    with pytest.raises(ArgumentError, match=r"`val_share` \(=0.5\) holds nothing out"):
        split_rows(torch.tensor([0, 1, 2]), 0.5)


def test_epochs_go_through_the_resamplings(tiny, split, store, tmp_path):
    other = tiny.tiny_split(seed=5)
    second = tiny.tiny_store(tmp_path / "graphs", other)
    model, alone = tiny.tiny_model(), tiny.tiny_model()
    fit(model, [store, second], split.labels, FitSettings(2, 4), quiet=True)
    fit(alone, store, split.labels, FitSettings(2, 4), quiet=True)
    assert not torch.equal(weights(model), weights(alone))


@pytest.mark.parametrize("epochs", [1, 4, 5, 6, 40])
def test_the_last_epoch_reads_the_clouds_themselves(tiny, split, store, tmp_path, epochs):
    turns = [store_of_epoch(epoch, epochs, 3) for epoch in range(epochs)]
    assert turns[::-1] == [0, 2, 1, *turns[::-1][:-3]][:epochs]
    if epochs > 6:
        return
    second = tiny.tiny_store(tmp_path / "graphs", tiny.tiny_split(seed=5))
    read = []
    stores = [
        LazyStore(lambda n=n, s=s: read.append(n) or s) for n, s in enumerate((store, second))
    ]
    fit(tiny.tiny_model(), stores, split.labels, FitSettings(epochs, 4), quiet=True)
    assert read[0] == (epochs + 1) % 2


def test_stores_may_be_made_when_they_are_read(tiny, split, store, tmp_path):
    second = tiny.tiny_store(tmp_path / "graphs", tiny.tiny_split(seed=5))
    made = []

    def make(number):
        made.append(number)
        return (store, second)[number]

    lazy, whole = tiny.tiny_model(), tiny.tiny_model()
    settings = FitSettings(3, 4)
    makers = [LazyStore(lambda n=n: make(n), lambda n=n: made.append(f"done {n}")) for n in (0, 1)]
    fit(lazy, makers, split.labels, settings, on_epoch=lambda _: made.append("epoch"), quiet=True)
    assert made == [0, "epoch", 1, "done 1", "epoch", "epoch"]
    fit(whole, [store, second], split.labels, settings, quiet=True)
    assert torch.equal(weights(lazy), weights(whole))
    with pytest.raises(ArgumentError, match=r"`labels` \(=2\) must be as many as the clouds"):
        fit(lazy, makers, split.labels[:2], settings, quiet=True)


def test_bfloat16_casts_train(tiny, split, store):
    settings = FitSettings(epochs=2, batch_size=6, precision="bfloat16")
    history = fit(tiny.tiny_model(), store, split.labels, settings, quiet=True)
    assert torch.isfinite(torch.tensor(history[-1]["loss"]))


def test_no_batch_is_left_with_one_cloud(tiny, split, store):
    rows = torch.arange(5)  # 4 + 1 would break batch norm
    fit(tiny.tiny_model(), store, split.labels, FitSettings(1, 4), rows=rows, quiet=True)
    fit(tiny.tiny_model(), store, split.labels, FitSettings(1, 2), rows=rows[:3], quiet=True)


def test_wrong_input_is_named(tiny, split, store):
    model = tiny.tiny_model()
    with pytest.raises(DataError, match=r"the label 7 at cloud 0, outside the 3 classes"):
        fit(model, store, split.labels + 7, QUICK, quiet=True)
    with pytest.raises(ArgumentError, match=r"`labels` \(=5\) must be as many as the clouds"):
        fit(model, store, split.labels[:5], QUICK, quiet=True)
    with pytest.raises(DataError, match=r"`rows` \(=1 clouds\)"):
        fit(model, store, split.labels, QUICK, rows=torch.tensor([0]), quiet=True)
    with pytest.raises(PcequiError, match=r"not finite at epoch 1.*lower `lr`"):
        torch.nn.init.constant_(model.head[-1].weight, torch.nan)
        fit(model, store, split.labels, QUICK, quiet=True)
    others = [p for name, p in model.named_parameters() if name != "head.4.weight"]
    assert all(torch.isfinite(p).all() for p in others)  # the step was not taken


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("batch_size", 1), ("lr", 0.0), ("clip", -1.0), ("warmup", 1.0),
        ("label_smoothing", 1.5), ("weight_decay", -0.1), ("precision", "float16"),
    ],
)  # fmt: skip
def test_settings_outside_their_range_are_named(name, value):
    with pytest.raises(ArgumentError, match=f"`{name}`"):
        FitSettings(**{name: value})


def test_the_learning_rate_rises_and_falls():
    rates = [one_cycle(step, 100, 1.0, 0.2) for step in range(101)]
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == rates[20] == 1.0
    assert rates[:21] == sorted(rates[:21]) and rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[100] == pytest.approx(0.0)
    assert one_cycle(0, 10, 1.0, 0.0) == 1.0


def test_prefetch_keeps_the_order_and_passes_errors_on():
    assert list(prefetch(lambda n: n * n, range(7))) == [n * n for n in range(7)]
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda n: 1 // n, [2, 1, 0]))
