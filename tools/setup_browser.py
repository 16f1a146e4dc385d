"""Install Debian's Chromium and Xvfb, for the tests that open the report and the window.

Run by `make test-browser`. Where it cannot be installed, the tests say so and skip.
"""

import shutil
import sys

from console import CommandError, say, warn
from system_packages import apt_get_install

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    there = {"chromium": any(shutil.which(name) for name in BROWSERS), "xvfb": shutil.which("Xvfb")}
    missing = [package for package, found in there.items() if not found]
    words = " and ".join(missing)
    if not missing:
        say("browser and virtual display: there")
    elif shutil.which("apt-get") is None:
        say(f"not a Debian system: install {words} to run all of these tests")
    else:
        say(f"installing {words} ...")
        try:
            apt_get_install(missing)
        except CommandError as error:
            warn(f"{words} missing", error, f"Install by hand: apt-get install {' '.join(missing)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
