#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Upgrades in a row of unmodified servers whose clients of kept connections are told to close, among clients that reset and workers
that are killed: no request of a client that honours close fails, and in the end nothing is left in the kernel and nowhere else.

Thirty upgrades (with sanitizers twelve), with GAPLESS_TEST_FULL=1 a thousand; GAPLESS_TEST_UPGRADES says another number.
"""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import exact
import harness

UPGRADES = int(os.environ.get("GAPLESS_TEST_UPGRADES", 1000 if os.environ.get("GAPLESS_TEST_FULL") == "1" else 12 if harness.SANITIZED else 30))
SETTLED = UPGRADES // 2
# From then on memory of its own may grow by no more than this. The second figure isn't a leak (malloc has as many bytes in use after each
# upgrade, as malloc_stats() says): glibc spreads over its heap, which the master gives back to the kernel when BPF is loaded.
GROWTH_KIB, GROWTH_KIB_PER_UPGRADE = 256, 1
KEPT = 8  # clients of either service that send on kept connections
BPFTOOL = shutil.which("bpftool", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
TROUBLE = re.compile(r"WARNING|BUG|Call Trace|rcu|refcount_t")


# ---- what is in the kernel ----


def bpftool(*arguments):
    """What it prints as JSON, None where it fails: what was asked for may have gone."""
    done = subprocess.run([BPFTOOL, "-j", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


class Kernel:
    """The BPF programs and maps of a gapless: those of its descriptors, and what hangs on them. The program that is attached to the
    map of the connections, say, has no descriptor."""

    def __init__(self, *pids):
        held = []
        for path in [path for pid in pids for path in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir()]:
            with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                held.append(path.read_text())
        self.maps = {int(number) for text in held for number in re.findall(r"(?m)^map_id:\s*(\d+)", text)}
        self.programs = {int(number) for text in held for number in re.findall(r"(?m)^prog_id:\s*(\d+)", text)}
        of_program = {each["id"]: set(each.get("map_ids", [])) for each in bpftool("prog", "show") or []}
        self.programs |= {number for number, maps in of_program.items() if maps & self.maps}
        self.maps |= {number for program in self.programs for number in of_program.get(program, ())}
        self.names = {each["id"]: each.get("name") for each in bpftool("map", "show") or [] if each["id"] in self.maps}

    def map_id(self, name):
        (found,) = [number for number, other in self.names.items() if other == name]
        return found

    def counts(self):
        return len(self.programs), len(self.maps)

    def left(self):
        """What is there still, of programs and of maps."""
        return [sorted(numbers & {each["id"] for each in bpftool(kind, "show") or []})
                for kind, numbers in (("prog", self.programs), ("map", self.maps))]


def entries(number):
    """Of a sockhash: how many connections are in it."""
    return len([entry for entry in bpftool("map", "dump", "id", number) or [] if "error" not in entry.get("value", {})])


def flags(number):
    """Of an array of bytes: the keys of those that are set."""
    return [entry["formatted"]["key"] if "formatted" in entry else entry["key"]
            for entry in bpftool("map", "dump", "id", number) or [] if any(int(byte, 16) for byte in entry["value"])]


def kernel_log():
    """Lines of dmesg, none where it can't be read."""
    done = subprocess.run(["dmesg"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


# ---- clients that don't behave ----


class Resets(threading.Thread):
    """Connections that are reset in whatever moment; not more than some hundred a second."""

    REQUEST = b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n"

    def __init__(self, ports, seed):
        super().__init__(daemon=True)
        self.ports, self.random, self.count, self._end = ports, random.Random(seed), 0, threading.Event()

    def run(self):
        while not self._end.wait(self.random.random() / 100):
            with contextlib.suppress(OSError), harness.connect(("127.0.0.1", self.random.choice(self.ports)), 5) as client:
                self.random.choice((self.idle, self.half_asked, self.unread, self.half_heard))(client)
                self._end.wait(self.random.choice((0, self.random.random() / 20)))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.count += 1

    def ask(self, client, path=b"/"):
        client.sendall(self.REQUEST % path)

    def idle(self, client):
        for _ in range(self.random.randint(1, 5)):
            self.ask(client)
            client.recv(4096)

    def half_asked(self, client):
        self.idle(client)
        client.sendall(self.REQUEST[:self.random.randint(1, 20)])

    def unread(self, client):
        for _ in range(self.random.randint(1, 5)):
            self.ask(client, self.random.choice((b"/", b"/wait?20", b"/bytes?1000000")))

    def half_heard(self, client):
        self.ask(client, b"/bytes?1000000")
        client.recv(self.random.randint(1, 100000))

    def stop(self):
        self._end.set()
        self.join()


class Killer(threading.Thread):
    """Holds connections of a service, silent, so that its workers don't leave at once, and kills one of those that leave now and
    then."""

    def __init__(self, gapless, name, port, seed):
        super().__init__(daemon=True)
        self.gapless, self.name, self.port = gapless, name, port
        self.random, self.count, self._end = random.Random(seed), 0, threading.Event()

    def run(self):
        while not self._end.is_set():
            with contextlib.ExitStack() as held:
                with contextlib.suppress(OSError, AssertionError):
                    for _ in range(3):
                        client = held.enter_context(harness.connect(("127.0.0.1", self.port), 5))
                        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                        harness.read_answer(client)
                    self.kill_one()

    def kill_one(self):
        """Of the next generation that leaves."""
        leaving = []
        while not leaving and not self._end.wait(0.02):
            leaving = [worker["pid"] for generation in (self.gapless.service(self.name) or {"generations": []})["generations"]
                       if generation["state"] == "draining" for worker in generation["workers"]]
        if leaving:
            self._end.wait(self.random.random() / 10)  # the moment is what is varied
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.random.choice(leaving), signal.SIGKILL)
                self.count += 1

    def stop(self):
        self._end.set()
        self.join()


# ---- the case ----


@exact.needs_bpf
class KeepaliveEnduranceTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        if not BPFTOOL:
            self.skipTest("bpftool is missing")

    def begin(self):
        """Two services of two workers: of the one each request counts, of the other workers are killed. Their ports."""
        ports = {"web": harness.free_port()}
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", ports["web"]))
            ports["victim"] = harness.free_port()
        service = """
  {name}:
    listen: ["tcp:127.0.0.1:{port}"]
    command: ["{exact}", threads]
    workers: 2
    observe: {{window: 0}}
    drain: {{signal: USR2, quiet: 20ms, idle_grace: {grace}, timeout: 10s}}
"""
        services = [service.format(name=name, port=port, exact=harness.program("GAPLESS_EXACT"), grace=grace)
                    for (name, port), grace in zip(ports.items(), ("3s", "200ms"))]
        self.gapless = self.start("-c", self.write("gapless.yaml", "tracker: ebpf\nservices:" + "".join(services)))
        for name in ports:
            self.gapless.wait_serving(1, name)
            self.assertEqual(self.gapless.service(name)["keepalive"]["name"], "ebpf")
        return ports

    def upgrade(self, generation):
        self.gapless.hup()
        for name in ("web", "victim"):
            self.gapless.wait_serving(generation, name)

    def first_upgrade(self, port):
        """… with one connection that is kept: while it is there, what must be empty in the end isn't."""
        kernel = Kernel(*self.processes.values())
        with harness.connect(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            harness.read_answer(client)
            self.gapless.hup()
            harness.wait_until(lambda: entries(kernel.map_id("enlisted")) == 1, "the connection to be enlisted")
            self.assertTrue(flags(kernel.map_id("leaving")))
        for name in ("web", "victim"):
            self.gapless.wait_serving(2, name)

    def looked(self):
        """What must not grow: descriptors and memory by process, BPF programs and maps."""
        return {"descriptors": {name: len(harness.descriptors(pid)) for name, pid in self.processes.items()},
                "own_kib": {name: harness.memory_kib(pid, "Anonymous") for name, pid in self.processes.items()},
                "rss_kib": {name: harness.memory_kib(pid, "Rss") for name, pid in self.processes.items()},
                "bpf": Kernel(*self.processes.values()).counts()}

    def test_nothing_fails_and_nothing_is_left(self):
        before, ports, seed = set(kernel_log()), self.begin(), time.time_ns()
        harness.note(f"seed {seed}, {UPGRADES} upgrades")
        gapless = self.gapless
        self.processes = {"keeper": gapless.keeper_pid(), "master": gapless.master_pid()}
        self.first_upgrade(ports["web"])
        first = harness.settled(self.looked)
        loads = {name: harness.Load(self, "--keepalive", KEPT, "--interval", "2ms", f"tcp:127.0.0.1:{port}/")
                 for name, port in ports.items()}
        disturbers = [Resets(list(ports.values()), seed), Killer(gapless, "victim", ports["victim"], seed + 1)]
        for each in disturbers:
            each.start()
        began = time.monotonic()
        for generation in range(3, UPGRADES + 2):
            self.upgrade(generation)
            if generation == SETTLED:
                settled = self.looked()
        took = time.monotonic() - began
        for each in disturbers:
            each.stop()
        reports = {name: load.stop() for name, load in loads.items()}
        self.note_figures(took, reports, disturbers)
        self.assert_told(reports["web"])
        self.assert_nothing_left(first, settled)
        self.assert_nothing_left_behind()
        self.assertEqual([line for line in kernel_log() if line not in before and TROUBLE.search(line)], [])

    def note_figures(self, took, reports, disturbers):
        told = {name: report["connections"]["told_to_close"] for name, report in reports.items()}
        failed = {outcome: count for outcome, count in reports["victim"]["outcomes"].items() if count and outcome != "answered"}
        harness.note(f"{UPGRADES} upgrades of two services in {took:.0f} s, {reports['web']['answered']} answers, connections told to "
                     f"close {told}, {disturbers[0].count} resets, {disturbers[1].count} workers killed; where they were {failed}")

    def assert_told(self, report):
        """Of each upgrade at least one client was told, or the case shows nothing."""
        self.assert_clean(report, UPGRADES)
        self.assertGreaterEqual(report["connections"]["told_to_close"], UPGRADES - 1)

    def assert_nothing_left(self, first, settled):
        gapless, kernel = self.gapless, Kernel(*self.processes.values())
        self.assertEqual(gapless.master_pid(), self.processes["master"], "it must be the same master throughout")
        harness.wait_until(lambda: entries(kernel.map_id("enlisted")) == 0,
                           lambda: f"no connection to be enlisted, there are {entries(kernel.map_id('enlisted'))}")
        harness.wait_until(lambda: not flags(kernel.map_id("leaving")),
                           lambda: f"no worker to leave, there are {flags(kernel.map_id('leaving'))}")
        harness.wait_until(lambda: self.looked()["descriptors"] == first["descriptors"],
                           lambda: f"{first['descriptors']} descriptors: "
                                   f"{ {name: sorted(harness.descriptors(pid).items()) for name, pid in self.processes.items()} }")
        self.assert_no_zombies(gapless.pid)
        self.assert_processes(gapless.pid, 5)  # master and four workers
        self.assertEqual(self.looked()["bpf"], first["bpf"], "BPF programs and maps")
        last = self.looked()
        harness.note(f"descriptors {last['descriptors']}, BPF programs and maps {last['bpf']}")
        for key in ("own_kib", "rss_kib"):
            harness.note(f"{key} after the first upgrade {first[key]}, after {SETTLED} {settled[key]}, after {UPGRADES} {last[key]}")
        for name, kib in last["own_kib"].items():
            if not harness.SANITIZED:
                self.assertLessEqual(kib - settled["own_kib"][name], GROWTH_KIB + GROWTH_KIB_PER_UPGRADE * (UPGRADES - SETTLED), name)

    def assert_nothing_left_behind(self):
        kernel = Kernel(*self.processes.values())
        self.assertNotEqual(kernel.left(), [[], []])
        self.assertEqual(self.gapless.terminate(), 0)
        harness.wait_until(lambda: kernel.left() == [[], []], lambda: f"BPF programs and maps to go, there are {kernel.left()}")


if __name__ == "__main__":
    harness.main()
