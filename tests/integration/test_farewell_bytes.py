#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a client gets on a connection of a generation that is wound up is byte for byte what the server sent, but for the field that
tells it to leave.

farewell.py asks and compares. GAPLESS_TEST_FULL=1: 100,000 answers instead of some thousands; GAPLESS_TEST_ANSWERS=N: so many.
GAPLESS_TEST_SEED=N: the same questions again. A difference is reported with the connection and the requests that it takes, as one
line before its first colon and space: GAPLESS_TEST_BATCH=THAT makes the case test_given_batches ask just these.
"""

import contextlib
import os
import random
import re
import select
import socket
import subprocess
import threading
import time

import exact
import farewell
import harness
from farewell import JOINED, ONE, SINGLE, Wrong

ASKERS = 3
ANSWERS = int(os.environ.get("GAPLESS_TEST_ANSWERS") or
              (100_000 if os.environ.get("GAPLESS_TEST_FULL") == "1" else 2_000 if harness.SANITIZED else 10_000))
BATCH = os.environ.get("GAPLESS_TEST_BATCH")
BATCHES = (
    # Four answers in one write, of which the kernel makes two messages: the first ends within the third answer.
    "joined 0 /setup?x&plan=0 GET:/a?seed=11&join=4 GET:/a?seed=193 GET:/a?seed=336 GET:/a?seed=32",
    "joined 0 /setup?x&plan=1 GET:/a?seed=32&join=4 GET:/a?seed=1727 GET:/a?seed=771 GET:/a?seed=1",
)
SEED = int(os.environ.get("GAPLESS_TEST_SEED") or time.time_ns() // 1_000_000)


class Server:
    """The answering server without gapless."""

    def __init__(self, case, name):
        self.port = harness.free_port()
        self.record = farewell.Record(case.dir / name)
        with open(case.dir / f"{name}.log", "ab") as log:
            self.process = subprocess.Popen(
                [harness.program("GAPLESS_ANSWERS"), "--port", str(self.port), "--record", str(case.dir / name)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=harness.environment())
        case.started.append(self)
        harness.wait_until(lambda: harness.tcp_sockets(self.port, harness.TCP_LISTEN), f"port {self.port}")

    def finish(self):
        self.process.kill()
        self.process.wait(harness.PATIENCE)


class Case(harness.TestCase):
    def setUp(self):
        super().setUp()
        harness.note(f"GAPLESS_TEST_SEED={SEED}")

    def askers(self, subject, reference, number=ASKERS, **keywords):
        return farewell.Askers(self, subject, reference, number, SEED, **keywords)

    def assert_sent(self, record):
        """The server had no reason to complain of what it sent, and of what it read."""
        read = record.read()
        wrong = [field for field in farewell.COMPLAINTS if read[field]]
        self.assertEqual(wrong, [], f"{read}")
        if not read["open"]:  # else it has ended when its clients had, with completions on their way
            self.assertEqual(read["zerocopy_sends"], read["zerocopy_done"], f"{read}")
        return read

    @staticmethod
    def note(counts, begun, record=None):
        took = time.monotonic() - begun
        shown = ", ".join(f"{key}: {value}" for key, value in sorted(counts.items()))
        harness.note(f"{took:.1f} s, {counts.get('answers', 0) / took:.0f} answers/s; {shown}")
        if record:
            harness.note(f"the server: {record.read()}")


# ---- the tools ----


class ToolsTest(Case):
    """The server answers the same twice, and the comparison finds what isn't the same."""

    def test_same_server_answers_the_same(self):
        one, other = Server(self, "one"), Server(self, "other")
        askers, begun = self.askers(one.port, other.port), time.monotonic()
        askers.order("open", 24, zerocopy=True)
        askers.order("stay", max(ANSWERS // 10 // ASKERS, 100), same=True)
        counts = askers.order("go")
        harness.wait_until(lambda: one.record["open"] == 0 and other.record["open"] == 0, "the connections to end")
        self.note(counts, begun, one.record)
        for server in (one, other):
            self.assertGreater(self.assert_sent(server.record)["zerocopy_sends"], 0)
        self.assertEqual(one.record["answers"], other.record["answers"])
        self.assertEqual(counts["answers"], one.record["answers"])
        self.assertGreater(one.record["partial"] + one.record["again"], 0)

    def recorded(self, count):
        """Answers as the server sends them, in batches with the way in which they were asked for: (how, answers)."""
        server = Server(self, "recorded")
        asker = farewell.Asker(server.port, server.port, SEED)
        asker.open(8)
        batches = []
        while len(batches) < count:
            for pair in asker.pairs:
                pair.draw(asker.rng)
                pair.send(asker.rng)
                before, _ = pair.receive(asker.rng)
                batches.append((pair.how, [request.method == "HEAD" for request in pair.requests], before))
        for pair in asker.pairs:
            pair.close()
        return asker.rng, batches

    @staticmethod
    def changed(answer, kind=None):
        """The answer's bytes as they should come when it says close; as they are, if it can't."""
        kind = kind or farewell.wanted(answer)
        head = answer.head
        if kind == farewell.INSERT:
            head = re.sub(rb"\n", b"\nConnection: close\r\n", head, count=1)
        elif kind == farewell.IN_PLACE:
            head = re.sub(rb"(?i)(\nconnection:(?:[^\r\n]*,)?[ \t]*)keep-alive(?=[ \t]*[,\r])", rb"\1close     ", head, count=1)
        elif kind == farewell.FIELD:
            head = re.sub(rb"(?i)\nkeep-alive:[^\r\n]{6,}", lambda match: b"\nConnection: close".ljust(len(match[0])), head,
                          count=1)
        return answer.interim + head + answer.raw[len(answer.interim) + len(answer.head):]

    def find(self, how, heads, before, data):
        """The Wrong that the comparison finds in these bytes, None if it takes them."""
        try:
            farewell.compare(before, farewell.parse(data, heads), how, farewell.Counts(), must=how in (SINGLE, ONE))
        except Wrong as wrong:
            return wrong
        return None

    def test_legal_changes_are_legal(self):
        _, batches = self.recorded(200)
        seen = set()
        for how, heads, before in batches:
            data = b"".join(answer.raw for answer in before[:-1]) + self.changed(before[-1])
            self.assertIsNone(self.find(how, heads, before, data))
            seen.add(farewell.wanted(before[-1]))
        self.assertEqual(seen - {farewell.ANYTHING}, {farewell.NOTHING, farewell.INSERT, farewell.IN_PLACE, farewell.FIELD})

    def test_planted_errors_are_found(self):
        rng, batches = self.recorded(160)
        planted = 0
        for how, heads, before in batches:
            raws = [answer.raw for answer in before]
            good = b"".join(raws[:-1]) + self.changed(before[-1])
            at = rng.randrange(len(good))
            wrongs = {
                "a byte altered": good[:at] + bytes([good[at] ^ (1 << rng.randrange(8))]) + good[at + 1:],
                "a byte dropped": good[:at] + good[at + 1:],
                "a byte twice": good[:at] + good[at:at + 1] + good[at:],
                "a byte more": good + b"\0",
                "the end dropped": good[:-1],
                "an answer dropped": b"".join(raws[1:]),
                "an answer twice": b"".join(raws) + raws[-1],
                "the first answer first and last": good + raws[0],
            }
            if farewell.wanted(before[-1]) not in (farewell.NOTHING, farewell.ANYTHING):
                line = len(good) - len(self.changed(before[-1])) + len(before[-1].interim)
                line = good.index(b"\n", line) + 1
                wrongs["close twice"] = good[:line] + farewell.INSERTED + good[line:]
                wrongs["close before the status line"] = good[:line] + good[line:].replace(b"lose", b"los", 1)
                wrongs["close in the content"] = b"".join(raws) + farewell.INSERTED
                if how in (SINGLE, ONE) and len(b"".join(raws[:-1])) < farewell.ROOM:
                    wrongs["close not said"] = b"".join(raws)
            else:
                wrongs["close where it isn't due"] = b"".join(raws[:-1]) + self.changed(before[-1], farewell.INSERT)
            sure = how == ONE or (how == JOINED and len(good) < farewell.MESSAGE)
            if len(before) > 1 and sure and farewell.wanted(before[0]) not in (farewell.NOTHING, farewell.ANYTHING):
                wrongs["close too early"] = self.changed(before[0]) + b"".join(raws[1:])
                wrongs["close in two answers"] = self.changed(before[0]) + b"".join(raws[1:-1]) + self.changed(before[-1])
            for name, data in wrongs.items():
                if data in (good, b"".join(raws)) and name != "close not said":
                    continue
                if name == "close where it isn't due" and farewell.wanted(before[-1]) == farewell.ANYTHING:
                    continue
                planted += 1
                self.assertIsNotNone(self.find(how, heads, before, data), f"{name}, {how}: {data[:3000]!r}")
        harness.note(f"{planted} errors were planted")


    def test_planted_errors_are_found_by_asking(self):
        """A proxy spoils one byte of the stream."""
        server, rng = Server(self, "spoiled"), random.Random(SEED)
        for spoil in ("alter", "drop", "twice", "cut"):
            for _ in range(3):
                proxy = Proxy(self, server.port, spoil, rng.randrange(1000, 200_000))
                asker = farewell.Asker(proxy.port, server.port, rng.getrandbits(32))
                asker.patience = 0.5
                asker.open(1)
                with self.assertRaises(Wrong, msg=f"{spoil} at {proxy.at}") as caught:
                    asker.stay(10_000)
                self.assertIn("/a?seed=", str(caught.exception))


class Proxy(threading.Thread):
    """Takes one connection to a server, and spoils one byte of what comes from there: the one at the place `at`."""

    def __init__(self, case, port, spoil, at):
        super().__init__(daemon=True)
        self.spoil, self.at = spoil, at
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server = socket.create_connection(("127.0.0.1", port))
        case.addCleanup(self._server.close)
        self.start()

    def run(self):
        client, _ = self._listener.accept()
        self._listener.close()
        passed, sockets = 0, (client, self._server)
        with client, contextlib.suppress(OSError):
            while True:
                for one in select.select(sockets, [], [])[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    if one is client:
                        self._server.sendall(data)
                        continue
                    place = self.at - passed
                    passed += len(data)
                    client.sendall(self.spoiled(data, place) if 0 <= place < len(data) else data)
                    if self.spoil == "cut" and 0 <= place < len(data):
                        return

    def spoiled(self, data, place):
        byte = {"alter": bytes([data[place] ^ 1]), "drop": b"", "twice": data[place:place + 1] * 2, "cut": b""}[self.spoil]
        return data[:place] + byte + (b"" if self.spoil == "cut" else data[place + 1:])


# ---- gapless ----


class FarewellTest(Case):
    def setUp(self):
        super().setUp()
        self.reference = Server(self, "reference")
        self.port = harness.free_port()
        self.gapless = self.serve("-l", f"tcp:127.0.0.1:{self.port}", "--drain-timeout", "1h", "--drain-idle-grace", "1h", "--",
                                  harness.program("GAPLESS_ANSWERS"), "--record", str(self.dir / "record"))
        self.generations = 1

    def record(self, generation):
        return farewell.Record(self.dir / "record", generation)

    def upgrade(self, connections=0):
        """Returns when new connections are answered by the next generation, and so many of the old one's are watched."""
        self.generations += 1
        self.gapless.hup()
        harness.wait_until(lambda: self.gapless.generation() == self.generations, f"generation {self.generations}")
        self.assertEqual(harness.http_get(("127.0.0.1", self.port), "/generation")[1], f"{self.generations}\n")
        harness.wait_until(lambda: self.enlisted(self.generations - 1) >= connections,
                           lambda: f"{connections} connections to be enlisted, {self.gapless.service()}")

    def enlisted(self, generation):
        """How many connections of a generation are told to leave."""
        for each in self.gapless.service()["generations"]:
            if each["id"] == generation:
                return int((each.get("farewell") or {}).get("enlisted", 0))
        return 0

    def wait_gone(self, generation):
        """The generation has ended: nobody was connected to it any more."""
        harness.wait_until(lambda: generation not in [each["id"] for each in self.gapless.service()["generations"]],
                           f"generation {generation} to be gone: {self.gapless.service()}")

    def test_serving_generation_is_left_alone(self):
        askers, begun = self.askers(self.port, self.reference.port), time.monotonic()
        askers.order("open", 16, zerocopy=True)
        askers.order("stay", max(ANSWERS // 10 // ASKERS, 100), same=True)
        counts = askers.order("close")
        self.note(counts, begun, self.record(1))
        self.record(1).wait("open", lambda count: count == 0)
        self.assert_sent(self.record(1))

    @exact.needs_bpf
    def test_clients_that_stay(self):
        """They take no notice of what they are told; it is said again and again."""
        askers, begun = self.askers(self.port, self.reference.port), time.monotonic()
        askers.order("open", 40)
        askers.order("use")
        self.upgrade(40 * ASKERS)
        askers.order("use", same=False, must=True)
        counts = askers.order("stay", max(ANSWERS * 7 // 8 // ASKERS, 100), must=True)
        self.note(counts, begun, self.record(1))
        askers.order("close")
        self.wait_gone(1)
        self.assert_sent(self.record(1))

    @exact.needs_bpf
    def test_clients_that_leave(self):
        """They close the connection after the answer that says so, and come back to the new generation."""
        begun, answered, each = time.monotonic(), 0, 64
        counts = farewell.Counts()
        while answered < ANSWERS // 8:
            generation = self.generations
            askers = self.askers(self.port, self.reference.port)
            askers.order("open", each)
            askers.order("use")
            self.upgrade(each * ASKERS)
            for key, value in askers.order("go", must=True).items():
                counts.add(key, value)
            answered = counts["answers"]
            askers.finish()
            self.wait_gone(generation)
            self.assert_sent(self.record(generation))
        self.note(counts, begun)

    @exact.needs_bpf
    def test_completions(self):
        """A server that sends with MSG_ZEROCOPY is told of as many completions as it made sends."""
        askers, begun = self.askers(self.port, self.reference.port), time.monotonic()
        askers.order("open", 16, zerocopy=True)
        askers.order("use")
        self.upgrade()
        counts = askers.order("stay", max(ANSWERS // 10 // ASKERS, 100))
        self.note(counts, begun, self.record(1))
        self.assert_sent(self.record(1))

    def narrow(self, plan, big):
        askers, begun = self.askers(self.port, self.reference.port), time.monotonic()
        askers.order("open_narrow", 8, plan, big=big)
        askers.order("use")
        self.upgrade(8 * ASKERS)
        counts = askers.order("stay", max(ANSWERS // 20 // ASKERS, 100))
        self.note(counts, begun, self.record(1))
        self.assert_sent(self.record(1))
        return self.record(1).read()

    @exact.needs_bpf
    def test_full_buffers_nonblocking(self):
        """What is sent is taken in parts, or not at all, EAGAIN: big heads in pieces, and answers behind others that wait."""
        self.assertGreater(self.narrow(farewell.NONBLOCKING, True)["again"], 0)

    @exact.needs_bpf
    def test_full_buffers_io_uring(self):
        self.assertGreater(self.narrow(farewell.URING, True)["partial"], 0)

    @exact.needs_bpf
    def test_full_buffers_blocking(self):
        """The kernel lets a recv that blocks fail with EAGAIN, where a send had waited before (spurious_again): this server
        tries again, and the bytes are right."""
        self.narrow(farewell.WHOLE, False)

    @exact.needs_bpf
    def test_answers_in_the_middle(self):
        """The upgrade comes when half of an answer is out, or nothing of it: it is whole, and the next one says close."""
        self.reference.record.go_on()
        for how in ("read", "write"):
            generation, record = self.generations, self.record(self.generations)
            askers = self.askers(self.port, self.reference.port, number=1)
            askers.order("open", 96, roomy=True)
            askers.order("use")
            askers.order("hold", how)
            record.wait("holding", lambda count: count == 96)
            self.upgrade(96)
            record.go_on()
            self.note(askers.order("release"), time.monotonic())
            counts = askers.order("go", must=True)
            self.assertGreaterEqual(counts["left when told"], 48)
            self.wait_gone(generation)
            self.assert_sent(record)

    @exact.needs_bpf
    def test_given_batches(self):
        """Those that went wrong once, or the one that the environment names."""
        askers = self.askers(self.port, self.reference.port, number=1)
        for batch in [BATCH] if BATCH else BATCHES:
            askers.order("given", batch)
        askers.order("use")
        self.upgrade(1 if BATCH else len(BATCHES))
        for _ in range(5):
            counts = askers.order("use", same=False, must=True)
        self.note(counts, time.monotonic())
        self.assert_sent(self.record(1))


if __name__ == "__main__":
    harness.main(at_a_time=2)
