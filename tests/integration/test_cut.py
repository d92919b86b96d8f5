#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Workers end under load: what gapless says was lost is what the clients have lost, to the request.

GAPLESS_TEST_WORKERS: how many workers each server has; each ends once (4).
"""

import os
import re
import signal

import exact
import harness

WORKERS = int(os.environ.get("GAPLESS_TEST_WORKERS", 4))
CLIENTS = 20
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


class Cut(exact.Server):
    def crashes(self, gapless):
        """The numbers of each crash in the log, None where there is none."""
        lines = [line for line in gapless.log.text().splitlines() if " worker ended " in line]
        return [{key: int(number[1]) if (number := re.search(rf" {key}=(\d+)", line)) else None for key in ("lost", "silent")}
                for line in lines]

    def end(self, gapless, pid, number):
        self.assertGreater(pid, 0)
        before = len(self.crashes(gapless))
        os.kill(pid, number)
        harness.wait_until(lambda: len(self.crashes(gapless)) > before, "the crash in the log")

    def requests(self, gapless, pid):
        return next(int(worker["requests"] or 0) for worker in exact.workers(gapless.service()) if worker["pid"] == pid)


@exact.needs_bpf
class CutTest(Cut):
    def under_load(self, mode):
        """New connections all the time, each with a request: so one that was accepted, and on which nothing had come yet, has failed,
        too, and nothing else has."""
        gapless = self.serve("-n", WORKERS, "--tracker", "ebpf", *self.exact(mode))
        pids = gapless.worker_pids()
        load = harness.Load(self, "--timeout", "30s", "--clients", CLIENTS, f"tcp:127.0.0.1:{self.port}/wait?2",
                            begun=lambda: self.requests(gapless, pids[0]) > CLIENTS)
        for number, pid in enumerate(pids):
            harness.wait_until(lambda pid=pid: self.requests(gapless, pid) > CLIENTS, "requests")
            self.end(gapless, pid, SIGNALS[number % len(SIGNALS)])
        gapless.wait_serving(1)
        report, crashes = load.stop(), self.crashes(gapless)
        harness.note(f"{report['answered']} answered, {report['failed']} failed; {crashes}")
        self.assertEqual(len(crashes), WORKERS)
        self.assertNotIn(None, [each["lost"] for each in crashes])
        self.assertEqual(sum(each["lost"] + each["silent"] for each in crashes), report["failed"], (crashes, report["outcomes"]))
        if WORKERS >= 20:  # of four it may be that none was answering just then
            self.assertGreater(sum(each["lost"] for each in crashes), 0)
        unanswered = report["outcomes"]["reset"] + report["outcomes"]["closed_unanswered"]
        self.assertEqual(unanswered, report["failed"], report["outcomes"])

    def test_threads(self):
        self.under_load("threads")

    def test_process_for_each_connection(self):
        self.under_load("processes")

    def test_connections_passed_to_another_process(self):
        self.under_load("passed")

    def test_of_unix_connections_it_is_not_known(self):
        server = self.exact("threads")
        server[1] = f"unix:{self.dir}/socket"
        gapless = self.serve("--tracker", "ebpf", *server)
        self.end(gapless, gapless.worker_pids()[0], signal.SIGKILL)
        self.assertEqual(self.crashes(gapless), [{"lost": None, "silent": None}])


class NobodyKnowsTest(Cut):
    def test_sock_diag_does_not_know(self):
        gapless = self.serve("--tracker", "sock_diag", *self.exact("threads"))
        self.end(gapless, gapless.worker_pids()[0], signal.SIGKILL)
        self.assertEqual(self.crashes(gapless), [{"lost": None, "silent": None}])


if __name__ == "__main__":
    harness.main()
