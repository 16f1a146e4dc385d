"""What ``import pcequi`` alone gives."""

import pkgutil
import re
import subprocess
import sys

import pytest

import pcequi


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_rooms_come_when_they_are_asked_for():
    code = """
import sys, pcequi
print('torch' in sys.modules, 'models' in dir(pcequi), hasattr(pcequi, 'lloyd'))
pcequi.viz
print('torch' in sys.modules, 'open3d' in sys.modules)
print(pcequi.models.GroupConvClassifier.__name__, pcequi.models is sys.modules['pcequi.models'])
"""
    assert run(code) == ["False", "True", "False", "False", "False", "GroupConvClassifier", "True"]


def test_every_room_is_listed_and_told():
    told = re.findall(r"^- (``.*?):", pcequi.__doc__, re.MULTILINE)
    told = {name for line in told for name in re.findall(r"``(\w+)``", line)}
    modules = {module.name for module in pkgutil.iter_modules(pcequi.__path__)}
    rooms = set(dir(pcequi)) & modules
    assert told == set(pcequi._ROOMS) <= rooms
    packages = {module.name for module in pkgutil.iter_modules(pcequi.__path__) if module.ispkg}
    assert packages - told == {"bench", "cli"}  # the command's
    for name in told:
        assert getattr(pcequi, name).__name__ == f"pcequi.{name}"


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'model'; it has align, .*, models, "):
        _ = pcequi.model
