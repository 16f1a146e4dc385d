"""A headless Chromium that is spoken to over two pipes, in the DevTools protocol.

`--remote-debugging-pipe`: the browser reads JSON messages, each ended by a zero
byte, from file descriptor 3 and writes them to 4. No port, no library.
"""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --disable-dev-shm-usage "
    "--remote-debugging-pipe"
).split()
# Another program between: it moves the pipes to 3 and 4, and becomes the browser.
_LAUNCH = "import os, sys; r, w, *c = sys.argv[1:]; os.dup2(int(r), 3); os.dup2(int(w), 4); os.execv(c[0], c)"  # noqa: E501


def find_browser():
    """Path of a browser, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page in a browser of its own; use as a context manager."""

    def __init__(self, folder, size=(1000, 1400), limit=60.0):
        self.limit, self.number, self.events, self.buffer = limit, 0, [], b""
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        self.read, self.write = ours_in, ours_out
        # Away from 3 and 4, which the launcher fills.
        passed = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        options = [*OPTIONS, f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}"]
        command = [sys.executable, "-c", _LAUNCH, *map(str, passed), find_browser(), *options]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(
            [*command, "about:blank"], pass_fds=passed, stdin=quiet, stdout=quiet, stderr=quiet
        )
        for end in (theirs_in, theirs_out, *passed):
            os.close(end)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def call(self, method, **parameters):
        """The result of a command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda found: found.get("id") == self.number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _wait(self, wanted):
        end = time.monotonic() + self.limit
        while True:
            while b"\0" in self.buffer:
                text, self.buffer = self.buffer.split(b"\0", 1)
                message = json.loads(text)
                if wanted(message):
                    return message
                self.events.append(message)
            ready, _, _ = select.select([self.read], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self.read, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("the browser ended" if ready else "the browser does not answer")
            self.buffer += chunk

    def open(self, path):
        """Open a file and wait until it is loaded and drawn."""
        self.call("Page.navigate", url=path.as_uri())
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")
        frames = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
        self.call("Runtime.evaluate", expression=frames, awaitPromise=True)

    def value(self, expression):
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def drag(self, start, end, steps=5):
        """Press at ``start``, move to ``end``, and let go."""

        def mouse(kind, place):
            held = {"button": "left", "buttons": 1, "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **held)

        mouse("mousePressed", start)
        for step in range(1, steps + 1):
            mouse("mouseMoved", [a + (b - a) * step / steps for a, b in zip(start, end)])
        mouse("mouseReleased", end)

    def complaints(self):
        """What the console and the page reported as wrong."""
        bad = []
        for event in self.events:
            method, said = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                bad.append(said["exceptionDetails"])
            if method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning"):
                bad.append(said["args"])
            if method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
                bad.append(said["entry"])
        return bad

    def requests(self):
        """Addresses that were asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in (self.read, self.write):
            os.close(end)
        try:  # A browser ends when its pipe does.
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
