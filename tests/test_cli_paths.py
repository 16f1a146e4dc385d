"""Paths that the command cannot use: each is told in one line, and stops no other file."""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pcequi.cli import main
from pcequi.datasets import roots
from pcequi.errors import FileError
from pcequi.files import expanded, is_there, out_of_reach
from pcequi.networks import FOLDER
from pcequi.training.splits import default_cache

pytestmark = pytest.mark.skipif(os.name != "posix", reason="other systems refuse other paths")
# The system refuses it as it refuses what lies in a folder that may not be entered.
LONG = "n" * 300
SMALL = ["--network", "modelnet40-small", "--threads", 1]


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """The command in a folder with one cloud; returns exit code, stdout and stderr."""
    monkeypatch.setenv("PCEQUI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PCEQUI_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    np.savetxt("chair.xyz", np.random.default_rng(0).normal(size=(300, 3)))

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        return (stop.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def homeless(monkeypatch):
    """A user whom the system does not know."""
    pwd = pytest.importorskip("pwd")

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "PCEQUI_CACHE", "PCEQUI_DATASETS"):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def without_rights():
    # Root may read anything. The real user, too: it is whom `os.access` asks about.
    root = os.getuid() == 0
    if root:
        try:
            os.setresuid(65534, 65534, 0)
        except OSError as error:  # such as a container that knows one user
            pytest.skip(f"needs another user ({error})")
        if not os.access(FOLDER, os.R_OK, effective_ids=True):
            os.setresuid(0, 0, 0)
            pytest.skip("the code lies where other users may not read")
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


def test_a_home_that_is_not_known(homeless, command, monkeypatch, tmp_path):
    for name in ("~", "~/x", "~nosuchuser/x", "~foo.xyz", "~\0/x", "a/~"):
        assert expanded(name) == Path(name)
    monkeypatch.delenv("PCEQUI_CACHE")
    monkeypatch.delenv("PCEQUI_DATASETS")
    monkeypatch.setattr(roots, "__file__", str(tmp_path / "lib" / "pcequi" / "datasets" / "a.py"))
    told = "no home folder is known: set {} or HOME, or give {}"
    with pytest.raises(FileError, match=told.format("PCEQUI_CACHE", "--cache")):
        default_cache()
    with pytest.raises(FileError, match=told.format("PCEQUI_DATASETS", "--root")):
        roots.default_root()
    code, out, err = command("cache")
    assert code == 1 and out == ""
    assert err == f"Error: {told.format('PCEQUI_CACHE', '--cache')}\n"
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/x") == Path("/home/me/x")
    assert default_cache() == Path("/home/me/.cache/pcequi/graphs")
    assert roots.default_root() == Path("/home/me/.cache/pcequi/datasets")


def test_why_a_path_is_out_of_reach(tmp_path):
    (tmp_path / "file").touch()
    for name in ("", "file", "gone", "file/below", "gone/below", "\0"):
        assert out_of_reach(tmp_path / name) == ""
    assert out_of_reach(tmp_path / LONG) == "File name too long"
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert out_of_reach(tmp_path / "circle") == ""
    assert is_there(tmp_path / "file") and not is_there(tmp_path / "circle")
    with pytest.raises(FileError, match=r"cannot be reached \(File name too long\)"):
        is_there(tmp_path / LONG)


def test_one_file_out_of_reach_does_not_stop_the_others(command):
    os.symlink("/dev/zero", "zero.xyz")
    told = {
        f"{LONG}/chair.xyz": "cannot be reached (File name too long): check the path",
        f"{LONG}.xyz": "cannot be reached (File name too long): check the path",
        "~nosuchuser/x.xyz": "does not exist",
        "~foo.xyz": "does not exist",
        "zero.xyz": "is a device, not a file: name a file",
    }
    code, out, err = command("predict", *told, "chair.xyz", *SMALL, "--json")
    found = json.loads(out)
    assert code == 1 and (found["classified"], found["failed"]) == (1, len(told)), err
    for one in found["files"][:-1]:
        assert told[one["file"]] in one["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", f"{LONG}/r1", "chair.xyz"],
        ["predict", "chair.xyz", "--csv", f"{LONG}/x.csv"],
        ["view", f"{LONG}/chair.xyz", "--save", f"{LONG}/x.png"],
        ["view", "chair.xyz", "--save", f"{LONG}.png"],
        ["cache", "--cache", f"{LONG}/c"],
        ["train", "--run", f"{LONG}/r9"],
        ["train", "--run", f"{LONG}/r9", "--resume"],
        ["train", "--data", "folder", "--root", f"{LONG}/in"],
        ["train", "--data", "modelnet10", "--root", f"{LONG}/in"],
        ["train", "--start", f"{LONG}/r1", "--limit", 1, "--num-points", 24, "--preset", "small"],
        ["precompute", "--data", "folder", "--root", f"{LONG}/in"],
        ["evaluate", f"{LONG}/r1"],
        ["evaluate", "modelnet40-small", "--files", f"{LONG}/in"],
        ["report", f"{LONG}/r1"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments)).replace(LONG, "long"),
)
def test_a_path_out_of_reach_is_told_in_one_line(command, arguments):
    code, out, err = command(*arguments)
    lines = [line for line in err.splitlines() if not line.startswith("nothing to resume")]
    assert code == 1 and out == "" and len(lines) == 1
    assert lines[0].startswith("Error: ") and LONG in err and "(File name too long)" in err


def test_what_may_not_be_read_is_told_for_each_file(command, monkeypatch):
    if not hasattr(os, "setresuid"):
        pytest.skip("needs another user")
    with tempfile.TemporaryDirectory() as place:
        folder, files = Path(place), ["closed.xyz", "lock/in/chair.xyz", "folder", "chair.xyz"]
        folder.chmod(0o755)
        monkeypatch.chdir(folder)
        for name in ("lock/in", "folder"):
            Path(name).mkdir(parents=True)
        for name in files[:2] + files[3:]:
            np.savetxt(name, np.random.default_rng(0).normal(size=(300, 3)))
        predict, evaluate = ["predict", *files, *SMALL, "--json"], ["evaluate", "lock/r1"]
        # Once with rights: what is imported late may lie where others may not read.
        assert json.loads(command(*predict)[1])["classified"] == 3
        assert "holds no checkpoint" in command(*evaluate)[2]
        for name in ("closed.xyz", "folder", "lock"):
            Path(name).chmod(0)
        try:
            with without_rights():
                code, out, err = command(*predict)
                refused = command(*evaluate)
        finally:
            for name in ("closed.xyz", "folder", "lock"):
                Path(name).chmod(0o755)
        found = json.loads(out)
        assert code == 1 and found["classified"] == 1, err
        errors = [one["error"] for one in found["files"] if "error" in one]
        assert [error.split(") ", 1)[1] for error in errors] == [
            "cannot be read (Permission denied): check its permissions",
            "cannot be reached (Permission denied): check the path and its permissions",
            "cannot be read (Permission denied): check its permissions",
        ]
        assert refused[0] == 1 and "cannot be reached (Permission denied)" in refused[2]
        monkeypatch.undo()  # out of the folder, which goes


def test_what_the_system_refuses_ends_no_command_in_a_traceback(command, monkeypatch):
    def refuse(error):
        def cached(place):
            raise error

        monkeypatch.setattr("pcequi.training.cached.cached_graphs", cached)

    refuse(PermissionError(13, "Permission denied", "lock/c"))
    code, out, err = command("cache", "--json")
    told = "lock/c cannot be used (Permission denied); check the path and its permissions"
    assert code == 1 and err == f"Error: {told}\n"
    assert json.loads(out)["error"] == {"type": "FileError", "message": told}
    refuse(BrokenPipeError(32, "Broken pipe"))
    assert command("cache")[0] == 1
    refuse(OSError("of no file"))
    with pytest.raises(OSError, match="of no file"):
        main(["cache"])


def test_a_list_from_an_input_that_is_closed(command, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    code, out, err = command("predict", "--files-from", "-", *SMALL)
    assert code == 1 and out == ""
    assert "`files_from` (='-') cannot be read (standard input is closed)" in err


@pytest.mark.parametrize("place", ["/dev/zero", "cloud.npy", "long.txt"])
def test_what_is_no_list_of_files(place, command, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["pcequi.cli.predict"], "_LONGEST", 1_000)
    np.save(tmp_path / "cloud.npy", np.zeros((5, 3)))
    (tmp_path / "long.txt").write_text("chair.off\n" * 101)
    if not os.path.exists(tmp_path / place):
        pytest.skip("no such device")
    code, out, err = command("predict", "--files-from", place, *SMALL)
    assert code == 1 and out == ""
    why = "it has more than 256 MiB" if place == "long.txt" else "it is no text"
    assert f"`files_from` (={place!r}) cannot be read ({why})" in err
    with open(tmp_path / place, "rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        assert f"cannot be read ({why})" in command("predict", "--files-from", "-", *SMALL)[2]


def test_a_printed_table_has_the_names_as_they_are(command, monkeypatch):
    call = ["predict", "a\x1b[31mb.xyz", *SMALL, "--csv", "-"]
    code, out, _ = command(*call)
    assert code == 1 and out.splitlines()[1].startswith("a\x1b[31mb.xyz,")
    with monkeypatch.context() as within:
        # As in the locale C, where Python keeps bytes that are no ASCII aside.
        plain = io.TextIOWrapper(io.BytesIO(), "ascii", "surrogateescape")
        within.setattr("sys.stdout", plain)
        within.setattr("sys.stderr", io.TextIOWrapper(io.BytesIO(), "ascii", "backslashreplace"))
        for name, printed in (("t\udcfcr.xyz", b"t\xfcr.xyz"), ("t\xfcr.xyz", rb"t\xfcr.xyz")):
            command("predict", name, *SMALL, "--csv", "-")
            assert plain.buffer.getvalue().splitlines()[-1].startswith(printed + b",")
        within.setattr("sys.stdout", None)
        assert command(*call)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "before"),
    [
        (["predict", ""], "predict"),
        (["predict", "chair.xyz", "--csv", ""], "--csv"),
        (["cache", "--cache", "", "--clear"], "--cache"),
        (["cache", "--cache=", "--clear"], "--cache"),
        (["train", "--run", "", "--overwrite"], "--run"),
        (["train", "-r", "", "--overwrite"], "-r"),
        (["train", "--start", ""], "--start"),
        ([""], "pcequi"),
    ],
)
def test_an_empty_path_is_not_the_working_directory(command, arguments, before):
    told = f"what follows `{before}` is empty (''); give a path or a value, or leave it out"
    assert command(*arguments) == (1, "", f"Error: {told}\n")
    code, out, _ = command(*arguments, "--json")
    assert code == 1 and json.loads(out)["error"] == {"type": "ArgumentError", "message": told}


def test_what_may_be_an_option_is_none_behind_two_dashes(command):
    code, _, err = command("predict", *SMALL, "--", "--x=")
    assert code == 1 and "`files` (='--x=' first) ends as no file" in err


def test_an_error_where_standard_output_is_closed(command, monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert command("cache", "--cache", "")[::2] == (
        1,
        "Error: what follows `--cache` is empty (''); give a path or a value, or leave it out\n",
    )


def test_a_folder_that_does_not_say_what_lies_in_it_is_no_smaller_one(command):
    for name in ("cup", "table"):
        Path("parts", name).mkdir(parents=True)
        for n in range(6):
            Path("parts", name, f"{n}.xyz").write_text("0 0 0\n")
    Path("parts", "lamp").symlink_to(f"/{LONG}/lamp")
    code, _, err = command("precompute", "--data", "folder", "--root", "parts")
    assert code == 1 and "parts/lamp' cannot be read (File name too long): allow it" in err


def test_a_name_may_end_in_an_equals_sign(command):
    code, _, err = command("cache", "--cache=a=")
    assert code == 0, err


def test_a_working_directory_that_is_gone(command, monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    told = "the working directory is gone; change to one that is there"
    assert command("cache") == (1, "", f"Error: {told}\n")
    code, out, _ = command("cache", "--json")
    assert code == 1 and json.loads(out)["error"] == {"type": "FileError", "message": told}
    assert command("--version")[0] == 0
