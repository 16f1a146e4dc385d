"""After few steps, the batch norms know the weights that there are."""

import copy

import torch

from pcequi.training import FitSettings, fit
from pcequi.training.norms import refresh_norms
from pcequi.training.schedule import epoch_batches, number_of_batches


def first_norm(model):
    return next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d))


def test_averages_are_those_of_the_clouds(tiny, store):
    model = tiny.tiny_model().eval()
    norm = first_norm(model)
    refresh_norms(model, store, [torch.arange(len(store))])
    assert norm.momentum == 0.1 and not norm.training and not model.training
    seen = []
    hook = norm.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    with torch.no_grad():
        model(store.batch(range(len(store))))
    hook.remove()
    assert torch.allclose(norm.running_mean, seen[0].mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, seen[0].var(0), rtol=1e-4, atol=1e-7)


def test_a_second_time_changes_nothing_and_weights_stay(tiny, store):
    model = tiny.tiny_model().train()
    weights = copy.deepcopy(dict(model.named_parameters()))
    batches = list(torch.arange(len(store)).split(6))
    refresh_norms(model, store, batches)
    once = copy.deepcopy(model.state_dict())
    refresh_norms(model, store, batches)
    assert all(torch.equal(value, once[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())
    assert model.training


def test_a_short_training_ends_with_them(tiny, split, store):
    model = tiny.tiny_model()
    fit(model, store, split.labels, FitSettings(epochs=2, batch_size=6), quiet=True)
    kept = copy.deepcopy(model.state_dict())
    # Over batches at random: in the order of the classes a batch would see one of them.
    rows = torch.arange(len(store))
    refresh_norms(model, store, epoch_batches(rows, number_of_batches(len(rows), 6), 0, 1))
    assert all(torch.allclose(value, kept[name]) for name, value in model.state_dict().items())
