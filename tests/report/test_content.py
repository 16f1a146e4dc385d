"""The report holds what it says, escapes what comes from outside, and needs no network."""

import base64
import json
import re
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from pcequi.cli import main
from pcequi.errors import ArgumentError, FileError, ShapeError
from pcequi.report import hardest_shapes, report_data, write_report
from pcequi.report.svg import line_chart, ticks
from pcequi.report.tables import confusion_tables


@pytest.fixture
def page(finished):
    return write_report(finished).read_text()


class Outline(HTMLParser):
    """Tags in order, the address-like attributes, and whether every tag is closed."""

    OPEN = {"meta", "link", "br"}

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.stack, self.text = [], [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v for k, v in attributes if k in ("src", "href", "action", "data")]
        if tag not in self.OPEN:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_it_stands_alone(page):
    outline = Outline(page)
    assert outline.stack == [] and outline.addresses == ["data:,"]
    assert not re.search(r"https?:|[\"'(=]//|@import|url\(|fetch\(|XMLHttp", page)
    assert "default-src 'none'" in page
    assert len(page) < 200_000


def test_all_parts_are_there(page):
    text = Outline(page).text
    for words in (
        "Accuracy", "Curves", "Worst mistakes under z/SO3", "Classes", "Confusion", "Cost",
        "Settings", "scans: 78 % (7 of 9) under z/SO3", "45 % to 94 %", "Wilson (1927)",
        "30 training shapes, 9 test shapes, 3 classes",
        "Same prediction under z/SO3 and z/z: 100 %", "f" * 40, "1,234,567", "12.50 s",
        "100.00 ms", "10.00 ms", "512 MB", "scans/5.ply", "held out",
    ):  # fmt: skip
        assert words in text, words
    outline = Outline(page)
    assert outline.tags.count("svg") == 2 and outline.tags.count("canvas") == 9
    assert outline.tags.count("details") == 2


def test_a_page_does_not_say_where_things_lie(page):
    assert "scans" in page and "somebody" not in page


def test_settings_without_effect_are_left_out(finished):
    def said(**changes):
        path = finished / "report.json"
        report = json.loads(path.read_text())
        report["data"] = changes.get("data", "folder")
        report["settings"] |= changes
        path.write_text(json.dumps(report))
        text = write_report(finished).read_text().partition("<h2>Settings</h2>")[2]
        return [name for name in ("test share", "test list", "resample as") if name in text]

    assert said() == ["test share"]
    assert said(resamplings=2) == ["test share", "resample as"]
    assert said(test_list="list.txt") == ["test list", "resample as"]
    assert said(data="modelnet40", test_list=None, resamplings=0) == []


@pytest.mark.parametrize(("resamplings", "epochs", "made"), [(0, 4, 1), (2, 4, 3), (9, 4, 4)])
def test_a_training_graph_costs_what_all_that_were_made_cost(finished, resamplings, epochs, made):
    path = finished / "report.json"
    report = json.loads(path.read_text())
    report["settings"]["resamplings"], report["epochs"] = resamplings, epochs
    report["seconds"]["precompute_train"] = 3.0
    path.write_text(json.dumps(report))
    cost = report_data(finished)["cost"]["precomputing, a training graph"]
    assert cost[0] == pytest.approx(1e3 * 3.0 / (30 * made))


def test_every_table_lies_in_a_box_that_scrolls(page):
    assert page.count("<table") == page.count('<div class="wide" tabindex="0"><table') == 6
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert re.search(r"\.wide \{[^}]*overflow-x: auto", style)


def test_names_from_outside_are_text(page, nasty):
    assert nasty not in page and escape(nasty) in page
    assert "<b>&quot;cup&quot;" not in page
    assert nasty in Outline(page).text
    # One script of data and one of code: a name has ended none.
    assert Outline(page).tags.count("script") == 2


def test_the_confusion_counts_add_up(page):
    table = re.search(r'<table class="confusion">.*?</table>', page, re.DOTALL)[0]
    counts = [int(number or 0) for number in re.findall(r"<td class=.*?>(\d*)</td>", table)]
    # Shape 1, of the second class, was taken for the first, shape 5 of the third for the second.
    assert counts == [3, 0, 0, 1, 2, 0, 0, 1, 2]


def test_the_worst_mistakes_come_first(split, logits):
    found = hardest_shapes(logits, split, num=4)
    assert [item["shape"] for item in found] == [5, 1, 0, 2]
    assert [item["right"] for item in found] == [False, False, True, True]
    assert found[0]["true"] == "rod" and found[0]["guess"] == split.classes[1]
    assert found[0]["probability_true"] < 0.01 < 0.98 < found[0]["probability_guess"]
    assert found[0]["name"] == "scans/5.ply"


def test_packed_points_are_the_shape(split, logits):
    packed = base64.b64decode(hardest_shapes(logits, split, num=1, num_points=50)[0]["points"])
    points = np.frombuffer(packed, np.int8).reshape(50, 3) / 127
    rows = np.linspace(0, len(split.clouds[5]) - 1, 50).round().astype(int)
    pos = split.clouds[5].numpy()[rows].astype(float)
    pos -= (pos.min(0) + pos.max(0)) / 2
    assert np.abs(points - pos / np.linalg.norm(pos, axis=1).max()).max() < 0.005
    split.clouds[5] = torch.ones(1, 3)
    one = hardest_shapes(logits, split, num=1)[0]["points"]
    assert base64.b64decode(one) == b"\0\0\0"


def test_hardest_shapes_checks_its_arguments(split, logits):
    with pytest.raises(ArgumentError, match=r"`num` \(=0\) must be a whole number, at least 1"):
        hardest_shapes(logits, split, num=0)
    with pytest.raises(ArgumentError, match=r"`num_points` \(=0\)"):
        hardest_shapes(logits, split, num_points=0)
    with pytest.raises(ShapeError, match=r"`logits` \(=\[8, 3\]\) must have a row for each of"):
        hardest_shapes(logits[:8], split)


def test_without_mistakes_the_least_sure_are_shown(finished, split):
    from pcequi.report import save_hardest

    save_hardest(finished, "z/SO3", torch.nn.functional.one_hot(split.labels, 3) * 2.0, split)
    assert "No mistakes under z/SO3: the least sure answers" in write_report(finished).read_text()


def test_what_a_system_does_not_tell_is_left_out(finished):
    report = json.loads((finished / "report.json").read_text())
    report |= {"commit": None, "peak_memory_mb": {}}
    (finished / "report.json").write_text(json.dumps(report))
    page = write_report(finished).read_text()
    assert "git commit" not in page and "peak memory" not in page


@pytest.mark.parametrize("name", ["report.json", "metrics.jsonl", "hardest.json"])
@pytest.mark.parametrize("content", [None, "{", '{"accuracy": {}}', "[]"])
def test_unfinished_and_damaged_runs_are_named(finished, name, content):
    (finished / name).unlink()
    if content is not None:
        (finished / name).write_text(content)
    with pytest.raises(FileError, match=f"{name} .*finished run"):
        write_report(finished)


@pytest.mark.parametrize("key", ["name", "true", "right", "probability_true", "points"])
def test_a_shape_that_lacks_something_is_named(finished, key):
    path = finished / "hardest.json"
    kept = json.loads(path.read_text())
    for shape in kept["shapes"]:
        del shape[key]
    path.write_text(json.dumps(kept))
    with pytest.raises(FileError, match=f"hardest.json in .*{finished.name} is damaged .*{key}"):
        write_report(finished)


def test_other_protocols_than_those_of_the_report_are_named(finished):
    path = finished / "report.json"
    kept = json.loads(path.read_text())
    kept["mean_class_accuracy"] = {}
    path.write_text(json.dumps(kept))
    with pytest.raises(FileError, match=f"report.json.* in .*{finished.name} is damaged"):
        write_report(finished)


def test_the_command(finished, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["report", *map(str, arguments)])
        return stop.value.code, capsys.readouterr()

    code, said = run(finished, "--json")
    found = json.loads(said.out)
    assert code == 0
    assert found == {"run": str(finished), "report": str(finished / "report.html")}
    code, said = run(finished)
    assert code == 0 and "report.html" in said.out
    code, said = run(finished / "nowhere")
    assert code == 1 and "give the folder of a finished run" in said.err


def test_data_are_plain(finished):
    data = report_data(finished)
    assert json.loads(json.dumps(data)) == {
        **data,
        "cost": {k: list(v) for k, v in data["cost"].items()},
    }
    assert data["cost"]["the network, a test shape"] == (pytest.approx(10.0), "ms")


def test_ticks_are_round_and_inside():
    assert ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert ticks(1, 1) == [1]
    assert ticks(0.13, 0.87) == [0.2, 0.4, 0.6, 0.8]


def test_charts_of_one_and_of_unusable_values():
    assert line_chart("loss", [("training", [])]) == ""
    assert "nan" not in line_chart("loss", [("training", [(1, float("nan")), (2, 0.5)])])
    assert "polyline" in line_chart("loss", [("training", [(1, 0.0)])])


def test_of_many_classes_the_largest_confusions_are_listed():
    names = [f"kind{n}" for n in range(150)]
    matrix = [[0] * 150 for _ in names]
    matrix[3][7], matrix[9][2], matrix[4][4] = 5, 8, 40
    page = confusion_tables({"classes": names, "confusion": {"z/SO3": matrix}})
    assert "150 classes are too many" in page and len(page) < 2000
    assert page.index("kind9") < page.index("kind3") and "kind4" not in page
    few = confusion_tables({"classes": names[:2], "confusion": {"z/SO3": [[3, 1], [0, 4]]}})
    assert few.count("<td class=") == 4
