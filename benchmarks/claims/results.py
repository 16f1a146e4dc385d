"""What a claim leaves: figures as JSON, a plot, and its table on the page of the claims."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import matplotlib
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import RESULTS, circumstances

matplotlib.use("Agg")
from matplotlib import pyplot

DOCS = Path(__file__).parents[2] / "docs"
COLORS = ("#2563a8", "#b5261e", "#3b7d3a", "#8a5a00", "#6b3fa0", "#4d4d4d")
TIMES = "CPU seconds of one thread (time.process_time) of a machine shared with others"


def summary(hits: list[Tensor]) -> dict:
    """Accuracy in percent: mean over seeds, standard error from the test shapes, each seed."""
    mean = torch.stack(hits).mean(0)
    return {
        "accuracy": 100 * float(mean.mean()),
        "standard_error": 100 * float(mean.std() / len(mean) ** 0.5),
        "seeds": [100 * float(one.mean()) for one in hits],
    }


def difference(hits: list[Tensor], reference: list[Tensor]) -> dict:
    """Points gained on a reference, shape by shape and seed by seed, and its standard error."""
    gain = (torch.stack(hits) - torch.stack(reference)).mean(0)
    return {
        "points": 100 * float(gain.mean()),
        "standard_error": 100 * float(gain.std() / len(gain) ** 0.5),
    }


def percent(found: dict) -> str:
    """What ``summary`` found, for a table."""
    return f"{found['accuracy']:.1f} ± {found['standard_error']:.1f}"


def points(found: dict) -> str:
    """What ``difference`` found, for a table."""
    return f"{found['points']:+.1f} ± {found['standard_error']:.1f}"


def table(head: list[str], rows: list[list]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def axes(columns: int = 1, width: float = 5.4, height: float = 3.3):
    """A figure and its axes, in the style of the documentation."""
    figure, found = pyplot.subplots(
        1, columns, figsize=(width, height), layout="constrained", squeeze=False
    )
    for one in found[0]:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
    return figure, list(found[0])


def curve(one, x, found: list[dict], label: str | None = None, color: str = COLORS[0], **style):
    """Accuracies with error bars of one standard error."""
    y, error = [f["accuracy"] for f in found], [f["standard_error"] for f in found]
    one.errorbar(
        x, y, error, marker="o", markersize=4, capsize=2.5, label=label, color=color, **style
    )


def ticks(one, values, labels=None) -> None:
    """A logarithmic axis that names these values."""
    one.set_xscale("log")
    one.set_xticks(values, [str(label) for label in labels or values], fontsize=8)
    one.minorticks_off()


def against_share(one, shares: list[float], most: float) -> None:
    """Axes of accuracy by share of the poses in percent, with what claim 1 asks for; ``most`` is
    the accuracy with the largest share."""
    label = "0.5 points below " + ("dense" if max(shares) == 100 else "the most")
    one.axhspan(most - 0.5, most, color="#b5261e", alpha=0.15, lw=0, label=label)
    one.axvline(5, color="#4d4d4d", lw=0.8, ls="--", label="5 % of the poses")
    ticks(one, shares, [f"{share:.3g}" for share in shares])
    one.set(xlabel="representatives, % of the poses", ylabel="accuracy, %")
    one.legend(frameon=False, loc="lower right")


def finish(args, name: str, figures: dict, lines: list[str], figure) -> None:
    """Write ``claim-<name>.json`` and ``.png``, and the table into ``docs/claims.md``."""
    results, pictures = (Path(args.out),) * 2 if args.out else (RESULTS, DOCS / "pictures")
    results.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    plot = pictures / f"claim-{name}.png"
    figure.savefig(plot, dpi=100)
    pyplot.close(figure)
    Image.open(plot).convert("RGB").quantize(64).save(plot, optimize=True)  # a third of the bytes
    content = {
        "circumstances": circumstances(),
        "times": TIMES,
        "seeds": args.seeds,
        "quick": args.quick,
        **_rounded(figures),
        "table": lines,
    }
    (results / f"claim-{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    if not args.out:
        put_on_page(name, lines)
    print("\n".join(lines), flush=True)


def kept(args, name: str) -> dict:
    """What an earlier run of a claim left where this one will write."""
    path = (Path(args.out) if args.out else RESULTS) / f"claim-{name}.json"
    if not path.exists():
        raise SystemExit(f"{path} is not there: measure everything once, without `--only`")
    return json.loads(path.read_text())


def put_on_page(name: str, lines: list[str]) -> None:
    """Replace the table that follows the plot of a claim in ``docs/claims.md``."""
    page = DOCS / "claims.md"
    before, plot, after = page.read_text().partition(f"(pictures/claim-{name}.png)\n")
    if plot:
        rest = re.sub(r"\A\s*(\|.*\n)*\s*", "", after)
        page.write_text(before + plot + "\n" + "\n".join(lines) + "\n\n" + rest)


def _rounded(value):
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {str(key): _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
