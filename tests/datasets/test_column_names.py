"""Columns of text clouds by the names above them."""

import numpy as np
import pytest
import torch

from pcequi.datasets.column_names import pick_columns
from pcequi.datasets.readers import read_points
from pcequi.errors import FileError

WANTED = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def rows(header, *columns, separator=","):
    lines = [separator.join(str(value) for value in row) for row in zip(*columns)]
    return "\n".join([header, *lines, ""])


X, Y, Z, OTHER = (1, 4), (2, 5), (3, 6), (70, 80)


@pytest.mark.parametrize(
    "header",
    [
        "t,x_m,y_m,z_m",
        "T,X,Y,Z",
        "id,X (m),Y (m),Z (m)",
        "Id,x[m],y[m],z[m]",
        "time [s],x/m,y/m,z/m",
        "name,pos_x,pos_y,pos_z",
        "a,position.x,position.y,position.z",
        "a,px,py,pz",
        "a,x_coord,y_coord,z_coord",
        '"Temp","Points:0","Points:1","Points:2"',
        "Temp,Points_0,Points_1,Points_2",
        "y_old,X,Y,Z",
        "#frame, x, y, z",
        ",x,y,z",
    ],
)
def test_coordinates_are_found_by_common_names(tmp_path, header):
    path = tmp_path / "cloud.csv"
    path.write_text(rows(header, OTHER, X, Y, Z))
    assert torch.equal(read_points(path, normalize=False).pos, WANTED)


@pytest.mark.parametrize(
    ("header", "separator"),
    [("//T X Y Z", " "), ("# t x [m] y [m] z [m]", " "), ("\tx\ty\tz", "\t")]
    + [("The Time\tPos X\tPos Y\tPos Z", "\t"), ('"t" "x" "y" "z"', " ")],
)
def test_so_they_are_between_blanks(tmp_path, header, separator):
    path = tmp_path / "cloud.txt"
    path.write_text(rows(header, OTHER, X, Y, Z, separator=separator))
    assert torch.equal(read_points(path, normalize=False).pos, WANTED)


def test_an_export_of_paraview_has_its_points_and_normals(tmp_path):
    path = tmp_path / "cloud.csv"
    header = '"Id","Temp","Normals:0","Normals:1","Normals:2","Points:0","Points:1","Points:2"'
    path.write_text(rows(header, OTHER, OTHER, (1, 0), (0, 0), (0, 1), X, Y, Z))
    found = read_points(path, normalize=False, with_normals=True)
    assert torch.equal(found.pos, WANTED)
    assert torch.equal(found.normal, torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]))


@pytest.mark.parametrize(
    "header",
    [
        "Id,Temp,Volume,Mass",
        "t,east,north,up",
        "Timestamp (ns),lat,lon,height",
        "index,a,b,c",
        ",a,b,c",
        "x_ft,x_m,y_m,z_m",
        "a,intensity,b,c",
        "nx,ny,nz,curvature",
        "# id label ring time",
    ],
)
def test_names_of_other_things_are_not_taken_for_coordinates(tmp_path, header):
    path = tmp_path / "cloud.csv"
    separator = "," if "," in header else " "
    path.write_text(rows(header, OTHER, X, Y, Z, separator=separator))
    called = "cannot be read as a cloud .its columns are called '.*; call these columns x, y and z"
    with pytest.raises(FileError, match=called):
        read_points(path)


@pytest.mark.parametrize(
    "header",
    [
        "a,b,c,d",
        "col1,col2,col3,col4",
        "easting,northing,height,intensity",
        "lon,lat,z,label",
        "r,s,t,u",
        "x1,y1,z1,x2",
        "x,y,z,x",
        "x,y,z,id",
        "# a scan in time",
        "# the label of frame",
        "# Leica, frame 12, id 5, mm",
        "# chair, label 5, frame 3, 2020",
        "// frame 12, id 5, class 3, a",
        "made of four words",
    ],
)
def test_names_that_say_nothing_are_of_columns_one_to_three(tmp_path, header):
    path = tmp_path / "cloud.csv"
    separator = "," if "," in header else " "
    path.write_text(rows(header, X, Y, Z, OTHER, separator=separator))
    assert torch.equal(read_points(path, normalize=False).pos, WANTED)


def test_a_table_is_left_whole_where_nothing_moves():
    table = np.arange(14.0).reshape(2, 7)
    for above in ("x y z r g b i", "", "x,y,z", "x y z nx ny nz i", "X (m);Y (m);Z (m);a;b;c;d"):
        assert pick_columns(table, above) is table
