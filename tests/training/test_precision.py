"""Which precision is trained with, unless it is asked for."""

from contextlib import nullcontext

import pytest
import torch

from pcequi.training.precision import faster_precision, multiplies_bfloat16
from pcequi.training.rows import fast_blocks
from pcequi.training.run_settings import load_run_settings

pytest.importorskip("typer", reason="the commands need it")


@pytest.fixture(params=[True, False])
def multiplied(request, monkeypatch):
    """On a processor that multiplies bfloat16, and on one that does not."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    return request.param


def test_the_faster_one(multiplied, monkeypatch):
    assert multiplies_bfloat16("cpu") == multiplied
    assert faster_precision("cpu") == ("bfloat16" if multiplied else "float32")
    assert (fast_blocks("bfloat16", "cpu") is not None) == multiplied
    assert fast_blocks("float32", "cpu") == torch.float32
    # A GPU is asked itself; other devices are not known.
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(asked.append(device)))
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation
    )
    assert faster_precision("cuda:1") == "bfloat16" and asked == ["cuda:1"]
    assert faster_precision("meta") == "float32"


def test_a_torch_that_cannot_say_is_taken_for_no(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert faster_precision("cpu") == "float32"


@pytest.mark.filterwarnings("default:training as with `--bfloat16`")
@pytest.mark.parametrize("asked", [None, "float32", "bfloat16"])
def test_the_command_takes_it(asked, multiplied, command):
    """What is asked for goes first, with a word where it is slow."""
    options = ["--preset", "tiny", "--num-points", 24, "--limit", 2, "--epochs", 1]
    options += ["--batch-size", 8, "--workers", 1, "--threads", 1, "--run", "runs/one"]
    slow = asked == "bfloat16" and not multiplied
    code, _, err = command("train", *options, *([f"--{asked}"] if asked else []))
    assert code == 0, err
    assert ("several times as long as with `--float32`" in err) == slow
    used = asked or ("bfloat16" if multiplied else "float32")
    assert load_run_settings("runs/one").fit.precision == used
