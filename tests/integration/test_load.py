#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Thirty upgrades of examples/hello by SIGHUP under load, over TCP and over a Unix socket: nothing fails."""

import time

import harness

UPGRADES = 30
RATE = 2500  # new connections a second; at least 2,000 must have been made


class LoadTest(harness.TestCase):
    def thirty_upgrades(self, listen, target):
        server = self.hello("1")
        gapless = self.serve("-n", "2", "-l", listen, "--", server)
        load = harness.Load(self, "--rate", RATE, "--by-body", target)
        began = time.monotonic()
        for generation in range(2, UPGRADES + 2):
            self.hello(generation)
            gapless.hup()
            gapless.wait_serving(generation)
        harness.wait_until(lambda: time.monotonic() - began > 5, "five seconds of load at the least")
        report = load.stop()
        seconds = report["duration_s"]
        self.assert_clean(report)
        answered = report["answered"]
        harness.note(f"{UPGRADES} upgrades, {answered} requests in {seconds:.1f} s ({answered / seconds:.0f}/s), 0 failed, "
                     f"longest gap {report['longest_gap']['ms']:.1f} ms")
        self.assertGreaterEqual(answered / seconds, 2000)
        by_version = {version: each["count"] for version, each in report["by"].items()}
        self.assertEqual(set(by_version), {f"{number} generation {number}" for number in range(1, UPGRADES + 2)})
        self.assertTrue(all(by_version.values()), by_version)
        self.assertEqual(sum(by_version.values()), answered)

    def test_tcp(self):
        port = harness.free_port()
        self.thirty_upgrades(f"tcp:127.0.0.1:{port}", f"tcp:127.0.0.1:{port}/version")

    def test_unix(self):
        path = self.dir / "web.sock"
        self.thirty_upgrades(f"unix:{path}", f"unix:{path}:/version")


if __name__ == "__main__":
    harness.main()
