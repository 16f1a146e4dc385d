"""Reports count right, and the three ways of running are compared fairly."""

import pytest
import torch

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.training.evaluate import (
    agreement,
    classification_report,
    compare_modes,
    evaluate_protocol,
    evaluate_together,
)


def test_a_report_counts():
    logits = torch.eye(3)[[0, 0, 1, 1]]
    report = classification_report(logits, torch.tensor([0, 1, 1, 1]), ["a", "b", "c"])
    assert report["accuracy"] == 0.75 and report["shapes"] == 4
    assert report["per_class"] == {"a": 1.0, "b": pytest.approx(2 / 3), "c": None}
    assert report["mean_class_accuracy"] == pytest.approx(5 / 6)
    assert report["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert agreement(logits, torch.eye(3)[[0, 1, 1, 1]]) == 0.75
    with pytest.raises(DataError, match="label 3 at cloud 0"):
        classification_report(logits, torch.tensor([3, 1, 1, 1]), ["a", "b", "c"])


def test_a_report_takes_logits_of_its_classes_alone():
    labels = torch.tensor([0, 1, 2, 0])
    for shape in ((4, 5), (3, 3), (4, 2)):
        with pytest.raises(ShapeError, match=r"`logits` .* must be of shape \[4, 3\]"):
            classification_report(torch.zeros(shape), labels, ["a", "b", "c"])
    with pytest.raises(DataError, match="`logits` has NaN"):
        classification_report(torch.full((4, 3), torch.nan), labels, ["a", "b", "c"])


def test_protocols_give_the_same_logits(tiny, tmp_path):
    split, model = tiny.tiny_split(train=False), tiny.tiny_model()
    found = {
        name: evaluate_protocol(model, split, name, cache=tmp_path, workers=1, quiet=True)
        for name in ("z/z", "z/SO3")
    }
    report, logits = found["z/SO3"]
    assert report["protocol"] == "z/SO3" and set(report["seconds"]) == {"precompute", "network"}
    # Kernel values are kept in 16 bits.
    assert (logits - found["z/z"][1]).abs().max() < 1e-2


def test_several_networks_answer_with_the_mean_of_their_probabilities(tiny, tmp_path):
    split, options = tiny.tiny_split(train=False), {"workers": 1, "quiet": True}
    models = [tiny.tiny_model(), tiny.tiny_model(seed=1)]
    models[1].head[-1].bias.data += torch.tensor([0.0, 1.0, 2.0])
    alone = [evaluate_protocol(m, split, "z/SO3", cache=tmp_path, **options) for m in models]
    report, logits = evaluate_together(models, split, "z/SO3", cache=tmp_path, **options)
    mean = (alone[0][1].softmax(1) + alone[1][1].softmax(1)) / 2
    torch.testing.assert_close(logits.exp(), mean)
    assert report["alone"] == [one["accuracy"] for one, _ in alone]
    assert report["accuracy"] == float((mean.argmax(1) == split.labels).double().mean())
    assert (alone[0][1] - alone[1][1]).abs().max() > 0.1
    with pytest.raises(ArgumentError, match="`models`"):
        evaluate_together([], split, "z/SO3", **options)
    with pytest.raises(ArgumentError, match="`models`"):
        evaluate_together([tiny.tiny_model(num_classes=5)], split, "z/SO3", **options)


def test_ways_of_running_are_compared_with_dense(tiny):
    split, model = tiny.tiny_split(train=False), tiny.tiny_model()
    table = compare_modes(model, split, budgets=[2, 48], quiet=True)
    assert [(row["mode"], row["budget"]) for row in table] == [
        ("dense", "all"), ("online", 2), ("online", 48), ("precomputed", 2), ("precomputed", 48),
    ]  # fmt: skip
    by_row = {(row["mode"], row["budget"]): row for row in table}
    assert by_row["dense", "all"]["logit_difference"] == 0
    for mode in ("online", "precomputed"):
        # 24 points with 2 frames each: 48 is all of them.
        assert by_row[mode, 48]["logit_difference_relative"] < 1e-5
        assert by_row[mode, 48]["agreement"] == 1
        assert by_row[mode, 2]["logit_difference"] > by_row[mode, 48]["logit_difference"]
        assert by_row[mode, 2]["seconds_per_shape"] > 0
    assert model.levels[0].sampling.num == 8  # the caller's network is as it was


def test_without_dense_there_is_nothing_to_differ_from(tiny):
    table = compare_modes(tiny.tiny_model(), tiny.tiny_split(3), "z/z", ["precomputed"], quiet=True)
    assert [(row["mode"], row["budget"]) for row in table] == [("precomputed", None)]
    assert "logit_difference" not in table[0]


def test_wrong_arguments_are_named(tiny):
    model, split = tiny.tiny_model(), tiny.tiny_split(3)
    with pytest.raises(ArgumentError, match=r"`mode` \(='fast'\)"):
        compare_modes(model, split, modes=["fast"])
    with pytest.raises(ArgumentError, match=r"`budget` \(=0\)"):
        compare_modes(model, split, budgets=[0])
