# SPDX-License-Identifier: BSD-2-Clause
"""What bench/state-rate and bench/state-pause share: a service under a gapless, and an upgrade of it."""

import argparse
import os
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/integration"))
import harness  # noqa: E402  (the line above says where it is)


class Service(harness.TestCase):
    """One service under one gapless, self.gapless, at self.port; no case of a test, but it is started and ended like one."""

    def runTest(self):
        pass

    def begin(self, *command, observe="0"):
        self.setUp()
        self.port = harness.free_port()
        self.gapless = self.serve("-l", f"tcp:127.0.0.1:{self.port}", "--check-memory", "off", "--state-stall", "60s",
                                  "--", *map(str, command), observe=observe)

    def upgrade(self):
        """The event of the log that tells of the state: its numbers."""
        mark = self.gapless.log.mark()
        done = self.gapless.verb("upgrade", timeout=600)
        if done.returncode:
            raise SystemExit(done.stderr or done.stdout)
        facts = {}
        for event in ("state loaded", "state handed over"):
            facts.update(self.gapless.log.wait(event, after=mark).fields)
        return {name: int(value) for name, value in facts.items() if value.isdigit()}

    def end(self):
        self.doCleanups()


def size(text):
    match = re.fullmatch(r"(\d+)(KiB|MiB|GiB)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 64MiB")
    return int(match[1]) * {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[match[2]]


def use_build(build):
    for variable, program in (("GAPLESS", "cli/gapless"), ("GAPLESS_KV", "examples/kv"),
                              ("GAPLESS_KV_CHECK", "tests/helpers/kv_check")):
        os.environ.setdefault(variable, str(build / program))


def spread(values):
    return f"median {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f}, {len(values)} runs)"
