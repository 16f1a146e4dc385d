"""Figures on the pages are those of the benchmarks' results.

A table here is a list of (page, how the line begins, what follows in it, in this order).
"""

import re
from statistics import mean

import pytest
from published import FIGURES, README, ROOT, percent, percents, power, result
from published_speed import ON_GPU, SPEED, speed, train

from pcequi.networks import network_card, network_names

check, orders = result("check"), result("orders")
sampling, ways = result("sampling-table")["principal"], result("ways-of-running")["table"]
published = result("modelnet40-accuracy")


def runs(preset, versions, kind="shape", protocol="z/SO3"):
    """Published runs of a preset, seed by seed."""
    found = [
        run
        for run in published["runs"]
        if (run["preset"], run["protocol"]) == (preset, protocol)
        and run["settings"]["resamplings"] == versions
        and run["settings"].get("resample_as", "shape") == kind
    ]
    return sorted(found, key=lambda run: run["seed"])


def together(presets, versions):
    found = [
        run
        for run in published["together"]
        if (run["presets"], run["versions"], run["protocol"]) == (presets, versions, "z/SO3")
    ]
    return sorted(found, key=lambda run: run["seed"])


def accuracies(found):
    return [run["accuracy"] for run in found]


def row(begins, found, *more):
    """A line of the table of accuracies: z/z and z/SO3 agree to the last shape."""
    assert all(run["agreement"] in (1.0, {"z/SO3, z/z": 1.0}) for run in found)
    share = percent(mean(accuracies(found)))
    each = percents(accuracies(found)) if len(found) > 1 else ""
    seeds = ", ".join(str(run["seed"]) for run in found)
    return FIGURES, begins, f"| {seeds} |", share, share, each, "| 100 %", *more


def asked(preset, kind="shape"):
    """Networks in ``orders.json`` of a preset and a kind of versions, seed by seed."""
    found = [x for x in orders["rows"] if (x["preset"], x["resample_as"]) == (preset, kind)]
    return sorted(found, key=lambda one: one["seed"])


def team(*kinds):
    """Networks asked together there, of these presets and kinds of versions, seed by seed."""
    kind = {one["network"]: (one["preset"], one["resample_as"]) for one in orders["rows"]}
    found = [
        one for one in orders["together"] if tuple(kind[name] for name in one["networks"]) == kinds
    ]
    return sorted(found, key=lambda one: one["seed"])


def listed(names):
    *most, last = (f"`{name}`" for name in names)
    return f"{', '.join(most)} and {last}" if most else last


def both(begins, found):
    """A line of the table of answers: the first order alone, and the mean."""
    assert found and [one["seed"] for one in found] == list(range(len(found)))
    seeds, figures = ", ".join(str(one["seed"]) for one in found), []
    for way in ("plain", "averaged"):
        figures.append(percent(mean(one[way] for one in found)))
        if len(found) > 1:
            figures.append(percents(one[way] for one in found))
    return FIGURES, begins, f"{seeds} |", *figures


THREE = team(("large", "shape"), ("large", "scan"), ("pairs", "scan"))
ANSWERS = [
    both("| **`large`, `large` like scans and `pairs`** |", THREE),
    both("| `large` and `pairs` |", team(("large", "shape"), ("pairs", "scan"))),
    both(
        "| `default`, `default` like scans and `pairs` |",
        team(("default", "shape"), ("default", "scan"), ("pairs", "scan")),
    ),
    both("| `default` and `pairs` |", team(("default", "shape"), ("pairs", "scan"))),
    both("| `large` and `pairs`, both like scans |", team(("large", "scan"), ("pairs", "scan"))),
    both("| `large` |", asked("large")),
    both("| `large`, like scans |", asked("large", "scan")),
    both("| `default` |", asked("default")),
    both("| `default`, like scans |", asked("default", "scan")),
    both("| `small` |", asked("small")),
    both("| `pairs`, like scans |", asked("pairs", "scan")),
]
BEFORE = "default, 256 / 128", "small, 256 / 128"  # single poses as representatives
LARGE, DEFAULT = runs("large", 7), runs("default", 3)
BEST = together(["large", "modelnet40-pairs"], [[7, "shape"], [3, "scan"]])
BEST += together(["large", "pairs"], [[3, "shape"], [3, "scan"]])
FOR_SCANS = together(["large", "modelnet40-pairs"], [[3, "scan"], [3, "scan"]])
NETWORKS = {
    "modelnet40": DEFAULT[0],
    "modelnet40-large": LARGE[0],
    "modelnet40-large-scan": runs("large", 3, "scan")[0],
    "modelnet40-pairs": runs("pairs", 3, "scan")[0],
    "modelnet40-scan": runs("default", 3, "scan")[0],
    "modelnet40-small": runs("small", 3)[0],
}
SHIPPED = {tuple(one["networks"]): one["accuracy"] for one in result("shipped")["rows"]}

EQUIVARIANCE = [
    (FIGURES, "| rotation and translation, float64", power(check["invariance_float64"])),
    (FIGURES, "| the same on a cube", power(check["invariance_symmetric"])),
    (
        FIGURES,
        "| order of the points, float64",
        power(check["permutation"]),
        power(check["permutation_symmetric"]),
    ),
    (
        FIGURES,
        "| float32, median / worst",
        f"{power(check['invariance_float32'])} / {power(check['invariance_float32_worst'])}",
    ),
    (FIGURES, "| float32, the cube", power(check["invariance_symmetric_float32"])),
    (FIGURES, "| world-fixed grid of frames, elements", power(check["finite_group_error"])),
    (
        FIGURES,
        f"| world-fixed grids of {' / '.join(check['grid_error'])}",
        " / ".join(f"{error:.2f}" for error in check["grid_error"].values()),
    ),
    (FIGURES, "| all poses as representatives, against", power(check["dense_agreement"])),
    (README, "| change of the logits", "32 clouds", power(check["invariance_float64"])),
    (
        README,
        "| the same in float32",
        f"{power(check['invariance_float32'])} / {power(check['invariance_float32_worst'])}",
    ),
]

ACCURACY = [
    row("| **`large`**, 2.4 million", LARGE),
    row("| `large`, three versions", runs("large", 3)),
    row("| `large`, versions like scans", runs("large", 3, "scan")),
    row("| `large` and `pairs`, both like scans, together", FOR_SCANS),
    row(
        "| `default`, 0.8 million",
        DEFAULT,
    ),
    row(
        "| `default` of before",
        runs(BEFORE[0], 3),
        percent(mean(accuracies(runs(BEFORE[0], 3, protocol="SO3/SO3")))),
        percents(accuracies(runs(BEFORE[0], 3, protocol="SO3/SO3"))),
    ),
    row("| **`pairs`**, 1.4 million", runs("pairs", 3, "scan")),
    row(
        "| `pairs`, versions as the others",
        runs("pairs", 3),
        percent(mean(accuracies(runs("pairs", 3, protocol="SO3/SO3")))),
    ),
    row("| `small`, 0.4 million", runs("small", 3)),
    row("| `small` of before (fifteen", runs(BEFORE[1], 15)),
    row("| `small` of before, three", runs(BEFORE[1], 3)),
    row("| **`large` and `pairs` (like scans) together", BEST),
    row(
        "| `large` (seven versions) and `pairs` (as",
        together(["large", "pairs"], [[7, "shape"], [3, "shape"]]),
    ),
    *(
        (page, f"| {listed(names)} |", percent(accuracy))
        for names, accuracy in SHIPPED.items()
        for page in ((README, FIGURES) if len(names) > 1 else (FIGURES,))
    ),
    *(
        (
            README,
            f"| [`{name}`]",
            f"{run['parameters'] / 1e6:.1f} million",
            percent(SHIPPED[name,]),
        )
        for name, run in NETWORKS.items()
    ),
    (
        README,
        "| ModelNet40, 1,024 points, z/SO3",
        percent(mean(one["averaged"] for one in THREE)),
        percent(mean(one["averaged"] for one in asked("default"))),
    ),
    (README, "| the same prediction for upright", f"all {DEFAULT[0]['shapes']['test']:,} test"),
]

WAYS = [
    (
        FIGURES,
        f"| {one['mode']} | {one['budget']}",
        percent(one["accuracy"], 1),
        percent(one["agreement"], 0),
        f"{one['seconds_per_shape']:.3f}",
    )
    for one in ways
]

SAMPLING = [
    (
        FIGURES,
        begins,
        *(
            f"{sampling[name][num]['lost']:.2f} ({sampling[name][num]['covering_radius']:.2f})"
            for num in ("64", "256", "1024")
        ),
    )
    for begins, name in (
        ("| spatial FPS", "spatial FPS"),
        ("| random poses", "random poses"),
        ("| FPS in feature space", "FPS"),
        ("| FPS, 3 Lloyd steps, medoid", "FPS, 3 Lloyd steps, medoid"),
        ("| FPS, 3 Lloyd steps, mean", "FPS, 3 Lloyd steps, mean"),
        ("| FPS, 3 Lloyd steps, six blended, m", "FPS, 3 Lloyd steps, six blended, medoid"),
        ("| FPS, 3 Lloyd steps, six blended, r", "FPS, 3 Lloyd steps, six blended, mean"),
        ("| FPS and 2 Lloyd", "FPS and 2 Lloyd steps on 64 random points, medoid"),
    )
]


def short_of_dense(network, *kept, center="medoid"):
    """7.0 ± 0.8: points that so many representatives lose against all poses."""
    rows = result(f"claim-1-{network}")["rows"]
    plain = (one for one in rows if not one.get("bypass"))
    plain = (one for one in plain if one.get("center", "medoid") == center)
    (lost,) = [one["against_most"] for one in plain if one["representatives"] == list(kept)]
    return f"{-lost['points']:.1f} ± {lost['standard_error']:.1f}"


def above_dense(network, *kept):
    """0.1 ± 0.6: points that so many fitted representatives have more than all poses."""
    return short_of_dense(network, *kept, center="mean").removeprefix("-")


CLAIMS = [
    (
        README,
        "| 5 % / a quarter of the poses",
        f"{short_of_dense('trained', 38, 38)} / {short_of_dense('trained', 256, 128)} points",
        "with fitted rows " + short_of_dense("trained", 38, 38, center="mean"),
        f"short trainings, {above_dense('frames', 230, 230)} above",
    ),
    (
        "docs/claims.md",
        "| 1. 5 % of the poses",
        f"fitted to all poses**: {above_dense('frames', 230, 230)} above dense",
        f"default network {short_of_dense('default', 38, 38)}",
        short_of_dense("default", 38, 38, center="mean") + " with rows fitted",
        f"`large` {short_of_dense('large', 72, 72, 32)}",
        f"whole training {short_of_dense('trained', 38, 38)}",
        "fitted " + short_of_dense("trained", 38, 38, center="mean"),
        short_of_dense("trained", 256, 128),
    ),
]


MACHINES = "docs/many-machines.md"


def lasting(ms):
    """A time in its own unit, with two digits."""
    unit, size = next(
        (unit, ms / size)
        for unit, size in (("days", 864e5), ("h", 36e5), ("min", 6e4), ("s", 1e3))
        if ms >= size or unit == "s"
    )
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"


def plan(shapes):
    build, train = (
        shapes * speed["precompute_ms_per_shape"],
        25 * shapes * speed["train_ms_per_shape"],
    )
    return map(lasting, (build, train, build / 512, train / 256))


ELSEWHERE = [
    (MACHINES, "| 10,000 |", *plan(10_000)),
    (MACHINES, "| 100,000 |", *plan(100_000)),
    (MACHINES, "| 1 million |", *plan(1_000_000)),
    (MACHINES, "| 10 million |", *plan(10_000_000)),
    (
        MACHINES,
        "| graphs built",
        f"{1e3 / speed['precompute_ms_per_shape']:.0f} shapes",
        f"{speed['precompute_ms_per_shape']:.1f} ms",
    ),
    (MACHINES, "| training |", f"{1e3 / speed['train_ms_per_shape']:.0f} shapes", train(speed)),
    (MACHINES, "| prediction from graphs", f"{speed['predict_shapes_per_s']:.0f} shapes"),
    (
        FIGURES,
        "([decisions](decisions.md), 27); `default` and `large`",
        *(
            f"{100 * SHIPPED[f'{name}-scan',]:.2f} and {percent(SHIPPED[name,])}"
            for name in ("modelnet40", "modelnet40-large")
        ),
    ),
    (
        FIGURES,
        "clouds ([claim 7](claims.md)). Together with `pairs`",
        percent(SHIPPED["modelnet40-large-scan", "modelnet40-pairs"]),
        f"{100 * SHIPPED['modelnet40-large', 'modelnet40-pairs']:.2f}",
    ),
]


@pytest.mark.parametrize(
    "entry",
    EQUIVARIANCE + ANSWERS + ACCURACY + WAYS + SPEED + ON_GPU + SAMPLING + CLAIMS + ELSEWHERE,
    ids=lambda x: x[1],
)
def test_a_page_says_what_was_measured(entry):
    page, begins, *figures = entry
    lines = [x for x in (ROOT / page).read_text().splitlines() if x.startswith(begins)]
    assert len(lines) == 1, f"{page} has {len(lines)} lines that begin with {begins!r}"
    exact = [rf"(?<![\d.]){re.escape(figure)}(?!\d)" for figure in figures]
    assert re.search(".*?".join(exact), lines[0][len(begins) :]), (
        f"{page} has another figure than benchmarks/results: {figures} should be in {lines[0]!r}"
    )


def test_every_line_of_the_tables_is_looked_at():
    """Those with percents, of the table of accuracies, and its like."""
    tables = ANSWERS + ACCURACY + WAYS + SPEED + ON_GPU + SAMPLING + EQUIVARIANCE
    begins = tuple(entry[1] for entry in tables)
    lines = (ROOT / FIGURES).read_text().splitlines()
    tables = [x for x in lines if re.match(r"\| .*\d", x) and "minutes" not in x]
    hours = ("| `default`, three versions |", "| `large`, seven", "| `small`, three")
    heads = ("| network", "| mode", "| representatives of", "| | AVX2")
    missing = [x for x in tables if not x.startswith((*begins, *hours, *heads))]
    assert not missing


@pytest.mark.parametrize(
    ("name", "page"), [("ablation", "decisions.md"), ("few-shapes", "own-data.md")]
)
def test_a_page_has_the_table_of_a_benchmark(name, page):
    assert "\n\n" + "\n".join(result(name)["table"]) + "\n\n" in (ROOT / "docs" / page).read_text()


@pytest.mark.parametrize("name", network_names())
def test_a_card_has_the_accuracy_of_the_weights_in_the_package(name):
    card, run = network_card(name), NETWORKS[name]
    share = re.search(r"\| accuracy \| ([\d.]+) % z/SO3 ", card).group(1)
    classes = re.search(r"\| mean of the classes \| ([\d.]+) %", card).group(1)
    rows = re.findall(r"^\| \w+ \| (\d+) \| (\d+) % \|", card, re.MULTILINE)
    shapes = [int(number) for number, _ in rows]
    right = [round(int(number) * int(share) / 100) for number, share in rows]
    assert sum(shapes) == run["shapes"]["test"]
    assert share == f"{100 * sum(right) / sum(shapes):.2f}" == f"{100 * SHIPPED[name,]:.2f}"
    each = [one / number for one, number in zip(right, shapes, strict=True)]
    assert classes == f"{100 * mean(each):.2f}"
    (today,) = [one for one in orders["rows"] if one["network"] == name]
    assert share == f"{100 * today['averaged']:.2f}"
    # Rounded weights, and graphs by the code of another day (decisions.md, 29 and 38), which then
    # answered with the first order alone or with the mean.
    assert min(abs(today[way] - run["accuracy"]) for way in ("plain", "averaged")) < 0.002
