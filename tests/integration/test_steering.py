#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Traffic moves in one step from generation to generation. The server knows nothing: it goes on accepting until TERM ends it
at once, closes each connection after its answer, and is told nothing.

Each class is the same tests in another tier or with another kind of address.
GAPLESS_TEST_UPGRADES (10): how many under load; GAPLESS_TEST_RATE (1500): new connections a second. tools/steering asks for more.
"""

import os
import select
import shutil
import signal
import socket
import statistics
import time
import unittest

import datagrams
import exact
import harness

UPGRADES = int(os.environ.get("GAPLESS_TEST_UPGRADES", 3 if harness.SANITIZED else 10))
RATE = int(os.environ.get("GAPLESS_TEST_RATE", 200 if harness.SANITIZED else 1500))
FLOW_UPGRADES = 50 if UPGRADES >= 50 else 3
QUICK = ("--drain-quiet", "50ms", "--drain-idle-grace", "0")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
QUEUED = 50


class Steered:
    """The tests; a class with an address and a TestCase adds the rest."""

    STEERING = "ebpf"
    WRAPPER = ()
    OPTIONS = ()
    HOST = "127.0.0.1"

    def setUp(self):
        super().setUp()
        self.dir.chmod(0o777)  # nobody's gapless works there, too
        self.records = self.dir / "record"
        self.open_address()

    def open_address(self):
        self.port = harness.free_port()
        host = f"[{self.HOST}]" if ":" in self.HOST else self.HOST
        self.listen = self.target = f"tcp:{host}:{self.port}"
        self.address = (self.HOST, self.port)

    def spec(self, *options):
        return ",".join([self.listen, *self.OPTIONS, *options])

    def server(self, mode="threads"):
        return ["--", harness.program("GAPLESS_EXACT"), mode, str(self.records)]

    def run_exact(self, *flags, options=(), mode="threads"):
        gapless = self.serve(*QUICK, *flags, "-l", self.spec(*options), *self.server(mode), wrapper=self.WRAPPER)
        self.assertEqual(gapless.service()["listeners"][0]["steering"], self.STEERING, gapless.log.text())
        return gapless

    def load(self, *options, rate=RATE // 4):
        return harness.Load(self, "--rate", rate, *options, self.target)

    def record(self, generation=1, worker=0):
        return exact.Record(self.records, generation, worker)

    # -- under load

    def test_upgrades_under_load_lose_nothing(self):
        """… and every connection that a generation accepted it has answered."""
        gapless = self.run_exact()
        load = self.load("--by-header", "X-Generation", rate=RATE)
        for generation in range(2, UPGRADES + 2):
            gapless.hup()
            gapless.wait_serving(generation)
            self.record(generation).wait("accepted", lambda value: value)
        report = load.stop()
        self.assert_clean(report)
        counts = {int(generation): each["count"] for generation, each in report["by"].items()}
        self.assertEqual(set(counts), set(range(1, UPGRADES + 2)))
        for generation in range(1, UPGRADES + 2):
            record = self.record(generation).read()
            self.assertEqual((record["accepted"], record["answers"]), (counts[generation], counts[generation]))
        self.assertEqual(gapless.log.find("still wait"), [])
        harness.note(f"{UPGRADES} upgrades, {report['answered']} requests at "
                     f"{report['answered'] / report['duration_s']:.0f}/s, 0 failed, "
                     f"longest gap {report['longest_gap']['ms']:.1f} ms")

    def test_failed_upgrades_change_nothing(self):
        exact_server = " ".join(self.server()[1:])
        server = self.write("server", f"#!/bin/sh\n[ $GAPLESS_GENERATION = 1 ] && exec {exact_server}\nexit 3\n", 0o755)
        gapless = self.serve(*QUICK, "-l", self.spec(), "--", server, wrapper=self.WRAPPER)
        before = harness.settled(lambda: len(harness.descriptors(gapless.master_pid())))
        load = self.load()
        for generation in range(2, 6):
            gapless.hup()
            gapless.log.wait("upgrade failed", generation=generation)
            harness.wait_until(lambda: len(gapless.service()["generations"]) == 1, "the failed generation to be gone")
        self.assert_clean(load.stop())
        self.assertEqual(gapless.generation(), 1)
        # One filler may stay (listener.h).
        fillers = self.STEERING == "cbpf"
        harness.wait_until(lambda: len(harness.descriptors(gapless.master_pid())) <= before + fillers,
                           lambda: f"{before} descriptors at most, not {harness.descriptors(gapless.master_pid())}")

    def test_master_that_is_killed_goes_on_steering(self):
        gapless = self.run_exact()
        load = self.load()
        for generation in range(2, 5):
            master = gapless.wait_master()
            os.kill(master, signal.SIGKILL)
            gapless.wait_master(but=master)
            gapless.wait_serving(generation - 1)
            self.assertEqual(gapless.service()["listeners"][0]["steering"], self.STEERING)
            gapless.hup()
            gapless.wait_serving(generation)
        self.assert_clean(load.stop())

    def test_master_that_is_killed_around_the_switch(self):
        """Whenever that is: the new generation serves alone in the end, and nothing fails."""
        gapless = self.run_exact()
        load = self.load()
        for generation, delay_s in enumerate((0, 0.002, 0.005, 0.01, 0.02), start=2):
            gapless.upgrade_with_killed_master(generation, delay_s)
        self.assert_clean(load.stop())

    # -- what waits at a socket

    def ask(self):
        client = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else
                               socket.AF_INET6 if ":" in self.HOST else socket.AF_INET)
        self.addCleanup(client.close)
        client.settimeout(harness.PATIENCE)
        client.connect(self.address)
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        return client

    def answers(self, clients):
        return [harness.read_answer(client)[0] for client in clients]

    def test_what_waits_for_a_worker_that_crashes_waits_for_its_successor(self):
        """The first worker accepts nothing."""
        deaf = " ".join(self.server("deaf")[1:])
        hears = " ".join(self.server()[1:])
        server = self.write("server", f"#!/bin/sh\n[ -e {self.dir}/second ] && exec {hears}\n>{self.dir}/second\n"
                                      f"exec {deaf}\n", 0o755)
        gapless = self.serve(*QUICK, "--backoff-initial", "200ms", "-l", self.spec(), "--", server, wrapper=self.WRAPPER)
        clients = [self.ask() for _ in range(QUEUED)]
        os.kill(gapless.worker_pids()[0], signal.SIGKILL)
        self.assertEqual(self.answers(clients), [200] * QUEUED)


class Movable(Steered):
    """… and where the tier can move what waits."""

    def test_what_waits_at_a_worker_that_hangs_goes_to_the_new_generation(self):
        gapless = self.run_exact()
        old = gapless.worker_pids()[0]
        os.kill(old, signal.SIGSTOP)
        clients = [self.ask() for _ in range(QUEUED)]
        gapless.hup()
        gapless.log.wait("go to the new one", generation=1)
        self.assertEqual(self.answers(clients), [200] * QUEUED)
        os.kill(old, signal.SIGCONT)
        gapless.wait_serving(2)
        self.assertEqual(self.record(2)["answers"], QUEUED)


@exact.needs_bpf
class EbpfTest(Movable, harness.TestCase):
    def test_each_workers_queue_is_its_own(self):
        """200 connections wait at the socket of a worker that is killed: its successor answers them."""
        self.killed_worker("100ms", "answered by the successor", 0)

    def test_queue_of_a_dead_worker_goes_to_the_others(self):
        """… or, where none is ready within a second, the others do."""
        self.killed_worker("1h", "answered by the other worker", 1)

    def killed_worker(self, backoff, what, by):
        gapless = self.run_exact("-n", "2", "--backoff-initial", backoff, "--backoff-max", backoff, options=["per_worker"])
        pids = gapless.worker_pids(generation=1)
        os.kill(pids[0], signal.SIGSTOP)
        # The kernel chooses the socket: until 200 have come to the one that is stopped. Those are the ones without an answer
        # as soon as no more of them are than wait at one socket.
        waiting = []
        while len(waiting) < 200:
            waiting += [self.ask() for _ in range(100)]

            def all_wait():
                waiting[:] = [client for client in waiting if not self.has_answer(client)]
                queues = [queue for _, queue in harness.tcp_sockets(self.port, harness.TCP_LISTEN) if queue]
                return queues == [len(waiting)]
            harness.wait_until(all_wait, "the other worker to be idle")
        os.kill(pids[0], signal.SIGKILL)
        began = time.monotonic()
        self.assertEqual(self.answers(waiting), [200] * len(waiting))
        took = time.monotonic() - began
        self.record(1, by).wait("answers", lambda answers: answers >= len(waiting))
        harness.note(f"{len(waiting)} connections in the queue of the killed worker, {what} after {took:.2f} s")

    @staticmethod
    def has_answer(client):
        return bool(select.select([client], [], [], 0)[0])

    def test_worker_that_is_scaled_away_loses_nothing(self):
        gapless = self.run_exact("-n", "2", options=["per_worker"])
        load = self.load(rate=RATE)
        for _ in range(3):
            for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2)):
                gapless.signal(number)
                harness.wait_until(lambda: [worker["state"] for worker in exact.workers(gapless.service())]
                                   == ["ready"] * count, f"{count} workers")
        self.assert_clean(load.stop())

    def test_there_is_room_for_so_many_workers_own_sockets(self):
        gapless = self.run_exact("-n", "14", options=["per_worker"])
        for count in range(15, 29):
            gapless.signal(signal.SIGTTIN)
            gapless.log.wait("scaled", workers=count)
        harness.wait_until(lambda: [worker["state"] for worker in exact.workers(gapless.service())] == ["ready"] * 28,
                           "28 workers")
        gapless.signal(signal.SIGTTIN)
        gapless.log.wait("not scaled", room=28)

    def test_address_that_the_next_version_does_not_serve_refuses_from_the_switch_on(self):
        port = harness.free_port()
        config = f"services: {{web: {{command: {self.server()[1:]}, observe: {{window: 0}}, drain: {{quiet: 50ms, idle_grace: 0s}}, listen: [\"{{}}\"%s]}}}}"
        path = self.write("gapless.yaml", config.replace("%s", f", \"tcp:127.0.0.1:{port}\"").replace("{}", self.spec()))
        gapless = self.serve("-c", path)
        harness.connect(("127.0.0.1", port)).close()
        self.write("gapless.yaml", config.replace("%s", "").replace("{}", self.spec()))
        load = self.load()
        gapless.hup()
        gapless.wait_serving(2)
        with self.assertRaises(ConnectionRefusedError):
            harness.connect(("127.0.0.1", port))
        self.assert_clean(load.stop())

    def test_service_moves_between_the_tiers(self):
        config = f"services: {{web: {{command: {self.server()[1:]}, observe: {{window: 0}}, drain: {{quiet: 50ms, idle_grace: 0s}}, steering: %s, " \
                 f"listen: [\"{self.spec()}\"]}}}}"
        tiers = ("shared", "ebpf", "cbpf", "ebpf", "shared", "cbpf", "shared", "ebpf")
        path = self.write("gapless.yaml", config % tiers[0])
        gapless = self.serve("-c", path)
        load = self.load()
        for generation, tier in enumerate(tiers[1:], start=2):
            self.write("gapless.yaml", config % tier)
            gapless.hup()
            gapless.wait_serving(generation)
            self.assertEqual(gapless.service()["listeners"][0]["steering"], tier)
            master = gapless.wait_master()
            os.kill(master, signal.SIGKILL)
            gapless.wait_master(but=master)
            gapless.wait_serving(generation)
        report = load.stop()
        # From a shared socket an unmodified server is told to stop at once: what it was answering is cut (README).
        cut = report["attempted"] - report["answered"]
        harness.note(f"{len(tiers) - 1} changes of the tier, {report['answered']} answered, {cut} cut on the shared socket")
        self.assertEqual(report["outcomes"]["refused"], 0)

    def test_a_second_gapless_on_the_address_is_a_conflict(self):
        self.run_exact()
        second = self.start("-l", self.spec(), *self.server())
        self.assert_cannot_start(second, "address is in use", self.listen)


@exact.needs_bpf
class Ipv6Test(Movable, harness.TestCase):
    HOST = "::1"


@exact.needs_bpf
class DeferredTest(Movable, harness.TestCase):
    OPTIONS = ("defer_accept=1s",)


class ClassicTest(Steered, harness.TestCase):
    STEERING = "cbpf"
    OPTIONS = ("steering=cbpf",)


@unittest.skipUnless(os.getuid() == 0 and shutil.which("setpriv"), "only root can become nobody")
class NobodyTest(Steered, harness.TestCase):
    """Nothing that takes a privilege."""

    STEERING = "cbpf"
    WRAPPER = NOBODY

    def test_what_can_not_be_is_said(self):
        gapless = self.start("-l", self.spec("steering=ebpf"), *self.server(), wrapper=self.WRAPPER)
        self.assert_cannot_start(gapless, "steering=ebpf", "CAP_BPF" if exact.built_with_bpf() else "no BPF")


class PathTest(Steered, harness.TestCase):
    STEERING = "path"

    def open_address(self):
        self.path = self.dir / "web.sock"
        self.listen = self.target = f"unix:{self.path}"
        self.address = str(self.path)

    def tearDown(self):
        super().tearDown()
        for gapless in self.started:
            if isinstance(gapless, harness.Gapless) and gapless.process.poll() is None:
                gapless.terminate()
        self.assertEqual([path.name for path in self.dir.glob("*web.sock*")] + [path.name for path in self.dir.glob(".web*")], [])

    def test_server_that_unlinks_the_path_takes_nobodys_name_away(self):
        gapless = self.run_exact()
        load = self.load(rate=RATE)
        took_s = []
        for _ in range(100):
            mark, began = gapless.log.mark(), time.time()
            self.path.unlink()
            took_s.append(gapless.log.wait("taken away and is put back", after=mark).time() + 0.001 - began)  # whole ms
            self.assertEqual(harness.http_get(self.address)[0], 200)
        report = load.stop()
        # Between the unlink and the restoration there is no name, and that is all that may fail. How many come just then is no
        # measure: on a busy machine the master waits for its turn, and so do those who come, all at once then.
        refused = report["outcomes"]["refused"]
        self.assertEqual(report["answered"] + refused, report["attempted"], report["errors"])
        self.assertEqual([error for error in report["errors"] if error["errno"] != "ENOENT"], [])
        self.assertLess(statistics.median(took_s), 0.1)
        harness.note(f"the path was unlinked 100 times, and was back within {statistics.median(took_s) * 1000:.1f} ms (median; "
                     f"{max(took_s) * 1000:.1f} at most): {refused} of {report['attempted']} clients found none")

    def test_path_that_the_next_version_does_not_serve_vanishes_at_the_switch(self):
        gone = self.dir / "gone.sock"
        config = f"services: {{web: {{command: {self.server()[1:]}, observe: {{window: 0}}, drain: {{quiet: 50ms, idle_grace: 0s}}, listen: [\"{self.spec()}\"%s]}}}}"
        path = self.write("gapless.yaml", config % f", \"unix:{gone}\"")
        gapless = self.serve("-c", path)
        master = gapless.master_pid()
        harness.connect(str(gone)).close()
        self.write("gapless.yaml", config % "")
        load = self.load()
        gapless.hup()
        gapless.wait_serving(2)
        self.assertFalse(gone.exists())
        gone.write_text("somebody else's now")
        gone.unlink()
        gapless.upgrade_by_hup()
        self.assert_clean(load.stop())
        self.assertEqual(gapless.master_pid(), master, gapless.log.text())
        self.assertEqual(gapless.log.find("(taken away|stands where).*gone.sock"), [])

    def test_socket_has_mode_and_owner_and_the_public_name(self):
        gapless = self.serve("-l", self.spec("mode=0606"), *self.worker())
        facts = self.dump()["descriptors"]
        self.assertEqual(facts["3"]["address"], str(self.path))
        for _ in range(2):
            self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o606)
            gapless.upgrade_by_hup()

    def test_stale_names_of_a_killed_instance_are_cleaned(self):
        gapless = self.run_exact()
        os.kill(gapless.wait_master(), signal.SIGSTOP)  # or it would clean up when it sees the main process gone
        gapless.finish()
        self.assertTrue(list(self.dir.glob(".web.sock*")))
        self.run_exact()
        self.assertEqual(len(list(self.dir.glob(".web.sock*"))), 1)


@exact.needs_bpf
class DatagramTest(datagrams.TestCase):
    ALONE = True  # a flow that is late is one that was forgotten
    FLOWS = 100 if harness.SANITIZED else 1000
    PER_FLOW = 5

    def upgrades(self, *options, listen=()):
        port = harness.free_port()
        flows = [] if not options else options
        gapless = self.serve("--drain-quiet", "50ms", "-n", "2", "-l", ",".join([f"udp:127.0.0.1:{port}", "flow_idle=500ms", *listen]),
                             "--", harness.program("GAPLESS_DATAGRAMS"), "serve")
        self.assertEqual(gapless.service()["listeners"][0]["steering"], "ebpf")
        client = datagrams.Flows(self, port, "--flows", self.FLOWS, "--rate", self.PER_FLOW, "--flow-life", "100:600", *flows)
        for generation in range(2, FLOW_UPGRADES + 2):
            client.wait(lambda report: str(generation - 1) in report["generations"], "flows of the generation that serves")
            gapless.hup()
            gapless.wait_serving(generation)
        client.wait(lambda report: str(FLOW_UPGRADES + 1) in report["generations"], "flows of the last generation")
        report = client.stop()
        for key in datagrams.WRONG:
            self.assertEqual(report[key], 0, f"{key}: {report} {gapless.log.text()[-2000:]}")
        self.assertEqual(set(map(int, report["generations"])), set(range(1, FLOW_UPGRADES + 2)))
        harness.note(f"{FLOW_UPGRADES} upgrades, {report['flows_begun']} flows, {self.FLOWS} at a time, {report['sent']} datagrams: "
                     "0 lost, 0 misdelivered")

    def test_every_flow_stays_with_its_generation(self):
        self.upgrades()

    def test_connection_id_keeps_a_flow_that_moves(self):
        self.upgrades("--connection-id", "8", "--migrate", listen=["connection_id=8"])


class ManyTest(harness.TestCase):
    ALONE = True

    def test_time_of_the_switch_with_many_addresses(self):
        for count in (1, 16, 256):
            ports = []
            while len(ports) < count:
                port = harness.free_port()
                if port not in ports:
                    ports.append(port)
            listen = [flag for port in ports for flag in ("-l", f"tcp:127.0.0.1:{port}")]
            gapless = self.serve(*listen, "--", self.hello("one"))
            gapless.upgrade_by_hup()
            fields = gapless.log.wait("traffic switched").fields
            harness.note(f"{count} addresses: the switch took {fields['switch_us']} us, from the start of the upgrade "
                         f"{fields['took_ms']} ms")
            self.assertLess(int(fields["switch_us"]), 100000)
            self.assertEqual(gapless.terminate(), 0)


if __name__ == "__main__":
    harness.main(at_a_time=2)
