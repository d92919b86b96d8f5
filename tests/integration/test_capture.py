#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Servers that bind their own addresses and know nothing of gapless are upgraded as those that take theirs. Each class is the same
tests in another tier; what is odd about servers and hosts is in test_capture_odd.py.

GAPLESS_TEST_UPGRADES (10): how many under load; GAPLESS_TEST_RATE (2000): new connections a second.
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

import capturing
import datagrams
import exact
import harness
from capturing import RATE, UPGRADES

QUEUED = 50
KILLS = 3 if harness.SANITIZED else 5
LOOKS_S = 2.5  # longer than two looks at what a worker has
MANY = 64  # sockets: the master is busy with them for some milliseconds


# Four requests at a time, and the end when accept() fails, as many a server in Go or Rust; its queue is longer than a second.
SLOTS = """
import os, socket, sys, threading, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
body = os.environ["GAPLESS_GENERATION"].encode() + b"\\n"
slots = threading.Semaphore(4)

def serve(connection):
    received = b""
    while b"\\r\\n\\r\\n" not in received:
        received += connection.recv(4096)
    time.sleep(0.2)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    connection.close()
    slots.release()

while True:
    slots.acquire()
    try:
        connection, _ = listener.accept()
    except OSError:
        os._exit(1)
    threading.Thread(target=serve, args=(connection,)).start()
"""


# Its listening socket is at last in a process of another session alone, which isn't the one that has bound it.
ELSEWHERE = """
import os, signal, socket, sys
if os.fork():
    signal.pause()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if os.fork():
    os._exit(0)
os.setsid()
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 2\\r\\n\\r\\n1\\n")
    connection.close()
"""


class Basic:
    """The tests; a class with a tier and a TestCase adds the rest."""

    STEERING = "ebpf"
    REFUSES = True  # a port that only the next generation has
    FILLERS = 0  # sockets that the tier may keep (listener.h)

    def assert_steered(self, gapless, *addresses):
        listeners = {each["address"]: each["steering"] for each in gapless.service()["listeners"]}
        self.assertEqual(listeners, dict.fromkeys(addresses or [self.listen], self.STEERING), gapless.log.text())

    # -- under load

    def test_server_alone_is_a_whole_configuration(self):
        gapless = self.bound()
        self.assert_steered(gapless)
        before = harness.settled(lambda: self.held(gapless))
        load = self.load(RATE)
        for generation in range(2, UPGRADES + 2):
            self.upgrade(gapless, generation)
            self.assert_steered(gapless)
        report = load.stop()
        self.assert_each_answered(report, range(1, UPGRADES + 2))
        self.assertEqual(gapless.service()["listeners"][0]["name"], self.listen)
        self.assert_holds_no_more(gapless, before, self.FILLERS)
        harness.note(f"{UPGRADES} upgrades, {report['answered']} requests at {report['answered'] / report['duration_s']:.0f}/s, "
                     f"0 failed, longest gap {report['longest_gap']['ms']:.1f} ms")
        self.assertEqual(gapless.terminate(), 0)
        self.assertFalse(capturing.listening(self.port))

    def test_workers_come_and_go(self):
        gapless = self.bound("-n", "2")
        before = harness.settled(lambda: self.held(gapless))
        load = self.load(RATE // 2)
        for _ in range(3):
            for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2)):
                gapless.signal(number)
                harness.wait_until(lambda: [worker["state"] for worker in exact.workers(gapless.service())]
                                   == ["ready"] * count, f"{count} workers")
        self.assert_clean(load.stop())
        self.assert_holds_no_more(gapless, before, self.FILLERS)

    # -- versions that are bad

    def fails(self, gapless, commands):
        """The upgrade to each of the commands fails, in the words that go with it, and changes nothing."""
        before = harness.settled(lambda: self.held(gapless))
        load = self.load()
        for generation, (command, words) in enumerate(commands, start=2):
            self.install(*command)
            gapless.hup()
            self.assert_upgrade_fails(gapless, generation, *words)
        self.assert_each_answered(load.stop(), [1])
        self.assert_holds_no_more(gapless, before, self.FILLERS)
        self.install(*self.binder())
        self.upgrade(gapless, len(commands) + 2)

    def test_new_version_that_is_bad_changes_nothing(self):
        """… also one that ends when it listens at one of two ports."""
        both = [self.address, *(f"127.0.0.1:{port}" for port in self.free_ports(1))]
        self.install(*self.binder(at=both))
        gapless = self.bound("--ready-timeout", "500ms", command=self.installed())
        self.fails(gapless, [(self.binder("--deaf", at=both), ["not ready within"]),
                             (["/bin/true"], ["ended|exited"]),
                             (self.binder(at=[self.address, "192.0.2.1:1"]), ["ended|exited"])])

    def test_version_that_listens_elsewhere_is_refused(self):
        """… at none of the addresses that are served; the one before goes on."""
        self.install(*self.binder())
        gapless = self.bound(command=self.installed())
        self.install(*self.binder(at=[f"127.0.0.1:{port}" for port in self.free_ports(1)]))
        load = self.load()
        gapless.hup()
        self.assert_upgrade_fails(gapless, 2, f"none of the addresses that are served .{self.address}")
        self.assert_each_answered(load.stop(), [1])

    # -- what dies

    def test_master_that_is_killed_goes_on(self):
        gapless = self.bound()
        before = harness.settled(lambda: self.held(gapless))
        load = self.load()
        for generation in range(2, 2 + KILLS):
            self.kill_master(gapless)
            gapless.wait_serving(generation - 1)
            self.assert_steered(gapless)
            self.upgrade(gapless, generation)
        self.assert_each_answered(load.stop(), range(1, 2 + KILLS))
        self.assert_holds_no_more(gapless, before, self.FILLERS + 1)


class Tier(Basic):
    """… and what each tier does in its own way."""

    def test_workers_bind_the_same_port(self):
        workers = 4
        gapless = self.bound("-n", workers)
        load = self.load(RATE // 2)
        for generation in (1, 2, 3):
            for worker in range(workers):
                self.record(generation, worker).wait("accepted", lambda accepted: accepted > 0)
            if generation < 3:
                self.upgrade(gapless, generation + 1)
        self.assert_each_answered(load.stop(), (1, 2, 3), workers)

    def test_ports_come_and_go_at_the_switch(self):
        """The second worker of the new generation comes when it is told to: until then there is no switch."""
        come, go = self.free_ports(2)
        self.install(*self.binder(at=[self.address, f"127.0.0.1:{go}"]))
        gapless = self.bound("-n", "2", command=self.installed())
        load = self.load()
        self.install(*self.binder(at=[f"127.0.0.1:{come}", self.address]),
                     before=f"while [ $GAPLESS_WORKER = 1 ] && [ ! -e {self.dir}/go ]; do sleep 0.02; done")
        gapless.hup()
        gapless.log.wait("captured", generation=2, address=self.address)
        for _ in range(20):
            if self.REFUSES:
                self.assertFalse(capturing.listening(come), "a new port refuses until the switch")
            self.assertEqual(harness.version_at(("127.0.0.1", go)), ("one", 1))
        self.write("go", "")
        gapless.wait_serving(2)
        self.assertEqual(harness.version_at(("127.0.0.1", come)), ("one", 2))
        self.assertFalse(capturing.listening(go), "a port that the new version doesn't have refuses")
        self.assert_steered(gapless, self.listen, f"tcp:127.0.0.1:{come}")
        self.upgrade(gapless, 3)
        self.assertEqual(harness.version_at(("127.0.0.1", come)), ("one", 3))
        self.assert_clean(load.stop())

    def test_worker_that_is_killed_is_replaced(self):
        gapless = self.bound("--backoff-initial", "100ms")
        before = harness.settled(lambda: self.held(gapless))
        for _ in range(3):
            (pid,) = gapless.worker_pids()
            mark = gapless.log.mark()
            os.kill(pid, signal.SIGKILL)
            gapless.log.wait("worker ready", after=mark)
            self.assertEqual(harness.version_at(self.target_address()), ("one", 1))
        self.assert_holds_no_more(gapless, before, self.FILLERS)


class Captured(Tier):
    """… and what no tier does in its own way."""

    def test_named_listener_is_the_servers_own_socket(self):
        for how in ("auto", "on"):
            gapless = self.bound("--capture", how, "-l", f"web={self.listen}")
            self.assert_steered(gapless)
            self.assertEqual(gapless.service()["listeners"][0]["name"], "web")
            load = self.load()
            for generation in (2, 3):
                self.upgrade(gapless, generation)
            self.assert_each_answered(load.stop(), (1, 2, 3))
            self.assertTrue(gapless.log.find("captured", generation=3), gapless.log.text())
            self.assertEqual(gapless.terminate(), 0)
            self.open_address()

    def test_new_version_that_is_bad_for_a_named_listener_changes_nothing(self):
        self.install(*self.binder())
        gapless = self.bound("--ready-timeout", "500ms", "-l", self.listen, command=self.installed())
        (other,) = self.free_ports(1)
        self.fails(gapless, [(self.binder("--deaf"), ["not ready within"]),
                             (self.binder(at=[f"127.0.0.1:{other}"]), [f"tcp:{self.address}"]),
                             (self.binder(at=["192.0.2.1:1"]), ["ended|exited"])])

    def test_master_that_is_killed_around_the_switch(self):
        gapless = self.bound()
        load = self.load()
        for generation, delay_s in enumerate((0, 0.002, 0.005, 0.01, 0.02, 0.2), start=2):
            gapless.upgrade_with_killed_master(generation, delay_s)
        self.assert_clean(load.stop())


class Sharing:
    """… and in the tiers where several sockets share an address."""

    def test_master_that_is_killed_while_a_worker_binds(self):
        """The worker binds and listens for long: whichever of its calls is under way, the next master answers it."""
        self.install(*self.binder("--many", MANY))
        gapless = self.bound(command=self.installed())
        load = self.load()
        begin, generation = self.dir / "begin", 1
        self.install(*self.binder("--many", MANY), before=f"while [ ! -e {begin} ]; do sleep 0.01; done")
        for delay_ms in range(KILLS):
            begin.unlink(missing_ok=True)
            mark = gapless.log.mark()
            gapless.hup()
            gapless.log.wait("worker started", after=mark)
            master = gapless.wait_master()
            self.write("begin", "")
            gapless.log.wait("captured", after=mark)
            time.sleep(delay_ms * 0.002)  # the moment is what is varied
            os.kill(master, signal.SIGKILL)
            gapless.wait_master(but=master)
            harness.wait_until(lambda: (gapless.service() or {}).get("upgrade", {}).get("state") == "idle" and
                               len(gapless.service()["generations"]) == 1, "the upgrade to end, in whatever way")
            generation = gapless.generation()
        self.install(*self.binder("--many", MANY))
        gapless.upgrade_by_hup()
        self.assert_clean(load.stop())
        harness.note(f"killed {KILLS} times while a worker bound, of which {generation - 1} upgrades were made")

    def test_sockets_of_a_worker_come_and_go_under_load(self):
        gapless = self.bound(command=self.binder("--many", MANY))
        load = self.load(RATE)
        for generation in range(2, UPGRADES + 2):
            self.upgrade(gapless, generation)
            self.record(generation).wait("accepted", lambda value: value)
        self.assert_each_answered(load.stop(), range(1, UPGRADES + 2))

    def test_socket_of_a_process_that_ends_is_not_chosen(self):
        """Each process of the worker has a socket of its own; of one that ends nothing is left behind that gets connections."""
        gapless = self.bound(command=self.binder("--processes", "3"))
        (leader,) = gapless.worker_pids()
        for _ in range(3):
            mark, children = gapless.log.mark(), harness.children_of(leader)
            os.kill(children[0], signal.SIGKILL)
            gapless.log.wait("captured", after=mark)
            harness.wait_until(lambda: len(harness.children_of(leader)) == 3, "the next process")
        clients = [self.ask() for _ in range(QUEUED)]
        self.assertEqual([harness.read_answer(client)[0] for client in clients], [200] * QUEUED)
        self.upgrade(gapless, 2)

    def test_socket_that_only_another_session_has_is_kept(self):
        gapless = self.bound(command=[sys.executable, self.write("elsewhere.py", ELSEWHERE), str(self.port)])
        load = harness.Load(self, "--rate", 100, self.target)
        time.sleep(LOOKS_S)  # the time is what is tested: looks happen meanwhile
        self.assert_clean(load.stop())
        self.assert_steered(gapless)

    def test_server_that_opens_its_socket_anew(self):
        gapless = self.bound(command=self.binder("--rebind"))
        before = harness.settled(lambda: self.held(gapless))
        for _ in range(3):
            mark = gapless.log.mark()
            os.kill(gapless.worker_pids()[0], signal.SIGUSR1)
            gapless.log.wait("opened its sockets anew", after=mark)
            clients = [self.ask() for _ in range(QUEUED)]
            self.assertEqual([harness.read_answer(client)[0] for client in clients], [200] * QUEUED)
        self.assert_holds_no_more(gapless, before, self.FILLERS)
        self.upgrade(gapless, 2)


@exact.needs_bpf
class EbpfTest(Captured, Sharing, capturing.TestCase):
    def test_what_waits_for_a_worker_that_dies_is_answered_by_its_successor(self):
        gapless = self.bound("--backoff-initial", "100ms")
        (pid,) = gapless.worker_pids()
        os.kill(pid, signal.SIGSTOP)
        clients = [self.ask() for _ in range(QUEUED)]
        os.kill(pid, signal.SIGKILL)
        self.assertEqual([harness.read_answer(client)[0] for client in clients], [200] * QUEUED)
        self.record().wait("answers", lambda answers: answers == QUEUED)

    def test_busy_server_that_ends_when_accept_fails_keeps_its_queue(self):
        server = self.write("slots.py", SLOTS)
        gapless = self.bound(command=[sys.executable, server, str(self.port)])
        load = harness.Load(self, "--clients", 40, "--by-body", "--timeout", "20s", self.target)
        self.upgrade(gapless, 2)
        report = load.stop()
        self.assert_clean(report)
        self.assertEqual(set(report["by"]), {"1", "2"})
        self.assertIn("was killed by signal 15", gapless.log.wait("worker ended", generation=1).fields["how"])

    def test_probe_is_waited_for(self):
        for named in (False, True):
            self.install(*self.binder())
            gapless = self.bound("--ready-timeout", "500ms", "--ready-probe", "http:/version",
                                 *(("-l", self.listen) if named else ()), command=self.installed())
            load = self.load()
            self.install(*self.binder("--mute"))
            gapless.hup()
            self.assert_upgrade_fails(gapless, 2, "ready.probe")
            self.install(*self.binder())
            self.upgrade(gapless, 3)
            report = load.stop()
            self.assert_clean(report)
            self.assertEqual(set(report["by"]), {"1", "3"})
            self.assertEqual(gapless.terminate(), 0)
            self.open_address()

    def test_server_that_takes_sockets_is_followed_by_one_that_binds(self):
        self.install(harness.program("GAPLESS_EXACT"), "threads", str(self.records))
        gapless = self.bound("-l", self.listen, command=self.installed())
        load = self.load()
        self.install(*self.binder())
        for generation in (2, 3):
            self.upgrade(gapless, generation)
        self.assert_each_answered(load.stop(), (1, 2, 3))

    def test_flows_of_datagrams_stay_with_their_worker(self):
        port = harness.free_port(kind=socket.SOCK_DGRAM)
        # Without NOTIFY_SOCKET: that it has bound is that it is ready.
        gapless = self.bound("-n", "2", "-l", f"udp:127.0.0.1:{port},flow_idle=500ms", command=[
            "env", "-u", "NOTIFY_SOCKET", harness.program("GAPLESS_DATAGRAMS"), "serve", "--bind", f"127.0.0.1:{port}"])
        self.assertEqual(gapless.service()["listeners"][0]["steering"], self.STEERING)
        client = datagrams.Flows(self, port, "--flows", 50 if harness.SANITIZED else 300, "--rate", 5, "--flow-life", "100:600")
        for generation in (2, 3):
            client.wait(lambda report: str(generation - 1) in report["generations"], "flows of the generation that serves")
            self.upgrade(gapless, generation)
        client.wait(lambda report: "3" in report["generations"], "flows of the last generation")
        report = client.stop()
        self.assertEqual({key: report[key] for key in datagrams.WRONG if report[key]}, {}, report)
        self.assertEqual(set(report["generations"]), {"1", "2", "3"})

    def test_servers_that_others_wrote(self):
        node = shutil.which("node")
        ports = self.free_ports(2 if node else 1)
        running = [self.begin("--", sys.executable, "-m", "http.server", "--bind", "127.0.0.1", ports[0])]
        if node:
            self.write("server.js", "require('http').createServer((request, answer) => answer.end('node\\n'))"
                                    f".listen({ports[1]}, '127.0.0.1')")
            running.append(self.begin("--", node, self.dir / "server.js"))
        for gapless in running:
            gapless.wait_serving(1)
        load = harness.Load(self, "--rate", 200, *(f"tcp:127.0.0.1:{port}" for port in ports))
        for generation in (2, 3):
            for gapless in running:
                gapless.hup()
            for gapless in running:
                gapless.wait_serving(generation)
        self.assert_clean(load.stop(), at_least=50)


@unittest.skipUnless(os.getuid() == 0 and shutil.which("setpriv"), "only root can become nobody")
class NobodyTest(Basic, capturing.TestCase):
    """Nothing that takes a privilege."""

    STEERING = "cbpf"
    WRAPPER = capturing.NOBODY
    FILLERS = 4


class ClassicTest(Tier, Sharing, capturing.TestCase):
    STEERING = "cbpf"
    FLAGS = ("--steering", "cbpf")
    REFUSES = False
    FILLERS = 4


class SharedTest(Tier, capturing.TestCase):
    """The master's socket in the place of the server's, which therefore is told to stop accepting."""

    STEERING = "shared"
    REFUSES = False
    FLAGS = ("--steering", "shared", "--drain-signal", "USR2")
    BINDER = ("--graceful",)

    def test_socket_in_the_place_of_the_servers_has_its_flags(self):
        for options, wanted in (((), os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK), (("--blocking",), os.O_RDWR | os.O_CLOEXEC)):
            gapless = self.bound("-l", self.listen, command=self.binder(*options))
            (pid,) = gapless.worker_pids()
            number = max(number for number, what in harness.descriptors(pid).items() if what.startswith("socket:"))
            flags = pathlib.Path(f"/proc/{pid}/fdinfo/{number}").read_text().partition("flags:")[2].split()[0]
            self.assertEqual(oct(int(flags, 8)), oct(wanted))
            self.assertEqual(gapless.terminate(), 0)
            self.open_address()


class PathTest(capturing.TestCase):
    """A server that removes its path before it binds and when it ends, and changes its mode."""

    BINDER = ("--unlink", "--mode", "0606")

    def open_address(self):
        self.path = self.dir / "web.sock"
        self.address = str(self.path)
        self.listen = self.target = f"unix:{self.path}"

    def target_address(self):
        return str(self.path)

    def serve_path(self, *arguments, options=(), **keywords):
        return self.bound("-l", ",".join([self.listen, *options]), *arguments, **keywords)

    def mode(self):
        return os.stat(self.path).st_mode & 0o777

    def test_upgrades_under_load_lose_nothing(self):
        gapless = self.serve_path()
        self.assertEqual(gapless.service()["listeners"][0]["steering"], "path")
        before = harness.settled(lambda: self.held(gapless))
        load = self.load(RATE)
        for generation in range(2, UPGRADES + 2):
            self.upgrade(gapless, generation)
            self.assertEqual(self.mode(), 0o606)
            self.record(generation).wait("accepted", lambda value: value)
        self.assert_each_answered(load.stop(), range(1, UPGRADES + 2))
        self.assert_holds_no_more(gapless, before)
        self.assertEqual(gapless.log.find("taken away|stands where"), [])
        self.assertEqual(gapless.terminate(), 0)
        self.assertEqual([path.name for path in self.dir.glob("*web.sock*")] + [path.name for path in self.dir.glob(".web*")], [])

    @unittest.skipUnless(os.geteuid() == 0, "changing the user takes root")
    def test_path_belongs_to_the_servers_user(self):
        """… who changes its mode, which takes the owner."""
        gapless = self.serve_path("--user", "65534", "--group", "65534")
        for generation in (2, 3):
            self.upgrade(gapless, generation)
            self.assertEqual((os.stat(self.path).st_uid, self.mode()), (65534, 0o606))

    def test_listeners_mode_is_what_counts(self):
        """… where the server doesn't change it."""
        self.BINDER = ("--unlink",)
        gapless = self.serve_path(options=["mode=0660"])
        for generation in (2, 3):
            self.assertEqual(self.mode(), 0o660)
            self.upgrade(gapless, generation)

    def test_server_that_removes_nothing_binds_all_the_same(self):
        self.BINDER = ()
        gapless = self.serve_path()
        load = self.load()
        for generation in (2, 3):
            self.upgrade(gapless, generation)
        self.assert_each_answered(load.stop(), (1, 2, 3))

    def test_workers_bind_the_same_path(self):
        gapless = self.serve_path("-n", "2")
        load = self.load()
        for generation in (2, 3):
            self.upgrade(gapless, generation)
        self.assert_clean(load.stop())

    def test_master_that_is_killed_goes_on(self):
        gapless = self.serve_path()
        load = self.load()
        for generation in range(2, 2 + KILLS):
            self.kill_master(gapless)
            self.upgrade(gapless, generation)
        self.assert_each_answered(load.stop(), range(1, 2 + KILLS))
        self.assertEqual(self.mode(), 0o606)

    def test_what_is_not_its_business_is_left_alone(self):
        """… also where unlink() and rename() are looked at."""
        at = f"127.0.0.1:{harness.free_port()}"
        alone, captured = self.dir / "alone", self.dir / "captured"
        subprocess.run(self.binder("--calls", alone, "--calls-only", at=[at]), check=True, timeout=harness.PATIENCE)
        self.serve_path("-l", f"tcp:{at}", command=self.binder("--calls", captured, at=[at, self.address]))
        # It may serve before it has written the last line.
        harness.wait_until(lambda: len(captured.read_text()) >= len(alone.read_text()), "all of its calls")
        self.assertEqual(captured.read_text(), alone.read_text())


if __name__ == "__main__":
    harness.main(at_a_time=2)
