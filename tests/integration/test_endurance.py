#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Five hundred upgrades in a row: descriptors and memory end where they began, and no zombie is left."""

import harness

UPGRADES = 60 if harness.SANITIZED else 500
SETTLED = 50  # after so many, memory may grow by no more than
GROWTH_KIB = 256


class EnduranceTest(harness.TestCase):
    def test_descriptors_memory_and_processes_end_where_they_began(self):
        gapless = self.serve("-n", "2", "-l", f"tcp:127.0.0.1:{harness.free_port()}", "-l",
                             f"unix:{self.dir}/web.sock", "--", self.hello("one"))
        processes = {"keeper": gapless.keeper_pid(), "master": gapless.master_pid()}
        gapless.upgrade_by_hup()
        counts = lambda: {name: len(harness.descriptors(pid)) for name, pid in processes.items()}
        before = harness.settled(counts)
        settled = {}
        for upgrade in range(2, UPGRADES + 1):
            gapless.upgrade_by_hup()
            if upgrade == SETTLED:
                settled = {name: harness.memory_kib(pid, "Rss") for name, pid in processes.items()}
        self.assertEqual(gapless.master_pid(), processes["master"], "it must be the same master throughout")
        harness.wait_until(
            lambda: counts() == before,
            lambda: f"descriptors as before, {before}: "
                    f"{ {name: sorted(harness.descriptors(pid).items()) for name, pid in processes.items()} }")
        self.assert_no_zombies(gapless.pid)
        self.assert_processes(gapless.pid, 3)  # master and two workers
        for name, pid in processes.items():
            growth = harness.memory_kib(pid, "Rss") - settled[name]
            harness.note(f"{name}: RSS after {SETTLED} upgrades {settled[name]} KiB, after {UPGRADES} {growth:+d} KiB, "
                         f"descriptors {before[name]}")
            if not harness.SANITIZED:
                self.assertLessEqual(growth, GROWTH_KIB, name)


if __name__ == "__main__":
    harness.main()
