# SPDX-License-Identifier: BSD-2-Clause
"""What every real server has to bear: GAPLESS_TEST_UPGRADES (1 unless told) upgrades by SIGHUP under load of new
connections, GAPLESS_TEST_RATE (1500) a second, over TCP or over a Unix socket, and not one of them fails."""

import os

import harness

UPGRADES = int(os.environ.get("GAPLESS_TEST_UPGRADES", "1"))
RATE = int(os.environ.get("GAPLESS_TEST_RATE", "1500"))


class CompatTest(harness.TestCase):
    def configure(self, version):
        """Puts the configuration or program of that version into its place; it answers GET / with the version."""
        raise NotImplementedError

    def service(self):
        """The service in gapless.yaml, without listeners."""
        raise NotImplementedError

    def upgrade_under_load(self, unix):
        self.port = harness.free_port()
        self.path = self.dir / "web.sock"
        self.configure(1)
        gapless = self.serve("-c", self.write("gapless.yaml", f"""
services:
  web:
    listen: ["tcp=tcp:127.0.0.1:{self.port},nonblock", "unix=unix:{self.path},nonblock"]
{self.service()}
"""))
        target = f"unix:{self.path}" if unix else f"tcp:127.0.0.1:{self.port}"
        load = harness.Load(self, "--rate", RATE, "--by-body", target)
        for generation in range(2, UPGRADES + 2):
            self.configure(generation)
            gapless.upgrade_by_hup()
            wanted = (200, f"{generation}\n")
            self.assertEqual(harness.http_get(("127.0.0.1", self.port)), wanted)
            self.assertEqual(harness.http_get(str(self.path)), wanted)
        report = load.stop()
        seconds = report["duration_s"]
        self.assert_clean(report)
        answered = report["answered"]
        harness.note(f"{UPGRADES} upgrades, {answered} requests in {seconds:.1f} s ({answered / seconds:.0f}/s), 0 failed, "
                     f"longest gap {report['longest_gap']['ms']:.1f} ms")
        self.assertGreaterEqual(answered / seconds, 0.8 * RATE)
        self.assertEqual(set(report["by"]), {str(version) for version in range(1, UPGRADES + 2)})
        self.assertEqual(gapless.terminate(), 0)
