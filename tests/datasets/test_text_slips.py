"""Tables that would be read as other numbers than they hold."""

import numpy as np
import pytest
import torch

from pcequi.datasets.readers import read_points
from pcequi.errors import DataError, FileError

POINTS = np.random.default_rng(0).normal(size=(6, 3)).round(3) + 5


def refused(path, text):
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match="cannot be read as a cloud") as error:
        read_points(path)
    return str(error.value)


def table(header, *columns, separator):
    rows = [separator.join(f"{value:.15g}" for value in row) for row in zip(*columns)]
    return "\n".join([*([header] if header else []), *rows, ""])


@pytest.mark.parametrize(
    ("header", "separator"),
    [("Punkt;Rechtswert;Hochwert;Höhe", ";"), ("", ","), ("", " "), ("# scan of a hall", " ")],
)
@pytest.mark.parametrize("first", [0, 1, 1001])
def test_numbers_of_the_points_are_no_coordinates(tmp_path, header, separator, first):
    text = table(header, range(first, first + 6), *POINTS.T, separator=separator)
    said = refused(tmp_path / "cloud.csv", text)
    assert f"its first of 4 columns numbers the rows ({first}, {first + 1} ...)" in said
    assert "call the columns x, y and z" in said


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("n,x,y,z", [range(6), *POINTS.T]),
        ("x,y,z,label", [range(6), *POINTS.T]),
        ("x,y,height,label", [range(6), *POINTS.T]),
        ("", [range(6), *POINTS.T[:2]]),
        ("", [range(0, 12, 2), *POINTS.T]),
        ("", [[1, 2, 3, 4, 5, 5], *POINTS.T]),
        ("", [range(3), *POINTS.T]),
    ],
)
def test_coordinates_may_count_up(tmp_path, header, columns):
    path = tmp_path / "cloud.csv"
    path.write_text(table(header, *columns, separator=","))
    start = 1 if header.startswith("n") else 0
    expected = np.array(list(zip(*columns)))[:, start : start + 3]
    assert np.allclose(read_points(path, normalize=False).pos, expected)


@pytest.mark.parametrize(
    "text",
    [
        "12,377.1907 2,264.2097 2,640.4226\n",
        "1.5\t2.5\t2,640.4226\n",
        "377.1907 264.2097 2,640.4226\n",
        "12\u00a0377.19 2\u00a0264.20 640.4\n",
        "12\u202f377.19;2\u202f264.20;640.4\n",
    ],
)
def test_thousands_are_not_parted(tmp_path, text):
    assert "seem to have thousands separators" in refused(tmp_path / "cloud.xyz", 3 * text)


def test_a_comma_may_not_have_two_meanings(tmp_path):
    said = refused(tmp_path / "cloud.csv", "x,y,z\n0,25,1,50,2,75\n0,35,1,05,2,5\n")
    assert "seem to have decimal commas" in said


@pytest.mark.parametrize("text", ["1,200.5,3\n4,500.5,6\n", "1, 200.5, 3\n4, 500.5, 6\n"])
def test_commas_that_separate_are_no_thousands(tmp_path, text):
    path = tmp_path / "cloud.csv"
    path.write_text(text)
    expected = torch.tensor([[1, 200.5, 3], [4, 500.5, 6]])
    assert torch.equal(read_points(path, normalize=False).pos, expected)


@pytest.mark.parametrize("separator", [",", " ", ";"])
@pytest.mark.parametrize("columns", [3, 5])
def test_numbers_of_the_columns_are_no_point(tmp_path, separator, columns):
    path = tmp_path / "cloud.csv"
    more = [[7.5] * 6] * (columns - 3)
    header = separator.join(map(str, range(columns)))
    path.write_text(table(header, *POINTS.T, *more, separator=separator))
    assert np.allclose(read_points(path, normalize=False).pos, POINTS)
    path.write_text(f"0 1 2\n{'3 4 5'}\n")
    assert read_points(path, normalize=False).pos.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("header", ["Länge x,y,Höhe", "# Prüfstück", "Größe,x,y,z"])
def test_the_names_above_may_be_in_other_encodings(tmp_path, encoding, header):
    path = tmp_path / "cloud.csv"
    columns = [[7.5] * 6] * header.startswith("G") + [*POINTS.T]
    path.write_text(table(header, *columns, separator=","), encoding=encoding)
    assert np.allclose(read_points(path, normalize=False).pos, POINTS)


def test_an_off_may_begin_with_a_mark(tmp_path):
    path = tmp_path / "mesh.off"
    path.write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", encoding="utf-8-sig")
    assert len(read_points(path, 20).pos) == 20


@pytest.mark.parametrize("ending", ["csv", "txt", "xyz", "pts"])
@pytest.mark.parametrize("header", ["", "z,x,y\n", "# z,x,y\n"])
def test_texts_may_begin_with_a_mark(tmp_path, ending, header):
    path = tmp_path / f"cloud.{ending}"
    path.write_text(header + table("", *POINTS.T, separator=","), encoding="utf-8-sig")
    expected = POINTS[:, [1, 2, 0]] if header else POINTS
    assert np.allclose(read_points(path, normalize=False).pos, expected)


@pytest.mark.parametrize("text", ["x,y,z\n", "Scan of a hall\nx;y;z;label", "x y z\n\n,,\n,,\n"])
def test_names_without_points_are_told(tmp_path, text):
    first = text.splitlines()[0]
    said = refused(tmp_path / "cloud.csv", text)
    assert f"it holds no points: none of its lines, as '{first}', is a row of numbers" in said


def test_a_number_of_points_without_points_is_told(tmp_path):
    assert "it announces 5 points and holds 0" in refused(tmp_path / "cloud.pts", "5\nx y z\n")
    assert "it announces 5 points and holds 0" in refused(tmp_path / "cloud.pts", "5\n")
    assert "it holds no points" in refused(tmp_path / "cloud.pts", "0\n")


@pytest.mark.parametrize("header", ["", '"x","y","z"\n', '"Punkt, mm";"b";"c"\n'])
def test_numbers_may_stand_in_quotes(tmp_path, header):
    separator = ";" if ";" in header else ","
    rows = ('"1.5"', '"-2"', '" 3e-1 "'), ("4", '".5"', '"6."')
    path = tmp_path / "cloud.csv"
    path.write_text(header + "".join(separator.join(row) + "\n" for row in rows))
    expected = torch.tensor([[1.5, -2, 0.3], [4, 0.5, 6]])
    assert torch.equal(read_points(path, normalize=False).pos, expected)


def test_decimal_commas_in_quotes_are_told(tmp_path):
    said = refused(tmp_path / "cloud.csv", '"x","y","z"\n"1,5","2,25","3,0"\n')
    assert "seem to have decimal commas" in said
    said = refused(tmp_path / "cloud.csv", '"a","b","c"\n"1.5","two","3"\n')
    assert "line 2 is" in said


@pytest.mark.parametrize("ending", ["\r", "\r\n"])
def test_lines_may_end_by_returns(tmp_path, ending):
    text = "# a scan\n" + table("z,x,y", *POINTS.T[[2, 0, 1]], separator=",")
    path = tmp_path / "cloud.csv"
    path.write_bytes(text.replace("\n", ending).encode())
    assert np.allclose(read_points(path, normalize=False).pos, POINTS)


@pytest.mark.parametrize("separator", [",", ";", " , "])
def test_an_empty_cell_does_not_move_the_others(tmp_path, separator):
    path = tmp_path / "cloud.csv"
    for names, rows in {
        "x,y,z,i": "1.5,2.5,,7\n3.5,4.5,,8\n",
        "": "1.5,,2.5,7\n3.5,,4.5,8\n",
        "i,x,y,z": "7,1.5,2.5,3.5\n,1.5,,3.5\n",
    }.items():
        path.write_text(f"{names}\n{rows}".replace(",", separator))
        with pytest.raises(DataError, match="points with NaN"):
            read_points(path)
    expected = torch.tensor([[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]])
    for text in (
        "id,x,y,z,note\n0,1.5,2.5,3.5,\n1,4.5,5.5,6.5,\n",
        "label,x,y,z\n,1.5,2.5,3.5\n7,4.5,5.5,6.5\n,,,\n",
        "x,y,z,i,j\n1.5,2.5,3.5,,\n4.5,5.5,6.5,7,8\n",
        "1.5,2.5,3.5,\n,,,\n4.5,5.5,6.5,\n",
        "z,x,y\n3.5,1.5,2.5,\n6.5,4.5,5.5,\n",
    ):
        path.write_text(text.replace(",", separator))
        assert torch.equal(read_points(path, normalize=False).pos, expected), text


@pytest.mark.parametrize("above", ["# by hand\n", "\n#\n # OFF of a cup\r\n\n"])
def test_comments_may_stand_above_an_off(tmp_path, above):
    text = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    (tmp_path / "plain.off").write_text(text)
    (tmp_path / "mesh.off").write_text(above + text)
    expected = read_points(tmp_path / "plain.off", 9).pos
    assert torch.equal(read_points(tmp_path / "mesh.off", 9).pos, expected)
