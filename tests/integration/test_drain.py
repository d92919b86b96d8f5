#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""When an old worker that knows nothing of gapless is ended: when the kernel says that nothing of it is in flight.

The server has no graceful stop at all: TERM ends it at once. USR2, the drain signal here, makes it stop accepting. Each
class below is the same tests with another tracker: counted by BPF, asked by sock_diag, as user nobody, with BPF refused,
and built without it.

GAPLESS_TEST_DOWNLOAD_S: how long the slow downloads take (8 s, or 3; in the full test 30).
"""

import os
import pathlib
import shutil
import signal
import threading
import time
import unittest

import exact
import harness

DOWNLOAD_BYTES = 4 << 20
BUFFER_BYTES = 64 << 10
QUIET_S = 0.3
# From what should end a wait to the stop signal, where no figure of time is tested: a machine may be busy.
SLACK_S = 10.0 if harness.SANITIZED else 2.0


def seconds(since_ns, until_ns):
    return (until_ns - since_ns) / 1e9


class Drain:
    """The tests; a class with a tracker and a TestCase adds the rest."""

    TRACKER = "auto"
    WRAPPER = ()
    NAME = "sock_diag"  # the tracker that must be in use
    REASON = ""  # … and a word of the reason for that
    DOWNLOAD_S = 8

    def run_exact(self, *flags, mode="threads", options=(), quiet="300ms"):
        gapless = self.serve("--tracker", self.TRACKER, "--drain-signal", "USR2", "--drain-keepalive", "off", "--drain-quiet", quiet, *flags,
                             *self.exact(mode, *options), wrapper=self.WRAPPER)
        tracker = gapless.service()["tracker"]
        self.assertEqual((tracker["name"], tracker["precision"]), (self.NAME, "estimated"))
        self.assertIn(self.REASON, tracker["reason"] or "")
        return gapless

    def get(self, path, last=True):
        """A client that has asked for this."""
        client = harness.connect(self.address)
        self.addCleanup(client.close)
        close = "Connection: close\r\n" if last else ""
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n{close}\r\n".encode())
        return client

    def begun(self, count=1, generation=1):
        """Waits until the server has read so many requests that it hasn't answered."""
        self.record(generation).wait("in_progress", lambda value: value == count)

    def upgrade(self, gapless, generation=1):
        """Asks for an upgrade; returns when the old generation has been told to drain."""
        gapless.hup()
        return self.record(generation).wait("drain_signal_ns", lambda value: value)

    def stopped(self, generation=1, timeout=None):
        """Waits for the stop signal. Nothing that was being processed may have been cut by it."""
        at_ns = self.record(generation).wait("stop_signal_ns", lambda value: value, timeout)
        self.assertEqual(self.record(generation)["cut"], 0)
        return at_ns

    def assert_not_stopped(self, generation=1):
        self.assertEqual(self.record(generation)["stop_signal_ns"], 0, "it got the stop signal too early")

    def assert_stopped_by_the_drain(self, gapless, generation=1):
        gapless.wait_serving(generation + 1)
        self.assertTrue(gapless.log.find("worker drained", generation=generation), gapless.log.text())
        self.assertEqual(gapless.log.find("did not (drain|stop) in time"), [])

    def assert_never_known_wrong(self, gapless):
        """Numbers that this tracker has are numbers, those that it hasn't are null: never a zero for unknown."""
        worker = exact.workers(gapless.service())[0]
        for key in exact.NUMBERS:
            self.assertIsInstance(worker[key], int if self.NAME == "ebpf" else type(None), key)

    # -- requests

    def test_no_request_is_cut_though_the_server_dies_at_once(self):
        """Four upgrades under load of requests that take 200 ms, longer than quiet."""
        gapless = self.run_exact("--drain-idle-grace", "0", quiet="50ms")
        self.assert_never_known_wrong(gapless)
        load = harness.Load(self, "--rate", "400", f"tcp:127.0.0.1:{self.port}/wait?200")
        answered_while_draining = 0
        for generation in range(1, 5):
            self.record(generation).wait("in_progress", lambda value: value > 20)
            self.upgrade(gapless, generation)
            gapless.wait_serving(generation + 1)
            self.stopped(generation)
            record = self.record(generation).read()
            self.assertEqual(record["requests"], record["answers"])
            self.assertGreater(record["answers"], 20)
            answered_while_draining += record["last_write_ns"] > record["drain_signal_ns"]
            # sock_diag sees the last write of connections that are still open.
            if self.NAME == "ebpf":
                self.assertGreaterEqual(seconds(record["write_begun_ns"], record["stop_signal_ns"]), 0.05)
        # On a shared socket the new generation accepts beside the old one from the moment it is ready, so that one of the
        # old ones may have had nothing left.
        self.assertGreater(answered_while_draining, 0, "requests were in flight at the switches")
        report = load.stop()
        self.assert_clean(report, 100)
        self.record(5).wait("open", lambda value: value == 0)
        self.assertEqual(sum(self.record(generation)["answers"] for generation in range(1, 6)), report["answered"])
        harness.note(f"4 upgrades, {report['answered']} requests of 200 ms, 0 cut")

    def test_request_of_three_seconds(self):
        gapless = self.run_exact("--drain-idle-grace", "0")
        client = self.get("/wait?3000")
        self.begun()
        self.upgrade(gapless)
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        self.stopped()
        self.assert_stopped_by_the_drain(gapless)

    def slow_download(self, mode):
        """The client takes its time; all that the server has to do may long be done, with the answer in the kernel."""
        gapless = self.run_exact("--drain-idle-grace", "0", "--drain-timeout", "10m", mode=mode)
        client = harness.socket.socket()
        self.addCleanup(client.close)
        client.setsockopt(harness.socket.SOL_SOCKET, harness.socket.SO_RCVBUF, BUFFER_BYTES)
        client.settimeout(harness.PATIENCE)
        client.connect(self.address)
        client.sendall(f"GET /bytes?{DOWNLOAD_BYTES} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        head = client.recv(1)
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        pace = DOWNLOAD_BYTES // int(os.environ.get("GAPLESS_TEST_DOWNLOAD_S", self.DOWNLOAD_S))
        began, received = time.monotonic(), 0
        self.upgrade(gapless)
        while received < DOWNLOAD_BYTES:
            # The download's own pace, not a wait for something.
            time.sleep(max(0, began + received / pace - time.monotonic()))
            # The last of it is the client's already: in its receive buffer, acknowledged.
            if received < DOWNLOAD_BYTES - 4 * BUFFER_BYTES:
                self.assert_not_stopped()
            piece = client.recv(min(pace // 10, DOWNLOAD_BYTES - received), harness.socket.MSG_WAITALL)
            self.assertTrue(piece, f"cut after {received} bytes")
            received += len(piece)
        took = time.monotonic() - began
        self.stopped()
        self.assertEqual(client.recv(1), b"")
        self.assert_stopped_by_the_drain(gapless)
        harness.note(f"a download of {took:.1f} s, whole")

    def test_slow_download(self):
        self.slow_download("threads")

    def test_slow_download_by_sendfile(self):
        self.slow_download("sendfile")

    def test_streamed_answer_with_pauses(self):
        gapless = self.run_exact("--drain-idle-grace", "0", quiet="1s")
        client = self.get("/stream?8,500")
        self.begun()
        self.upgrade(gapless)
        answer = b""
        while more := client.recv(65536):
            answer += more
        self.assertEqual(answer.count(b"piece"), 8)
        self.assertTrue(answer.endswith(b"0\r\n\r\n"))
        self.stopped()
        self.assert_stopped_by_the_drain(gapless)

    def test_half_a_request_is_waited_for(self):
        gapless = self.run_exact("--drain-idle-grace", "0")
        client = harness.connect(self.address)
        self.addCleanup(client.close)
        client.sendall(b"GET /wait?0 HTTP/1.1\r\nHo")
        self.begun()
        told = self.upgrade(gapless)
        self.wait_past(told, QUIET_S + 1)
        self.assert_not_stopped()
        client.sendall(b"st: test\r\nConnection: close\r\n\r\n")
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        self.stopped()
        self.assert_stopped_by_the_drain(gapless)

    def test_answer_after_a_half_close_is_waited_for(self):
        gapless = self.run_exact("--drain-idle-grace", "0")
        client = self.get("/wait?2000")
        client.shutdown(harness.socket.SHUT_WR)
        self.begun()
        self.upgrade(gapless)
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        self.stopped()
        self.assert_stopped_by_the_drain(gapless)

    def test_request_that_the_server_has_not_read_is_waited_for(self):
        gapless = self.run_exact("--drain-idle-grace", "0")
        old = gapless.worker_pids()[0]
        client = harness.connect(self.address)
        self.addCleanup(client.close)
        self.record().wait("accepted", lambda value: value == 1)
        os.kill(old, signal.SIGSTOP)
        harness.wait_until(lambda: self.all_stopped(old), "every thread to be stopped")
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        gapless.hup()
        harness.wait_until(lambda: gapless.generation() == 2, "the switch")
        self.wait_past(time.monotonic_ns(), QUIET_S + 1)
        self.assertEqual(gapless.log.find("worker drained"), [])
        os.kill(old, signal.SIGCONT)
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        self.stopped()
        self.assert_stopped_by_the_drain(gapless)

    @staticmethod
    def all_stopped(pid):
        tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/stat")
        return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

    def test_request_of_a_process_that_the_worker_forked(self):
        gapless = self.run_exact("--drain-idle-grace", "0", mode="processes")
        client = self.get("/wait?2000")
        self.begun()
        self.upgrade(gapless)
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        self.stopped()
        self.assert_stopped_by_the_drain(gapless)

    # -- other protocols

    def test_server_that_speaks_first_and_thinks_about_it(self):
        gapless = self.run_exact("--drain-idle-grace", "0", "--protocol", "server-first", mode="banner", options=[2000])
        client = harness.connect(self.address)
        self.addCleanup(client.close)
        self.record().wait("accepted", lambda value: value == 1)
        self.upgrade(gapless)
        self.assertEqual(client.recv(100), b"220 ready\r\n")
        self.stopped()
        self.assert_stopped_by_the_drain(gapless)

    def test_connection_of_a_stream_is_waited_for_until_it_ends(self):
        gapless = self.run_exact("--drain-idle-grace", "0", "--protocol", "stream")
        client = self.get("/", last=False)
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        told = self.upgrade(gapless)
        self.wait_past(told, QUIET_S + 1)
        self.assert_not_stopped()
        client.close()
        self.stopped()
        self.assert_stopped_by_the_drain(gapless)

    # -- idle connections

    def idle(self):
        """A client with a kept connection that has had an answer."""
        client = self.get("/", last=False)
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        return client

    def wait_past(self, since_ns, after_s):
        """What is waited for is that something does not happen: only time can tell."""
        time.sleep(max(0, after_s - seconds(since_ns, time.monotonic_ns())))

    def test_idle_connection_gets_its_grace_and_no_more(self):
        gapless = self.run_exact("--drain-idle-grace", "1s")
        client = self.idle()
        told = self.upgrade(gapless)
        took = seconds(told, self.stopped())
        self.assertGreaterEqual(took, 1.0)
        self.assertLess(took, QUIET_S + 1.0 + SLACK_S)
        self.assertEqual(client.recv(1), b"", "the connection ends in order")
        self.assert_stopped_by_the_drain(gapless)
        harness.note(f"stopped {took:.3f} s after the drain began: {QUIET_S} s quiet, 1 s grace")

    def test_connection_that_was_accepted_and_is_silent_gets_its_grace(self):
        gapless = self.run_exact("--drain-idle-grace", "2s")
        client = harness.connect(self.address)
        self.addCleanup(client.close)
        self.record().wait("accepted", lambda value: value == 1)
        told = self.upgrade(gapless)
        self.wait_past(told, QUIET_S + 0.7)
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        self.stopped()
        self.assert_stopped_by_the_drain(gapless)

    def test_request_on_an_idle_connection_begins_its_grace_anew(self):
        gapless = self.run_exact("--drain-idle-grace", "1s")
        client = self.idle()
        told = self.upgrade(gapless)
        self.wait_past(told, 0.8)
        client.sendall(b"GET /wait?500 HTTP/1.1\r\nHost: test\r\n\r\n")
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        at_ns = self.stopped()
        self.assertGreaterEqual(seconds(self.record()["write_begun_ns"], at_ns), 1.0)
        self.assert_stopped_by_the_drain(gapless)

    def test_without_grace_idle_connections_hold_nothing_up(self):
        gapless = self.run_exact("--drain-idle-grace", "0")
        self.idle()
        told = self.upgrade(gapless)
        self.assertLess(seconds(told, self.stopped()), QUIET_S + SLACK_S)
        self.assert_stopped_by_the_drain(gapless)

    def test_idle_connection_that_leaves_ends_the_grace(self):
        gapless = self.run_exact("--drain-idle-grace", "1h")
        client = self.idle()
        self.upgrade(gapless)
        client.close()
        self.stopped()
        self.assert_stopped_by_the_drain(gapless)

    def test_idle_grace_never_waits_for_idle_connections_until_the_timeout(self):
        gapless = self.run_exact("--drain-idle-grace", "never", "--drain-timeout", "3s")
        self.idle()
        told = self.upgrade(gapless)
        took = seconds(told, self.stopped())
        self.assertGreaterEqual(took, 2.9)
        self.assertLess(took, 3.0 + SLACK_S)
        line = gapless.log.wait("did not drain in time", generation=1)
        self.assertEqual(line.fields["cut"], "no request, 1 idle connection")
        gapless.wait_serving(2)

    # -- the timeout

    def test_what_the_timeout_cuts_is_counted_and_named(self):
        gapless = self.run_exact("--drain-timeout", "2s")
        clients = [self.get("/wait?60000") for _ in range(3)]
        self.idle()
        self.begun(3)
        told = self.upgrade(gapless)
        at_ns = self.record().wait("stop_signal_ns", lambda value: value)
        self.assertGreaterEqual(seconds(told, at_ns), 1.9)
        self.assertEqual(self.record()["cut"], 3)
        line = gapless.log.wait("did not drain in time", generation=1)
        self.assertEqual(line.level, "warning")
        self.assertRegex(line.fields["cut"], r"^3 requests in flight, the oldest for [2-9]\.\d s$")
        for client in clients:
            with self.assertRaises((AssertionError, ConnectionResetError)):
                harness.read_answer(client)
        gapless.wait_serving(2)

    def test_worker_that_is_kept_at_the_timeout_lives_until_it_is_drained(self):
        gapless = self.run_exact("--drain-timeout", "1s", "--drain-on-timeout", "keep", "--drain-idle-grace", "0")
        client = self.get("/wait?4000")
        self.begun()
        old = gapless.worker_pids()[0]
        self.upgrade(gapless)
        line = gapless.log.wait("did not drain in time", generation=1)
        self.assertRegex(line.fields["has"], r"^1 request in flight, the oldest for [1-9]\.\d s$")
        self.assert_not_stopped()
        self.assertTrue(harness.is_alive(old))
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        self.stopped()
        gapless.wait_serving(2)
        self.assertTrue(gapless.log.find("worker drained", generation=1), gapless.log.text())

    def test_request_during_stop_is_not_killed_before_the_grace(self):
        """SIGKILL follows only from a timeout: a server that takes the stop signal and goes on has its grace."""
        gapless = self.run_exact("--drain-timeout", "1s", "--stop-signal", "WINCH", "--stop-grace", "2s")
        client = self.get("/wait?2000")
        self.begun()
        self.upgrade(gapless)
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        line = gapless.log.wait("did not stop in time", generation=1)
        self.assertEqual(line.fields["cut"], "no request, 0 idle connections")
        gapless.wait_serving(2)

    # -- the service's end

    def test_stop_of_the_service_waits_too(self):
        gapless = self.run_exact("--drain-idle-grace", "0")
        client = self.get("/wait?2000")
        self.begun()
        gapless.signal(signal.SIGTERM)
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        self.stopped()
        self.assertEqual(gapless.wait_exit(), 0)

    # -- the master

    def test_master_that_is_killed_during_a_drain(self):
        """The next one goes on counting and waiting."""
        gapless = self.run_exact("--drain-idle-grace", "0")
        client = self.get("/wait?4000")
        self.begun()
        self.upgrade(gapless)
        master = gapless.master_pid()
        os.kill(master, signal.SIGKILL)
        gapless.wait_master(but=master)
        self.assertEqual(harness.read_answer(client), (200, "ok\n"))
        self.stopped()
        self.assert_stopped_by_the_drain(gapless)


@exact.needs_bpf
class EbpfDrainTest(Drain, exact.Server):
    TRACKER = NAME = "ebpf"

    def test_numbers_are_the_servers_own(self):
        gapless = self.run_exact()
        self.clients("--requests", 1000)
        harness.wait_until(lambda: exact.totals(gapless)["connections"] == 0, "counts at rest")
        self.assertEqual(exact.totals(gapless)["requests"], self.record()["answers"])

    def test_killed_master_loses_no_count(self):
        gapless = self.run_exact()
        master = gapless.master_pid()
        done = threading.Event()

        def kill():
            done.wait(0.1)
            os.kill(master, signal.SIGKILL)
        killer = threading.Thread(target=kill)
        killer.start()
        self.clients("--requests", 20000)
        done.set()
        killer.join()
        gapless.wait_master(but=master)
        harness.wait_until(lambda: gapless.service() and exact.totals(gapless)["connections"] == 0, "counts at rest")
        self.assertEqual(exact.totals(gapless)["requests"], self.record()["answers"])


class SockDiagDrainTest(Drain, exact.Server):
    TRACKER = "sock_diag"


@unittest.skipUnless(os.getuid() == 0 and shutil.which("setpriv"), "only root can become nobody")
class NobodyDrainTest(Drain, exact.Server):
    """Everything without any privilege, the whole gapless."""

    DOWNLOAD_S = 3
    WRAPPER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
    REASON = "CAP_BPF" if exact.built_with_bpf() else "no BPF"


@unittest.skipUnless(os.getuid() == 0 and shutil.which("setpriv"), "only root can give up capabilities")
class RefusedDrainTest(Drain, exact.Server):
    """Root, but the kernel refuses BPF at run time, as in most containers."""

    DOWNLOAD_S = 3
    WRAPPER = ("setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin")
    REASON = "CAP_BPF" if exact.built_with_bpf() else "no BPF"

    def test_ebpf_by_name_is_refused_in_one_line(self):
        gapless = self.start("--tracker", "ebpf", *self.exact("threads"), wrapper=self.WRAPPER)
        self.assert_cannot_start(gapless, "ebpf", self.REASON)


if __name__ == "__main__":
    harness.main(at_a_time=5)
