#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Upgrades and rollbacks of examples/kv: no item and no connection is lost, whatever was going on in it. GAPLESS_TEST_FULL=1: a
million items, twenty upgrades and five rollbacks where it is else some thousands, three and one."""

import contextlib
import json
import os
import re
import signal
import threading
import time

import harness
import kv
import transaction


FULL = os.environ.get("GAPLESS_TEST_FULL") == "1"
ITEMS = 1_000_000 if FULL else 5_000 if harness.SANITIZED else 20_000


class TestCase(harness.TestCase):
    STEERING = "auto"

    def setUp(self):
        super().setUp()
        self.port = harness.free_port()
        self.address = ("127.0.0.1", self.port)

    def release(self, version, *options):
        """Puts a version of kv where the service's command is; its path."""
        return self.write("server", "#!/bin/sh\nexec %s --version-name %s %s\n" % (
            harness.program("GAPLESS_KV"), version, " ".join(map(str, options))), 0o755)

    def begin(self, *options, observe=None, flags=()):
        """Version 1 serves; flags: of gapless."""
        command = self.release(1, *options)
        self.gapless = self.serve(
            "-l", f"cache=tcp:127.0.0.1:{self.port},steering={self.STEERING}", *flags, "--", command, observe=observe)
        return self.gapless

    def begin_with(self, *options, **keys):
        """The same by a configuration; keys: of the service."""
        service = {"command": [self.release(1, *options)], "listen": [f"tcp:127.0.0.1:{self.port}"], **keys}
        self.gapless = self.serve("-c", self.write("gapless.yaml", json.dumps({"services": {"cache": service}})))
        return self.gapless

    def client(self):
        client = kv.Client(self.address)
        self.addCleanup(client.close)
        return client

    def upgrade(self, version, *options):
        """To another version; returns when it serves alone."""
        self.release(version, *options)
        self.gapless.upgrade_by_hup()

    def upgrade_to_window(self, version, *options):
        """… when it is observed, with the old one on standby. The verb, which goes on."""
        self.release(version, *options)
        verb = transaction.Verb(self.gapless, "upgrade")
        harness.wait_until(lambda: self.phase() == "observe", lambda: f"the window; {self.gapless.log.text()}")
        return verb

    def phase(self):
        return ((self.gapless.service() or {}).get("upgrade") or {}).get("phase")

    def rollback(self, verb, *options):
        done = self.gapless.verb("rollback", *options)
        self.assertEqual(done.returncode, 0, done.stderr + self.gapless.log.text())
        verb.join()

    def wait_version(self, version):
        """Until the connection's worker is of that version."""
        client = self.client()
        harness.wait_until(lambda: client.ask(b"version") == b"VERSION %d" % version, f"version {version}")

    def wait_read(self, client, size):
        """Until that many bytes more than now, or before, were read from all connections by the worker of `client`."""
        harness.wait_until(lambda: client.stats()["bytes_read"] >= size, f"{size} bytes to be read")

    def check(self, *options):
        check = kv.Check(self, self.address, "--connections", 20, "--pipeline", 4, "--cut", 20, "--verify", "--rate",
                         1000 if harness.SANITIZED else 4000, *options)
        check.wait("loading")
        return check

    def wait_load(self, requests=500):
        """Until so many more writes were answered by the version that serves."""
        client = self.client()
        before = client.stats()["cmd_set"]
        harness.wait_until(lambda: client.stats()["cmd_set"] > before + requests, "the load to go on")

    def assert_clean(self, check, sets=0):
        """sets: that weren't the checker's."""
        status, report = check.stop()
        self.assertEqual((status, kv.mistakes(report)), (0, {}), check.log.text() + self.gapless.log.text())
        # The statistics are those of all versions together. The checker's counters are beside its items.
        stats, counters = self.client().stats(), 16
        self.assertEqual((stats["cmd_set"], stats["cmd_get"]), (report["sets"] + counters + sets, report["gets"] + counters))
        return report

    def moved(self, generation):
        return int(self.gapless.log.wait("generation ended", generation=generation).fields["moved"])


class Brief(threading.Thread):
    """Counts an item of its own up, by a connection for each request."""

    def __init__(self, address, key):
        super().__init__(daemon=True)
        self.address, self.key, self.count, self.failure = address, key, 0, None
        self._ended = threading.Event()
        self.start()

    def run(self):
        try:
            while not self._ended.is_set():
                with kv.Client(self.address) as client:
                    answer = client.ask(b"incr %s 1" % self.key)
                    if answer != b"%d" % (self.count + 1):
                        raise AssertionError(f"{answer} after {self.count}")
                self.count += 1
        except (AssertionError, OSError) as failure:
            self.failure = failure

    def stop(self):
        self._ended.set()
        self.join(harness.PATIENCE)


class LoadTest(TestCase):
    def test_brief_connections_that_write_notice_nothing_of_upgrades(self):
        """Those too that come between the switch and when the new version hears that the items are its own."""
        self.begin()
        keys = [b"brief%d" % number for number in range(4)]
        for key in keys:
            self.assertEqual(self.client().ask(b"set %s 0 0 1" % key, b"0"), b"STORED")
        clients = [Brief(self.address, key) for key in keys]
        self.addCleanup(lambda: [client.stop() for client in clients])
        for version in range(2, 12):
            counts = [client.count for client in clients]
            harness.wait_until(lambda: all(client.failure or client.count >= count + 50 for client, count in zip(clients, counts)),
                               "some requests of each")
            self.upgrade(version)
        for client in clients:
            client.stop()
        self.assertEqual([client.failure for client in clients], [None] * 4)
        harness.note(f"10 upgrades, {sum(client.count for client in clients)} connections, none failed")

    def test_clients_notice_nothing_of_upgrades(self):
        gapless = self.begin()
        check = self.check()
        for version in range(2, 6):
            self.wait_load()
            self.upgrade(version)
            self.assertGreaterEqual(self.moved(version - 1), 20)
        self.wait_load()
        report = self.assert_clean(check)
        pauses = [int(line.fields["pause_us"]) for line in gapless.log.find("state handed over")]
        harness.note(f"pauses {pauses} us, longest gap {report['longest_gap_us']} us")
        self.assertEqual(len(pauses), 4)

    def test_clients_notice_nothing_of_upgrades_and_rollbacks_between_schemas(self):
        self.begin("--schema", 1, observe="60s")
        check = self.check()
        for _ in range(3):
            verb = self.upgrade_to_window(2, "--schema", 2)
            self.wait_load()
            self.wait_version(2)
            self.rollback(verb)
            self.wait_version(1)
            self.wait_load()
        self.assert_clean(check)

    def test_many_items_through_many_upgrades_and_rollbacks(self):
        """Between both schemas, there and back."""
        upgrades, rollbacks = (20, 5) if FULL else (3, 1)
        gapless = self.begin("--memory", 4 << 30, observe="3s")
        check = kv.Check(self, self.address, "--connections", 50, "--pipeline", 4, "--fill", ITEMS, "--rate", 2000 if FULL else 1000,
                         "--cut", 20, "--verify", "--timeout", 120)
        check.log.wait("^loading$", timeout=600)
        version, schema = 1, 1
        for number in range(upgrades + rollbacks):
            if number % (upgrades // rollbacks + 1) == 1:
                verb = self.upgrade_to_window(version + 1, "--schema", 3 - schema)
                self.wait_load(100)
                self.rollback(verb)
                self.wait_version(version)
            else:
                version, schema = version + 1, 3 - schema
                self.release(version, "--schema", schema)
                done = gapless.verb("upgrade", timeout=300)
                self.assertEqual(done.returncode, 0, done.stderr)
            self.wait_load(100)
        report = self.assert_clean(check)
        pauses = sorted(int(line.fields["pause_us"]) for line in gapless.log.find("state handed over"))
        harness.note(f"{ITEMS} items, {upgrades} upgrades, {rollbacks} rollbacks, {report['requests']} requests, "
                     f"pause median {pauses[len(pauses) // 2]} us, longest {pauses[-1]} us, longest gap {report['longest_gap_us']} us")

    def test_clients_notice_nothing_of_upgrades_to_the_older_schema(self):
        """The older version knows nothing of the newer schema; the newer one converts what it sends."""
        self.begin("--schema", 2)
        check = self.check()
        for version, schema in ((2, 1), (3, 2), (4, 1)):
            self.wait_load()
            self.upgrade(version, "--schema", schema)
        self.wait_load()
        self.assert_clean(check)

    def test_old_version_that_stays_goes_on_with_everything(self):
        """The new one ends at once, or has no memory for the items."""
        gapless = self.begin("--memory", "100m")
        client = self.client()
        for i in range(60):
            client.set(b"k%d" % i, b"x" * 1000000)
        check = self.check()
        self.write("server", "#!/bin/sh\nexit 1\n", 0o755)
        self.assertNotEqual(gapless.verb("upgrade").returncode, 0)
        self.wait_load()
        if not harness.SANITIZED:
            self.write("server", f"#!/bin/sh\nulimit -v 50000\nexec {harness.program('GAPLESS_KV')}\n", 0o755)
            done = gapless.verb("upgrade")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("segment items: no memory for an item of 1000000 bytes", re.sub("put: ", "", done.stderr), done.stderr)
            self.wait_load()
        self.wait_version(1)
        self.assert_clean(check, sets=60)

    def test_worker_that_was_started_again_exports_too(self):
        """The exporters aren't in the order of their indexes then."""
        gapless = self.serve("-n", 2, "-l", f"cache=tcp:127.0.0.1:{self.port}", "--", self.release(1))
        killed = gapless.worker_pids()[0]
        os.kill(killed, signal.SIGKILL)
        harness.wait_until(lambda: killed not in gapless.worker_pids() and
                           [each["state"] for each in gapless.service()["generations"][0]["workers"]] == ["ready"] * 2,
                           "another worker")
        done = gapless.verb("upgrade")
        self.assertEqual(done.returncode, 0, done.stderr + gapless.log.text())

    def test_freeze_in_vain_is_a_pause_and_nothing_else(self):
        """The new version hangs when the last changes come: the old one goes on with what was parked."""
        reached, go = self.dir / "reached", self.dir / "go"
        step = self.write("step", f"#!/bin/sh\n: >{reached}\nwhile [ ! -e {go} ]; do sleep 0.01; done\n", 0o755)
        gapless = self.begin_with(steps=[{"before": "freeze", "run": [step]}], state={"freeze": "1s"})
        check = self.check()
        verb = transaction.Verb(gapless, "upgrade")
        harness.wait_until(reached.exists, "the step")
        hung = gapless.worker_pids(generation=2)[0]
        os.kill(hung, signal.SIGSTOP)
        go.write_text("")
        self.assertNotEqual(verb.join().returncode, 0)
        gapless.log.wait("upgrade failed", phase="import")
        self.wait_load()
        self.wait_version(1)
        report = self.assert_clean(check)
        self.assertGreater(report["longest_gap_us"], 500000)


class SharedLoadTest(TestCase):
    """Both versions accept at one socket."""
    STEERING = "shared"
    test_clients_notice_nothing_of_upgrades = LoadTest.test_clients_notice_nothing_of_upgrades


class ConnectionTest(TestCase):
    def test_request_goes_on_where_it_was_cut(self):
        self.begin()
        value, line, pipeline, idle, watch = (self.client() for _ in range(5))
        self.assertEqual(idle.ask(b"version"), b"VERSION 1")
        value.send(b"set a 5 0 10\r\n01234")
        line.send(b"set b 0 0 1\r\n1\r\nge")
        self.assertEqual(line.line(), b"STORED")
        pipeline.send(b"get a\r\n" * 3 + b"set c 0 0 1\r\n1\r")
        self.assertEqual([pipeline.line() for _ in range(3)], [b"END"] * 3)
        self.wait_read(watch, 19 + 18 + 21 + 15 + 9)
        for version in range(2, 4):
            self.upgrade(version)
        value.send(b"56789\r\n")
        self.assertEqual(value.line(), b"STORED")
        line.send(b"t a b\r\n")
        self.assertEqual(line.values(), {b"a": (5, b"0123456789"), b"b": (0, b"1")})
        pipeline.send(b"\nget c\r\n")
        self.assertEqual(pipeline.line(), b"STORED")
        self.assertEqual(pipeline.values(), {b"c": (0, b"1")})
        self.assertEqual(idle.ask(b"version"), b"VERSION 3")

    def test_pipeline_is_cut_anywhere_and_goes_on(self):
        self.begin()
        client, count = self.client(), 100000 if harness.SANITIZED else 1000000
        client.set(b"n", b"0")
        numbers = []

        def read():
            while len(numbers) < count:
                numbers.append(int(client.line()))
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        writer = threading.Thread(target=client.send, args=(b"incr n 1\r\n" * count,), daemon=True)
        writer.start()
        for version in range(2, 5):
            self.upgrade(version)
        reader.join(harness.PATIENCE)
        self.assertEqual(numbers, list(range(1, count + 1)))

    def test_value_that_was_refused_is_swallowed_to_its_end(self):
        self.begin()
        client, watch = self.client(), self.client()
        client.send(b"set big 0 0 3000000\r\n" + b"get a\r\n" * 100000)
        self.assertEqual(client.line(), b"SERVER_ERROR object too large for cache")
        self.wait_read(watch, 700000)
        self.upgrade(2)
        client.send(b"x" * 2300000 + b"\r\nversion\r\n")
        self.assertEqual(client.line(), b"VERSION 2")

    def test_large_value_half_read(self):
        self.begin()
        client, watch = self.client(), self.client()
        client.send(b"set big 0 0 1000000\r\n" + b"a" * 500000)
        self.wait_read(watch, 500000)
        self.upgrade(2)
        client.send(b"b" * 500000 + b"\r\n")
        self.assertEqual(client.line(), b"STORED")
        self.assertEqual(client.get(b"big"), {b"big": b"a" * 500000 + b"b" * 500000})

    def test_client_that_reads_late_gets_every_answer(self):
        """What was answered is sent by the old version; the requests behind it are the new one's."""
        gapless = self.begin()
        client = self.client()
        client.set(b"large", b"x" * 1000000)
        client.send(b"get large\r\n" * 50 + b"version\r\n")
        self.release(2)
        gapless.hup()
        self.wait_version(2)
        for _ in range(50):
            self.assertEqual(client.values(), {b"large": (0, b"x" * 1000000)})
        self.assertEqual(client.line(), b"VERSION 2")
        gapless.wait_serving(2)
        # What the old one had written when it wasn't the owner any more is counted, too.
        self.assertGreater(client.stats()["bytes_written"], 50000000)

    def test_get_of_many_keys_is_answered_by_both_versions(self):
        gapless = self.begin()
        client = self.client()
        names = [b"key%d" % i for i in range(6000)]
        client.send(b"".join(b"set %s 0 0 2000 noreply\r\n%s\r\n" % (name, name.ljust(2000)) for name in names))
        client.send(b"get " + b" ".join(names) + b"\r\nversion\r\n")
        self.release(2)
        gapless.hup()
        self.wait_version(2)
        found = client.values()
        self.assertEqual(list(found), names)
        self.assertTrue(all(found[name] == (0, name.ljust(2000)) for name in names))
        self.assertEqual(client.line(), b"VERSION 2")
        gapless.wait_serving(2)


class ItemTest(TestCase):
    def test_items_keep_all_that_they_have(self):
        self.begin()
        client = self.client()
        client.set(b"a", b"1", flags=4294967295)
        client.set(b"soon", b"1", exptime=3)
        stored = time.monotonic()
        client.set(b"late", b"1", exptime=1000)
        unique = client.gets(b"a")[b"a"][2]
        self.upgrade(2)
        self.assertEqual(client.gets(b"a")[b"a"], (4294967295, b"1", unique))
        self.assertEqual(client.ask(b"cas a 1 0 1 %d" % unique, b"2"), b"STORED")
        found = client.get(b"soon", b"late")
        if time.monotonic() < stored + 3:
            self.assertEqual(set(found), {b"soon", b"late"})
        harness.wait_until(lambda: set(client.get(b"soon", b"late")) == {b"late"}, "the item to expire")
        self.assertGreaterEqual(time.monotonic(), stored + 2.9)

    def test_cas_never_overwrites_what_was_not_read(self):
        """Where a schema has no unique, an item has another one after the upgrade."""
        self.begin("--schema", 1)
        client = self.client()
        client.set(b"a", b"1")
        unique = client.gets(b"a")[b"a"][2]
        for schema, answer in ((1, b"EXISTS"), (2, b"EXISTS"), (2, b"STORED")):
            self.upgrade(2, "--schema", schema)
            self.assertEqual(client.ask(b"cas a 1 0 1 %d" % unique, b"2"), answer)
            unique = client.gets(b"a")[b"a"][2]

    def test_statistics_go_on(self):
        self.begin()
        client = self.client()
        for i in range(10):
            client.set(b"k%d" % i, b"1")
        client.get(b"k1", b"nothing")
        before = client.stats()
        self.upgrade(2)
        after = client.stats()
        self.assertNotEqual(before["pid"], after["pid"])
        self.assertEqual({key: after[key] for key in ("cmd_set", "get_hits", "get_misses", "curr_items", "total_connections")},
                         {"cmd_set": 10, "get_hits": 1, "get_misses": 1, "curr_items": 10, "total_connections": 1})
        self.assertGreater(after["bytes_read"], before["bytes_read"])

    def test_flush_is_whole_on_whichever_side_of_an_upgrade(self):
        self.begin("--memory", "100m")
        client = self.client()
        count = 20000 if harness.SANITIZED else 100000
        for version in range(2, 5):
            client.send(b"".join(b"set k%d 0 0 1 noreply\r\n1\r\n" % i for i in range(count)))
            self.assertEqual(client.stats()["curr_items"], count)
            self.release(version)
            self.gapless.hup()
            harness.wait_until(lambda: self.phase() in ("ready", "snapshot", "freeze", "import", "switch") or
                               self.gapless.generation() == version, "the upgrade to be on, or over")
            self.assertEqual(client.ask(b"flush_all"), b"OK")
            client.set(b"new", b"1")
            self.gapless.wait_serving(version)
            self.assertEqual(client.get(*(b"k%d" % i for i in range(0, count, 100))), {})
            self.assertEqual(client.stats()["curr_items"], 1)
            self.assertEqual(client.ask(b"delete new"), b"DELETED")

    def test_items_need_room_but_no_permission(self):
        """A limit that is lower than before refuses only what is stored from now on."""
        self.begin("--memory", "20m")
        client = self.client()
        for i in range(15):
            client.set(b"k%d" % i, b"x" * 1000000)
        self.upgrade(2, "--memory", "10m")
        self.assertEqual(len(client.get(*(b"k%d" % i for i in range(15)))), 15)
        self.assertEqual(client.ask(b"set k15 0 0 1", b"1"), b"SERVER_ERROR out of memory storing object")


class WindowTest(TestCase):
    """The new version has crashed, or is rolled back, while the old one is on standby."""

    def crash(self, old_schema, new_schema):
        gapless = self.begin("--schema", old_schema, observe="60s")
        client = self.client()
        for i in range(200):
            client.set(b"before%d" % i, b"1")
        client.set(b"n", b"0")
        self.upgrade_to_window(2, "--schema", new_schema)
        for i in range(200):
            client.set(b"after%d" % i, b"%d" % i, exptime=1000)
            self.assertEqual(client.ask(b"incr n 1"), b"%d" % (i + 1))
        for i in range(100):
            self.assertEqual(client.ask(b"delete before%d" % i), b"DELETED")
        self.assertEqual(client.ask(b"version"), b"VERSION 2")
        os.kill(gapless.worker_pids(generation=2)[0], signal.SIGKILL)
        harness.wait_until(lambda: gapless.generation() == 1, lambda: f"the way back; {gapless.log.text()}")
        client = self.client()
        self.assertEqual(client.ask(b"version"), b"VERSION 1")
        self.assertEqual(client.get(*(b"after%d" % i for i in range(200))), {b"after%d" % i: b"%d" % i for i in range(200)})
        self.assertEqual(set(client.get(*(b"before%d" % i for i in range(200)))), {b"before%d" % i for i in range(100, 200)})
        self.assertEqual(client.get(b"n"), {b"n": b"200"})
        client.set(b"again", b"1")

    def test_crash_loses_no_change_that_was_answered(self):
        self.crash(2, 2)

    def test_crash_loses_none_either_where_the_old_version_has_another_schema(self):
        self.crash(1, 2)

    def test_answer_waits_until_the_standby_has_the_change(self):
        """The standby takes nothing more, so at some point no change is answered any more; none that was is lost."""
        gapless = self.begin("--memory", "100m", observe="60s")
        client = self.client()
        old = gapless.worker_pids()[0]
        self.upgrade_to_window(2, "--memory", "100m")
        new = gapless.worker_pids(generation=2)[0]
        os.kill(old, signal.SIGSTOP)
        client.send(b"".join(b"set k%d 0 0 100000\r\n%s\r\n" % (i, (b"%d-" % i).ljust(100000)) for i in range(60)))
        harness.wait_until(lambda: not any(queue for _, queue in harness.tcp_sockets(self.port, harness.TCP_ESTABLISHED)),
                           "kv to read it")
        os.kill(new, signal.SIGKILL)
        answered = self.read_to_the_end(client)
        self.assertGreater(answered, 0)
        self.assertLess(answered, 60)
        os.kill(old, signal.SIGCONT)
        harness.wait_until(lambda: gapless.generation() == 1, lambda: f"the way back; {gapless.log.text()}")
        found = self.client().get(*(b"k%d" % i for i in range(answered)))
        self.assertEqual(found, {b"k%d" % i: (b"%d-" % i).ljust(100000) for i in range(answered)})

    def read_to_the_end(self, client):
        """How many lines come before the connection ends."""
        lines = 0
        with contextlib.suppress(ConnectionError, AssertionError):
            while client.line():
                lines += 1
        return lines

    def test_answers_that_waited_come_when_the_standby_goes_on(self):
        gapless = self.begin("--memory", "100m", observe="60s")
        client, other = self.client(), self.client()
        old = gapless.worker_pids()[0]
        verb = self.upgrade_to_window(2, "--memory", "100m")
        os.kill(old, signal.SIGSTOP)
        client.send(b"".join(b"set k%d 0 0 100000\r\n%s\r\n" % (i, (b"%d-" % i).ljust(100000)) for i in range(60)))
        harness.wait_until(lambda: not any(queue for _, queue in harness.tcp_sockets(self.port, harness.TCP_ESTABLISHED)),
                           "kv to read it")
        (new,) = gapless.worker_pids(generation=2)
        harness.settled(lambda: harness.processor_time(new))  # it has executed what it has read
        other.send(b"get k59\r\n")
        os.kill(old, signal.SIGCONT)
        self.assertEqual([client.line() for _ in range(60)], [b"STORED"] * 60)
        self.assertEqual(other.values(), {b"k59": (0, b"59-".ljust(100000))})
        self.rollback(verb)
        self.assertEqual(len(client.get(*(b"k%d" % i for i in range(60)))), 60)

    def test_connections_go_there_and_back(self):
        self.begin(observe="60s")
        client, half = self.client(), self.client()
        client.set(b"a", b"1")
        half.send(b"set b 0 0 4\r\n1")
        for _ in range(2):
            verb = self.upgrade_to_window(2)
            self.assertEqual(client.ask(b"version"), b"VERSION 2")
            half.send(b"2")
            before = int(client.get(b"a")[b"a"])
            self.assertEqual(client.ask(b"incr a 1"), b"%d" % (before + 1))
            self.rollback(verb)
            self.assertEqual(client.ask(b"version"), b"VERSION 1")
        half.send(b"4\r\n")
        self.assertEqual(half.line(), b"STORED")
        self.assertEqual(client.get(b"a", b"b"), {b"a": b"3", b"b": b"1224"})


if __name__ == "__main__":
    harness.main(at_a_time=3)
