#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""How soon the stop signal comes once nothing is in flight any more, by the server's own clock: 25 upgrades each, 50 with GAPLESS_TEST_FULL=1."""

import os
import pathlib
import re
import statistics

import exact
import harness

UPGRADES = 50 if os.environ.get("GAPLESS_TEST_FULL") == "1" else 25
QUIET_MS = 100
MOST_MS = 2  # beyond quiet, the median


class PrecisionTest(exact.Server):
    def late_ms(self, gapless, quiet_ms):
        """The times from the last byte of the last answer to the stop signal less `quiet_ms`, sorted."""
        late, generation = [], 0
        while len(late) < UPGRADES:
            generation += 1
            self.assertLess(generation, 2 * UPGRADES, "too often the request was answered before the switch")
            record = self.record(generation)
            with harness.connect(self.address) as client:
                # A kept connection: idle when the answer is there, and idle_grace is 0.
                client.sendall(b"GET /wait?100 HTTP/1.1\r\nHost: test\r\n\r\n")
                record.wait("in_progress", lambda value: value == 1)
                gapless.hup()
                self.assertEqual(harness.read_answer(client), (200, "ok\n"))
                record.wait("stop_signal_ns", lambda value: value)
            self.assertEqual(record["cut"], 0)
            self.assertGreaterEqual(record["stop_signal_ns"] - record["write_begun_ns"], quiet_ms * 1e6, "too early")
            # A machine that stood still for longer than the request takes has shown nothing.
            if record["last_write_ns"] > record["drain_signal_ns"]:
                late.append((record["stop_signal_ns"] - record["last_write_ns"]) / 1e6 - quiet_ms)
            gapless.wait_serving(generation + 1)
        return sorted(late)

    def judge(self, late, what):
        median = statistics.median(late)
        harness.note(f"{what}: {UPGRADES} stop signals, late by {late[0]:.2f} to {late[-1]:.2f} ms, median {median:.2f} ms, "
                     f"p90 {late[UPGRADES * 9 // 10]:.2f} ms")
        self.assertLessEqual(median, MOST_MS)

    def by_ebpf(self):
        return self.serve("--tracker", "ebpf", "--drain-signal", "USR2", "--drain-keepalive", "off", "--drain-idle-grace", "0",
                          "--drain-quiet", f"{QUIET_MS}ms", *self.exact("threads"))

    @exact.needs_bpf
    def test_stop_signal_comes_when_quiet_is_over(self):
        self.judge(self.late_ms(self.by_ebpf(), QUIET_MS), f"ebpf, behind {QUIET_MS} ms of quiet")

    @exact.needs_bpf
    def test_other_sockets_of_the_machine_do_not_delay_it(self):
        """A busy server leaves many behind in TIME_WAIT."""
        gapless = self.by_ebpf()
        self.clients("--requests", 300000, "--threads", 64, timeout=120)
        sockets = int(re.search(r"(?m)^TCP:.* tw (\d+)", pathlib.Path("/proc/net/sockstat").read_text())[1])
        self.assertGreater(sockets, 20000)
        self.judge(self.late_ms(gapless, QUIET_MS), f"ebpf, with {sockets} other sockets")

    def test_stop_signal_of_a_native_worker_comes_at_once(self):
        gapless = self.serve("--drain-idle-grace", "0", *self.exact("native"))
        self.assertEqual(gapless.service()["tracker"]["name"], "native")
        self.judge(self.late_ms(gapless, 0), "native")


if __name__ == "__main__":
    harness.main()
