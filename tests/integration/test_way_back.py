#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""How long the way back takes: the only worker of a new generation is killed in the observation window, and a client that connects in a
tight loop is answered by the old one."""

import os
import select
import signal
import socket
import statistics
import time

import exact
import harness
import transaction

QUEUED = 50
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
PAUSE_S = 0.0001  # from one connection to the next
LIMIT_MS = 50 if harness.SANITIZED else 5


class WayBack:
    WORKERS = 1
    TIMES = 20

    def test_from_the_crash_of_the_last_new_worker_to_the_old_generation(self):
        self.begin(load=False, observe={"window": "60s"})
        times, waited, lost, begun = [], [], 0, 0
        for number in range(2, self.TIMES + 2):
            self.version("two")
            done = self.gapless.verb("upgrade", "--no-wait")
            self.assertEqual(done.returncode, 0, transaction.reason_of(done))
            self.wait_phase("observe")
            (worker,) = self.gapless.worker_pids(generation=number)
            self.assertEqual(self.answered_by(), ("two", number))
            first, longest, cut, count = self.kill_and_connect(worker)
            times.append(first * 1000)
            waited.append(longest * 1000)
            lost, begun = lost + cut, begun + count
            self.wait_idle(1)
            self.wait_record(count=number - 1, outcome="rolled_back", to=number)
        harness.note(f"{self.STEERING}: from the kill to the first answer of the old generation, {self.TIMES} times: median "
                     f"{statistics.median(times):.2f} ms, {min(times):.2f} to {max(times):.2f} ms; the longest that a connection waited "
                     f"{max(waited):.2f} ms; {begun} connections, {lost} cut")
        self.assertLess(statistics.median(times), LIMIT_MS, times)

    def killed_with_a_queue(self):
        """The only new worker accepts nothing, QUEUED connections wait, and it is killed: what came of them, and when the last one knew."""
        self.assertEqual(self.gapless.verb("upgrade", "--no-wait").returncode, 0)
        self.wait_phase("observe")
        (worker,) = self.gapless.worker_pids(generation=2)
        os.kill(worker, signal.SIGSTOP)
        harness.wait_until(lambda: harness.stat_fields(worker)[0] == "T", "the worker to stop")
        clients = [harness.connect(self.address) for _ in range(QUEUED)]
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(REQUEST)
        began, answers = time.monotonic(), []
        os.kill(worker, signal.SIGKILL)
        for client in clients:
            try:
                answers.append(harness.read_answer(client)[1])
            except (AssertionError, ConnectionError) as error:
                answers.append(type(error).__name__)
        return answers, time.monotonic() - began

    def test_what_waits_at_the_last_new_worker_that_crashes_is_answered(self):
        """Where it can be moved, by the old version; else by a successor of the dead worker, which gets nothing new."""
        self.begin(load=False, observe={"window": "60s"})
        self.version("two")
        answers, took = self.killed_with_a_queue()
        self.assertEqual({self.answered_by() for _ in range(20)}, {("one", 1)})
        self.assertEqual(answers, [self.QUEUE_IS_ANSWERED_BY] * QUEUED)
        harness.note(f"{self.STEERING}: {QUEUED} that waited were answered within {took * 1000:.1f} ms")
        self.assert_old_serves()
        self.wait_record(outcome="rolled_back")

    def kill_and_connect(self, worker):
        """(seconds to the first answer of generation 1, the longest that one of the connections waited, how many of them were cut,
        how many there were). A connection that the dying worker had taken is cut; none is refused."""
        poll, open_, cut, count, first, longest = select.epoll(), {}, 0, 0, None, 0
        began = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        while first is None or open_:
            if first is None:
                client = socket.socket()
                client.connect(self.address)
                client.sendall(REQUEST)
                client.setblocking(False)
                open_[client.fileno()] = client, time.monotonic()
                poll.register(client, select.EPOLLIN)
                count += 1
            for fd, _ in poll.poll(PAUSE_S if first is None else harness.PATIENCE):
                client, at = open_.pop(fd)
                poll.unregister(fd)
                with client:
                    try:
                        answer = client.recv(4096)
                    except ConnectionResetError:
                        answer = b""
                now = time.monotonic()
                if not answer:
                    cut += 1
                elif b"X-Generation: 1\r\n" in answer:
                    first = first or now - began
                    longest = max(longest, now - at)
            if time.monotonic() - began > harness.PATIENCE:
                self.fail(f"{len(open_)} of {count} connections have no answer, first {first}, {self.said()}")
        poll.close()
        return first, longest, cut, count


@exact.needs_bpf
class EbpfTest(WayBack, transaction.TestCase):
    QUEUE_IS_ANSWERED_BY = "one generation 1\n"


class ClassicTest(WayBack, transaction.TestCase):
    STEERING = "cbpf"
    TIMES = 20 if transaction.FULL else 5
    QUEUE_IS_ANSWERED_BY = "two generation 2\n"

    def test_what_waits_where_no_successor_starts_is_given_up(self):
        self.begin(load=False, observe={"window": "60s"})
        self.version("two", before=f"[ -e {self.dir}/second ] && exit 3; : >{self.dir}/second")
        answers, took = self.killed_with_a_queue()
        self.assertEqual(set(answers), {"ConnectionResetError"})
        self.assertLess(took, 15)
        self.assert_old_serves()
        self.wait_record(outcome="rolled_back")


if __name__ == "__main__":
    harness.main()
