#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Debian's gunicorn, unmodified, upgraded by SIGHUP under load: its sockets by LISTEN_FDS, READY=1 by its own sd_notify."""

import pathlib
import shutil
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
import harness  # noqa: E402  (the line above says where it is)
import upgrades  # noqa: E402

GUNICORN = shutil.which("gunicorn", path="/usr/bin")  # Debian's


@unittest.skipUnless(GUNICORN, "gunicorn is not installed")
class GunicornTest(upgrades.CompatTest):
    def configure(self, version):
        return self.write("application.py", f"""
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "{len(str(version)) + 1}")])
    return [b"{version}\\n"]
""")

    def service(self):
        return f"""
    command: [{GUNICORN}, --workers, "2", --chdir, {self.dir}, "application:application"]
"""

    def test_nothing_fails_over_tcp(self):
        self.upgrade_under_load(unix=False)

    def test_nothing_fails_over_a_unix_socket(self):
        self.upgrade_under_load(unix=True)


if __name__ == "__main__":
    harness.main()
