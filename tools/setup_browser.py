"""Install Debian's Chromium, which only the browser tests of the report need.

Run by `make test-browser`. Where it cannot be installed, the tests say so and skip.
"""

import shutil
import sys

from console import CommandError, say, warn
from system_packages import apt_get_install

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    if any(shutil.which(name) for name in BROWSERS):
        say("browser: there")
    elif shutil.which("apt-get") is None:
        say("not a Debian system: install Chromium to run the browser tests")
    else:
        say("browser: installing chromium ...")
        try:
            apt_get_install(["chromium"])
        except CommandError as error:
            warn("Chromium is missing", error, "Install by hand: apt-get install chromium")
    return 0


if __name__ == "__main__":
    sys.exit(main())
