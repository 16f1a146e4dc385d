"""A virtual display, what is on it, and a user's hand, by Xvfb and libX11 alone."""

import contextlib
import ctypes
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

CLIENT_MESSAGE, KEY_PRESS, KEY_PRESS_MASK = 33, 2, 1


class Event(ctypes.Structure):
    """The parts that key events and client messages have in common, and room for the rest."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("rest", ctypes.c_ulong * 24),
    ]


class KeyEvent(ctypes.Structure):
    """X11's ``XKeyEvent``."""

    _fields_ = [
        *Event._fields_[:5],
        *((name, ctypes.c_ulong) for name in ("root", "subwindow", "time")),
        *((name, ctypes.c_int) for name in ("x", "y", "x_root", "y_root")),
        *((name, ctypes.c_uint) for name in ("state", "keycode")),
        ("same_screen", ctypes.c_int),
        ("rest", ctypes.c_ulong * 12),
    ]


class Display:
    """A running Xvfb: ``name`` for $DISPLAY, and ``folder`` of its frame buffer."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        self.x11 = ctypes.CDLL("libX11.so.6")
        self.x11.XOpenDisplay.restype = ctypes.c_void_p
        self.x11.XDefaultRootWindow.restype = ctypes.c_ulong
        self.x11.XInternAtom.restype = ctypes.c_ulong
        self.connection = ctypes.c_void_p(self.x11.XOpenDisplay(name.encode()))

    def screen(self) -> np.ndarray:
        """All pixels [height, width, 3], from the frame buffer in the xwd format."""
        data = (self.folder / "Xvfb_screen0").read_bytes()
        header = struct.unpack(">25I", data[:100])
        size, width, height, line, colors = (header[i] for i in (0, 4, 5, 12, 19))
        start = size + 12 * colors
        pixels = np.frombuffer(data[start : start + height * line], np.uint8)
        return pixels.reshape(height, line // 4, 4)[:, :width, 2::-1]

    def window(self, title: str) -> int | None:
        """The window whose title begins so."""
        root = self.x11.XDefaultRootWindow(self.connection)
        children = ctypes.POINTER(ctypes.c_ulong)()
        count, ignored = ctypes.c_uint(), ctypes.c_ulong()
        self.x11.XQueryTree(
            self.connection, ctypes.c_ulong(root), ctypes.byref(ignored), ctypes.byref(ignored),
            ctypes.byref(children), ctypes.byref(count),
        )  # fmt: skip
        for child in children[: count.value]:
            name = ctypes.c_char_p()
            self.x11.XFetchName(self.connection, ctypes.c_ulong(child), ctypes.byref(name))
            if (name.value or b"").startswith(title.encode()):
                return child
        return None

    def press(self, window: int, key: str) -> None:
        """Press a key in a window."""
        code = self.x11.XKeysymToKeycode(self.connection, ctypes.c_ulong(ord(key)))
        root = self.x11.XDefaultRootWindow(self.connection)
        event = KeyEvent(type=KEY_PRESS, window=window, root=root, keycode=code, same_screen=1)
        self._send(window, KEY_PRESS_MASK, event)

    def close(self, window: int) -> None:
        """What the cross in a window's title bar does."""
        atoms = (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")
        protocols, delete = (self.x11.XInternAtom(self.connection, atom, 0) for atom in atoms)
        event = Event(type=CLIENT_MESSAGE, window=window)
        event.rest[0], event.rest[1], event.rest[2] = protocols, 32, delete
        self._send(window, 0, event)

    @staticmethod
    def until(condition, seconds: float = 90):
        """The first true value of ``condition()``, or its last when the time is over."""
        end = time.monotonic() + seconds
        while not (value := condition()) and time.monotonic() < end:
            time.sleep(0.2)
        return value

    def _send(self, window: int, mask: int, event: ctypes.Structure) -> None:
        to, mask = ctypes.c_ulong(window), ctypes.c_long(mask)
        self.x11.XSendEvent(self.connection, to, 0, mask, ctypes.byref(event))
        self.x11.XSync(self.connection, 0)


@contextlib.contextmanager
def virtual_display(folder: Path):
    """Start Xvfb on a free number; skips where there is none."""
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb to open a window on (Debian: apt-get install xvfb)")
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1300x700x24", "-fbdir", folder]
    server = subprocess.Popen(
        command, pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as pipe:
            number = pipe.readline().strip()
        if not number:
            pytest.skip("Xvfb does not start here")
        yield Display(f":{number}", folder)
    finally:
        server.terminate()
        server.wait(30)
