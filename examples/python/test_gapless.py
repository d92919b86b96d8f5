#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Workers in one process against a master that is a few lines of Python: what they say, and what becomes of the state.

    PYTHONPATH=BUILD examples/python/test_gapless.py [CASE…]

GAPLESS_STREAM names tests/helpers/stream: what is written here is read there, and the other way. 77: something that it needs isn't there.
"""

import contextlib
import errno
import fcntl
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import types
import unittest

try:
    import gapless
    from gapless.wire import Blob, Channel, Error, Fd, Reader, Writer, partition
    from ipc.control_pb2 import Control
    from ipc.transfer_pb2 import Frame
except ImportError as error:
    print(f"{error}: it needs python3-protobuf, python3-xxhash, and what protoc (protobuf-compiler) makes, in PYTHONPATH=BUILD")
    sys.exit(77)

OLD, NEW, BACK = 1, 2, 3  # numbers of transfers


class Table(gapless.Segment):
    def __init__(self, name="table", version=1, **rules):
        self.name, self.version, self.records = name, version, {}
        for rule, value in rules.items():
            setattr(self, rule, value)

    def keys(self):
        return iter(list(self.records))

    def read(self, key):
        return self.records.get(key)

    def put(self, key, data):
        self.records[key] = data

    def remove(self, key):
        self.records.pop(key, None)

    def size(self):
        return len(self.records), sum(map(len, self.records.values()))


class Server(gapless.Hooks):
    """Notes what it is told. `freezes`: at once."""

    def __init__(self, **failing):
        self.told, self.taken, self.failing, self.freezes, self.worker = [], [], failing, True, None

    def _note(self, what):
        self.told.append(what)
        if what in self.failing:
            raise self.failing[what]

    def reloadable(self):
        self._note("reloadable")

    def load(self):
        self._note("load")

    def init(self):
        self._note("init")

    def accept(self):
        self._note("accept")

    def own(self):
        self._note("own")

    def freeze(self, timeout_ms):
        self._note("freeze")
        if self.freezes:
            self.worker.frozen()

    def release(self):
        self._note("release")

    def settled(self):
        self._note("settled")

    def take(self, connection):
        self.taken.append(connection)

    def drain(self, timeout_ms):
        self._note("drain")

    def lost(self, reason):
        self._note("lost")


class Peer:
    """A worker, and the master's end of its channel. `said` is what the worker has said, oldest first."""

    def __init__(self, segments=(), successor=False, index=0, server=None, listeners=(), ready=True):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel, self.said = Channel(ours), []
        self.tell("welcome", protocol=1, service="test", generation=2 if successor else 1, worker=index, listener_count=len(listeners),
                  successor=successor)
        message = Control()
        message.listeners.batch, message.listeners.last = 1, True
        for name, sock in listeners:
            message.listeners.listeners.add(name=name, address="unix:" + name, type=1)
        self.channel.send(message, [sock for _, sock in listeners])
        os.environ["GAPLESS_FD"] = str(theirs.detach())
        self.server = server or Server()
        self.segments = list(segments)
        self.worker = self.server.worker = gapless.Worker(self.server, self.segments, version="test")
        if ready:
            self.worker.ready()

    def tell(self, kind, owners=(), **fields):
        self.channel.send(Control(**{kind: fields}), owners)

    def hear(self):
        """Takes what the worker has said. [(kind, body, descriptors)], the new ones."""
        new = []
        with contextlib.suppress(Error):
            self.channel.flush()
            while received := self.channel.receive():
                message, fds, _ = received
                kind = message.WhichOneof("body")
                new.append((kind, getattr(message, kind), fds))
        self.said += [(kind, body, fds if kind == "offer" else []) for kind, body, fds in new]
        return new

    def heard(self, kind):
        return [body for each, body, _ in self.said if each == kind]

    def close(self):
        if self.worker:
            self.worker.close()
        self.channel.socket.close()


def pipe(size=None):
    read, write = (Fd(fd) for fd in os.pipe2(os.O_CLOEXEC))
    if size:
        fcntl.fcntl(write.fileno(), fcntl.F_SETPIPE_SZ, size)
    return read, write


def open_fds():
    return len(os.listdir("/proc/self/fd"))


class Case(unittest.TestCase):
    def setUp(self):
        self.peers, self.pipes = [], None
        self.before = open_fds()

    def tearDown(self):
        for peer in self.peers:
            peer.close()
        self.peers.clear()
        self.pipes = None
        self.assertEqual(open_fds(), self.before, "descriptors are left open")

    def peer(self, *arguments, **keywords):
        self.peers.append(Peer(*arguments, **keywords))
        return self.peers[-1]

    def turn(self):
        """Each worker and the master do what there is to be done. False: there was nothing."""
        busy = False
        for peer in self.peers:
            if peer.worker and select.select([peer.worker], [], [], 0)[0]:
                peer.worker.dispatch()
                busy = True
            elif peer.worker:
                peer.worker.dispatch()
            for kind, body, fds in peer.hear():
                busy = True
                if kind == "attach":
                    self.importers_of(body.transfer)[body.importer].tell(
                        "attach", fds, transfer=body.transfer, exporter=body.exporter, ids=list(body.ids))
        return busy

    def importers_of(self, transfer):
        return self.importers if transfer == NEW else self.exporters

    def run_until(self, condition, what):
        for _ in range(20000):
            if condition():
                return
            self.turn()
        self.fail(f"waited for {what}; said: " + "; ".join(str([kind for kind, _, _ in peer.said]) for peer in self.peers))

    def settle(self):
        while self.turn():
            pass

    # -- the master's part of an upgrade

    def connect(self, exporters, importers, number=NEW, pipe_size=None, **of_import):
        self.pipes = {(i, j): pipe(pipe_size) for i in range(len(exporters)) for j in range(len(importers))}
        changes = number == BACK
        for j, peer in enumerate(importers):
            peer.tell("import", [self.pipes[i, j][0] for i in range(len(exporters))], transfer=number, exporters=len(exporters),
                      segments=exporters[0].heard("describe")[0].segments, changes_only=changes, **of_import)

    def export(self, exporters, importers, number=NEW, convert=()):
        changes = number == BACK
        for i, peer in enumerate(exporters):
            peer.tell("export", [self.pipes[i, j][1] for j in range(len(importers))], transfer=number, importers=len(importers),
                      segments=importers[0].heard("describe")[0].segments, changes_only=changes, convert=convert)
        self.pipes = None

    def begin(self, exporters, importers, **keywords):
        """Up to the begin of the export."""
        self.exporters, self.importers = exporters, importers
        self.settle()
        self.connect(exporters, importers, **keywords)
        self.run_until(lambda: all(peer.heard("accepted") or peer.heard("failed") for peer in importers), "accepted")
        if not any(peer.heard("failed") for peer in importers):
            self.export(exporters, importers, convert=importers[0].heard("accepted")[0].convert)

    def snapshot(self, exporters, importers, **keywords):
        self.begin(exporters, importers, **keywords)
        self.run_until(lambda: all(peer.heard("loaded") for peer in importers), "loaded")

    def freeze(self, exporters, importers, number=NEW):
        for peer in exporters:
            peer.tell("freeze", transfer=number, timeout_ms=1000)
        self.run_until(lambda: all(peer.heard("imported") for peer in importers), "imported")

    def hand_over(self, exporters, importers, way_back=False):
        """The switch."""
        if way_back:
            self.connect(importers, exporters, BACK)
            self.export(importers, exporters, BACK)
        for peer in importers:
            peer.tell("own", transfer=NEW)
        for peer in exporters:
            peer.tell("release", transfer=NEW)
        self.run_until(lambda: all(peer.worker.owned for peer in importers) and not any(peer.worker.owned for peer in exporters), "owned")

    def upgrade(self, exporters, importers, way_back=False):
        self.snapshot(exporters, importers)
        self.freeze(exporters, importers)
        self.hand_over(exporters, importers, way_back)

    def assert_failed(self, peer, code, *words):
        self.run_until(lambda: peer.heard("failed"), "failed")
        failed = peer.heard("failed")[0]
        self.assertEqual(failed.code, code, failed.reason)
        for word in words:
            self.assertIn(word, failed.reason)


class StartTest(Case):
    def test_worker_takes_its_listeners_and_says_ready(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = self.peer(listeners=[("web", listener)])
            self.assertEqual(peer.worker.listeners[0].socket.getsockname(), listener.getsockname())
        self.assertEqual(peer.worker.listeners[0][:2], ("web", "unix:web"))
        self.settle()
        self.assertEqual([kind for kind, _, _ in peer.said], ["hello", "acknowledge", "describe", "ready"])
        self.assertEqual(peer.server.told, ["load", "init", "accept", "own"])
        self.assertEqual((peer.worker.service, peer.worker.generation, peer.worker.owned), ("test", 1, True))

    def test_successor_loads_nothing_before_the_state_has_come(self):
        peer = self.peer([Table()], successor=True)
        self.assertEqual((peer.server.told, peer.worker.owned), ([], False))

    def test_server_without_state_or_connections_waits_for_none(self):
        server = Server()
        server.take = None
        peer = self.peer(successor=True, server=server)
        self.assertTrue(peer.worker.owned)
        self.settle()
        self.assertEqual([kind for kind, _, _ in peer.said], ["hello", "acknowledge", "ready"])

    def test_what_fails_at_the_start_is_refused_with_its_reason(self):
        peer = self.peer(server=Server(load=ValueError("no such file")), ready=False)
        with self.assertRaises(ValueError):
            peer.worker.ready()
        peer.hear()
        self.assertIn("no such file", peer.heard("refusal")[0].reason)

    def test_server_without_gapless_owns_its_state(self):
        server = Server()
        worker = gapless.Worker(server, [Table()])
        worker.ready()
        self.assertEqual((worker.managed, worker.owned, server.told), (False, True, ["load", "init", "accept", "own"]))
        self.assertTrue(worker.settle())
        worker.close()

    def test_refusal_of_the_master_is_told(self):
        peer = self.peer()
        peer.tell("refusal", code=errno.EPROTO, reason="bad manners")
        self.run_until(lambda: "lost" in peer.server.told, "lost")
        self.assertTrue(peer.worker.owned)

    def test_unknown_messages_are_passed_over_and_their_descriptors_closed(self):
        peer = self.peer()
        peer.channel.socket.sendmsg([b"\xfa\x3f\x02hi"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))])
        peer.tell("ask_reload", request=7)
        self.run_until(lambda: peer.heard("reloadable"), "an answer")
        self.assertEqual(peer.heard("reloadable")[0].request, 7)

    def test_packet_that_is_too_large_ends_the_channel(self):
        peer = self.peer()
        message = Control()
        message.ask_reload.request = 1
        # With fields that nobody knows behind it, so that what fits is a message by itself.
        peer.channel.socket.send(message.SerializeToString() + b"\x70\x80\x01" + b"\x70\x00" * 40000)
        self.run_until(lambda: "lost" in peer.server.told, "lost")
        self.assertFalse(peer.heard("reloadable"))

    def test_bytes_that_are_no_message_end_the_channel(self):
        peer = self.peer()
        peer.channel.socket.send(b"\xff\xff\xff")
        self.run_until(lambda: "lost" in peer.server.told, "lost")

    def test_reload_is_refused_in_the_servers_words(self):
        peer = self.peer([Table()], server=Server(reloadable=gapless.Error(errno.EBUSY, "a backup is running")))
        peer.tell("ask_reload", request=1)
        self.run_until(lambda: peer.heard("reloadable"), "an answer")
        self.assertEqual((peer.heard("reloadable")[0].refused, peer.heard("reloadable")[0].reason), (True, "a backup is running"))

    def test_drain_is_told_and_done_is_said_once(self):
        peer = self.peer()
        peer.tell("drain", timeout_ms=5)
        self.run_until(lambda: "drain" in peer.server.told, "drain")
        peer.worker.done()
        peer.worker.done()
        self.settle()
        self.assertEqual(len(peer.heard("done")), 1)


class TransferTest(Case):
    def filled(self, count=1000, **rules):
        table = Table(**rules)
        table.records = {b"key%d" % i: b"value%d" % i for i in range(count)}
        return table

    def test_each_record_comes_to_the_importer_that_its_key_belongs_to(self):
        olds = [self.peer([Table(), Table("all", replicated=True)], index=i) for i in range(2)]
        for i in range(1000):
            olds[i % 2].segments[0].records[b"key%d" % i] = b"%d" % i
            olds[i % 2].segments[1].records[b"all%d" % i] = b"%d" % i
        news = [self.peer([Table(), Table("all", replicated=True)], successor=True, index=i) for i in range(3)]
        self.upgrade(olds, news)
        for i in range(1000):
            at = partition(b"key%d" % i, 3)
            for j, new in enumerate(news):
                self.assertEqual(new.segments[0].records.get(b"key%d" % i), b"%d" % i if j == at else None)
        for new in news:
            self.assertEqual(new.segments[1].records, {b"all%d" % i: b"%d" % i for i in range(1000)})
        imported = [new.heard("imported")[0] for new in news]
        self.assertEqual(sum(each.records for each in imported), 1000 + 3 * 1000)

    def test_hooks_come_in_their_order(self):
        old, new = self.peer([self.filled()]), self.peer([Table()], successor=True)
        self.snapshot([old], [new], serve_at_mark=True)
        self.assertEqual(new.server.told, ["load", "init", "accept"])
        self.freeze([old], [new])
        self.assertEqual(new.server.told, ["load", "init", "accept"])
        self.hand_over([old], [new])
        self.assertEqual(new.server.told, ["load", "init", "accept", "own"])
        self.assertEqual(old.server.told[4:], ["freeze", "release"])

    def test_nothing_is_accepted_at_the_mark_unless_it_is_wanted(self):
        old, new = self.peer([self.filled()]), self.peer([Table()], successor=True)
        self.snapshot([old], [new])
        self.assertEqual(new.server.told, ["load", "init"])

    def test_changes_follow_while_the_snapshot_is_on_its_way(self):
        table = self.filled(20000)
        old, new = self.peer([table]), self.peer([Table()], successor=True)
        self.begin([old], [new], pipe_size=4096)
        step = 0
        while not new.heard("imported"):
            for i in range(20):
                step += 1
                key = b"key%d" % (step * 7919 % 25000)
                if not old.worker.owned:
                    break
                if step % 3:
                    table.records[key] = b"changed%d" % step
                else:
                    table.records.pop(key, None)
                old.worker.changed(table, key)
            self.turn()
            if new.heard("loaded") and "freeze" not in old.server.told and step > 12000:
                old.tell("freeze", transfer=NEW, timeout_ms=1000)
        self.assertEqual(new.segments[0].records, table.records)

    def test_end_comes_behind_the_last_change(self):
        old, new = self.peer([self.filled()]), self.peer([Table()], successor=True)
        self.snapshot([old], [new], pipe_size=4096)
        for i in range(6000):
            old.segments[0].records[b"key%d" % i] = b"%100d" % i
            old.worker.changed(old.segments[0], b"key%d" % i)
        self.freeze([old], [new])
        self.assertEqual(new.segments[0].records, old.segments[0].records)

    def test_worker_that_is_released_without_a_freeze_owns_nothing(self):
        peer = self.peer()
        peer.tell("release", transfer=NEW)
        self.run_until(lambda: "release" in peer.server.told, "release")
        self.assertFalse(peer.worker.owned)

    def test_frozen_comes_when_the_server_says_so(self):
        old, new = self.peer([self.filled()]), self.peer([Table()], successor=True)
        old.server.freezes = False
        self.snapshot([old], [new])
        old.tell("freeze", transfer=NEW, timeout_ms=1000)
        self.settle()
        self.assertFalse(old.heard("frozen") or new.heard("imported"))
        old.segments[0].records[b"last"] = b"change"
        old.worker.changed(old.segments[0], b"last")
        old.worker.frozen()
        self.run_until(lambda: old.heard("frozen") and new.heard("imported"), "imported")
        self.assertEqual(new.segments[0].records[b"last"], b"change")

    def test_thawed_worker_owns_its_state_again_and_can_be_asked_again(self):
        old, new = self.peer([self.filled()]), self.peer([Table()], successor=True)
        self.snapshot([old], [new])
        self.freeze([old], [new])
        self.assertFalse(old.worker.owned)
        old.tell("thaw", transfer=NEW)
        self.run_until(lambda: old.worker.owned, "owned again")
        self.assertEqual(old.server.told[-1], "own")
        new.close()
        self.peers.remove(new)
        again = self.peer([Table()], successor=True)
        self.upgrade([old], [again])
        self.assertEqual(again.segments[0].records, old.segments[0].records)

    def test_what_is_said_twice_changes_nothing(self):
        old, new = self.peer([self.filled()]), self.peer([Table()], successor=True)
        self.snapshot([old], [new])
        old.tell("freeze", transfer=NEW, timeout_ms=1000)
        self.freeze([old], [new])
        self.hand_over([old], [new])
        new.tell("own", transfer=NEW)
        old.tell("release", transfer=NEW)
        self.settle()
        self.assertEqual(new.server.told, ["load", "init", "accept", "own"])
        self.assertEqual(old.server.told[4:], ["freeze", "release"])
        self.assertEqual(len(old.heard("frozen")), 1)

    def test_thaw_before_frozen_calls_own(self):
        old, new = self.peer([self.filled()]), self.peer([Table()], successor=True)
        old.server.freezes = False
        self.snapshot([old], [new])
        old.tell("freeze", transfer=NEW, timeout_ms=1)
        old.tell("thaw", transfer=NEW)
        self.run_until(lambda: old.server.told[-1] == "own", "own")
        old.worker.frozen()  # too late
        self.settle()
        self.assertFalse(old.heard("frozen"))
        self.assertTrue(old.worker.owned)

    def test_frozen_worker_whose_master_is_gone_goes_on(self):
        old, new = self.peer([self.filled()]), self.peer([Table()], successor=True)
        self.snapshot([old], [new])
        self.freeze([old], [new])
        old.channel.socket.shutdown(socket.SHUT_RDWR)
        self.run_until(lambda: old.server.told[-1] == "lost", "lost")
        self.assertTrue(old.worker.owned)

    def test_change_after_frozen_ends_the_transfer_by_name(self):
        old, new = self.peer([self.filled()]), self.peer([Table()], successor=True)
        self.snapshot([old], [new])
        self.freeze([old], [new])
        old.worker.changed(old.segments[0], b"key1")
        self.assert_failed(old, errno.EPERM, "table", "frozen")

    def test_what_load_raises_reaches_the_operator(self):
        old = self.peer([self.filled()])
        new = self.peer([Table()], successor=True, server=Server(load=ValueError("a record is missing")))
        self.begin([old], [new])
        self.assert_failed(new, errno.EIO, "a record is missing")

    def test_what_a_segment_raises_ends_the_transfer_and_not_the_server(self):
        table = self.filled()
        table.read = lambda key: {}[key]
        old, new = self.peer([table]), self.peer([Table()], successor=True)
        self.begin([old], [new])
        self.assert_failed(old, errno.EIO, "KeyError")
        self.assertTrue(old.worker.owned)

    def test_importer_that_has_gone_ends_the_transfer(self):
        old, new = self.peer([self.filled(100000)]), self.peer([Table()], successor=True)
        self.begin([old], [new])
        new.close()
        self.peers.remove(new)
        self.assert_failed(old, errno.EPIPE, "importer 0")

    def test_exporter_that_has_gone_ends_the_transfer(self):
        old, new = self.peer([self.filled(100000)]), self.peer([Table()], successor=True)
        self.begin([old], [new])
        self.turn()
        old.close()
        self.peers.remove(old)
        self.assert_failed(new, errno.EPIPE, "exporter 0")

    def test_closed_transfer_lets_go_of_its_pipes(self):
        old, new = self.peer([self.filled(100000)]), self.peer([Table()], successor=True)
        before = open_fds()
        self.begin([old], [new])
        self.turn()
        for peer in (old, new):
            peer.tell("close", transfer=NEW)
        self.settle()
        self.assertEqual(open_fds(), before)

    def test_exporter_sleeps_while_one_of_its_importers_is_slow(self):
        old = self.peer([self.filled(50000)])
        news = [self.peer([Table()], successor=True, index=i) for i in range(2)]
        self.begin([old], news)
        self.peers.remove(news[1])
        for _ in range(1000):
            if not self.turn():
                break
        self.assertFalse(select.select([old.worker], [], [], 0)[0])
        self.peers.append(news[1])
        self.run_until(lambda: all(new.heard("loaded") for new in news), "loaded")
        self.assertEqual(sum(len(new.segments[0].records) for new in news), 50000)

    def test_exporter_without_the_state_refuses(self):
        old, new = self.peer([Table()], successor=True), self.peer([Table()], successor=True)
        self.begin([old], [new])
        self.assert_failed(old, errno.EPERM, "isn't this worker's")

    def test_progress_is_told_at_most_ten_times_a_second(self):
        old, new = self.peer([self.filled(30000)]), self.peer([Table()], successor=True)
        clock = [100.0]
        real, gapless.worker.time.monotonic = gapless.worker.time.monotonic, lambda: clock[0]
        try:
            self.begin([old], [new], pipe_size=4096)
            turns = 0
            while not new.heard("loaded"):
                self.turn()
                clock[0] += 0.01
                turns += 1
        finally:
            gapless.worker.time.monotonic = real
        for peer in (old, new):
            self.assertTrue(turns / 20 < len(peer.heard("progress")) <= turns / 10 + 1, (turns, len(peer.heard("progress"))))
            self.assertEqual(peer.heard("progress")[-1].expected_records, 30000)
            said = len(peer.heard("progress"))
            peer.worker._transfers[0].tell_progress(1e9)
            peer.hear()
            peer.worker._transfers[0].tell_progress(2e9)
            peer.hear()
            self.assertLessEqual(len(peer.heard("progress")), said + 1, "nothing has changed")


class VersionTest(Case):
    UP = {(1, 2): lambda text: b"two:" + text, (2, 3): lambda text: b"three:" + text}
    DOWN = {(3, 2): lambda text: text.removeprefix(b"three:"), (2, 1): lambda text: text.removeprefix(b"two:")}

    def pair(self, old, new):
        old.records = {b"a": b"1", b"b": b"2"}
        return self.peer([old]), self.peer([new], successor=True)

    def test_converters_are_chained_and_the_shortest_way_is_taken(self):
        old, new = self.pair(Table(), Table(version=3, converters=self.UP))
        self.upgrade([old], [new])
        self.assertEqual(new.segments[0].records, {b"a": b"three:two:1", b"b": b"three:two:2"})
        short = Table(version=3, converters={**self.UP, (1, 3): lambda text: b"short:" + text})
        self.assertEqual(short.convert(b"1", 1, 3), b"short:1")
        way = lambda text: lambda data: data + text
        long_last = Table(version=4, converters={(1, 5): way(b"a"), (5, 4): way(b"b"), (1, 2): way(b"c"), (2, 3): way(b"d"), (3, 4): way(b"e")})
        self.assertEqual(long_last.convert(b"", 1, 4), b"ab")

    def test_changes_go_back_in_the_old_version(self):
        old, new = self.pair(Table(), Table(version=3, converters={**self.UP, **self.DOWN}))
        self.upgrade([old], [new], way_back=True)
        self.assertTrue(new.heard("accepted")[0].sends_back)
        new.segments[0].records[b"a"] = b"three:two:9"
        new.worker.changed(new.segments[0], b"a")
        self.assertTrue(new.worker.settle())
        self.settle()
        self.assertEqual(old.segments[0].records, {b"a": b"9", b"b": b"2"})

    def test_one_that_can_not_convert_down_says_so_and_takes_the_state(self):
        old, new = self.pair(Table(), Table(version=3, converters=self.UP))
        self.upgrade([old], [new])
        self.assertFalse(new.heard("accepted")[0].sends_back)
        self.assertIn("table: no converter from version 3 to 1", new.heard("accepted")[0].reason)

    def test_exporter_converts_for_an_importer_that_is_older(self):
        old, new = self.pair(Table(version=3, converters={**self.UP, **self.DOWN}), Table())
        old.segments[0].records = {b"a": b"three:two:1"}
        self.upgrade([old], [new])
        self.assertEqual(list(new.heard("accepted")[0].convert), ["table"])
        self.assertEqual(new.segments[0].records, {b"a": b"1"})

    def test_version_that_nobody_converts_ends_the_transfer_by_name_before_anything_is_sent(self):
        table = Table("first")
        table.records = {b"a": b"1"}
        old, new = self.peer([table, Table(version=3)]), self.peer([Table("first"), Table()], successor=True)
        self.begin([old], [new])
        self.assert_failed(old, errno.EPROTONOSUPPORT, "table", "from version 3 to 1")
        self.assertEqual(new.segments[0].records, {})

    def test_converter_that_raises_ends_the_transfer(self):
        old, new = self.pair(Table(), Table(version=2, converters={(1, 2): lambda text: b"%d" % int(text)}))
        old.segments[0].records[b"c"] = b"many"
        self.begin([old], [new])
        self.assert_failed(new, errno.EIO, "many")


class UnknownTest(Case):
    def pair(self, unknown):
        other = Table("other", 4, unknown=unknown)
        other.records = {b"x": b"1", b"y": b"2"}
        return self.peer([Table(), other]), self.peer([Table()], successor=True)

    def test_unknown_segment_is_refused_by_its_name(self):
        old, new = self.pair(gapless.UNKNOWN_REFUSE)
        self.begin([old], [new])
        self.assert_failed(new, errno.EPROTONOSUPPORT, "other")

    def test_unknown_segment_is_dropped_and_counted(self):
        old, new = self.pair(gapless.UNKNOWN_DROP)
        self.upgrade([old], [new])
        self.assertEqual((new.heard("imported")[0].kept, new.heard("imported")[0].dropped), (0, 2))

    def test_unknown_segment_is_kept_through_a_version_that_does_not_know_it(self):
        old, new = self.pair(gapless.UNKNOWN_KEEP)
        self.upgrade([old], [new])
        self.assertEqual((new.heard("imported")[0].kept, new.heard("imported")[0].dropped), (2, 0))
        knows = self.peer([Table(), Table("other", 5, converters={(4, 5): lambda data: data + b"!"})], successor=True)
        new.worker._kept[0].version = 9  # a record has a version of its own
        self.upgrade([new], [knows])
        self.assertEqual(knows.segments[1].records, {b"x": b"1!", b"y": b"2!"})
        self.assertEqual((knows.heard("imported")[0].kept, knows.heard("imported")[0].dropped), (0, 0))

    def test_new_segment_that_the_old_version_must_know_makes_it_a_one_way_upgrade(self):
        old, new = self.peer([Table()]), self.peer([Table(), Table("new")], successor=True)
        self.upgrade([old], [new])
        self.assertFalse(new.heard("accepted")[0].sends_back)
        self.assertIn("new", new.heard("accepted")[0].reason)


class BlobTest(Case):
    LARGE = bytes(range(256)) * (9 << 12)  # 9 MiB

    def test_large_values_go_as_memory_files(self):
        table = Table()
        table.records = {b"large": self.LARGE, b"small": b"1", b"blob": Blob.of(b"in a file")}
        old, new = self.peer([table]), self.peer([Table()], successor=True)
        table.size = lambda: (0, 0)
        self.upgrade([old], [new])
        records = new.segments[0].records
        self.assertEqual((records[b"large"].read(), records[b"small"], records[b"blob"].read()), (self.LARGE, b"1", b"in a file"))
        self.assertEqual(len(old.heard("attach")), 2)
        records.clear()
        table.records.clear()

    def test_many_of_them_arrive_in_their_order(self):
        table = Table()
        table.records = {b"key%d" % i: b"" for i in range(2000)}
        table.read = lambda key: Blob.of(key[3:])
        table.size = lambda: (0, 0)
        old, new = self.peer([table]), self.peer([Table()], successor=True)
        new.segments[0].put = lambda key, data: new.segments[0].records.__setitem__(key, data.read())
        self.snapshot([old], [new])
        self.assertEqual(new.segments[0].records, {key: b"%d" % i for i, key in enumerate(table.records)})
        table.records.clear()

    def fed(self, blob, size=None, before=True, number=NEW):
        """A blob by hand, its descriptor before or behind the frame, in a stream that says to be of transfer `number`."""
        old, new = self.peer([Table()]), self.peer([Table()], successor=True)
        self.exporters, self.importers = [old], [new]
        self.settle()
        self.connect([old], [new])
        writer = Writer()
        frame = Frame()
        frame.begin.format, frame.begin.transfer = 1, number
        frame.begin.segments.add(name="table", version=1)
        writer.add(frame)
        frame = Frame()
        frame.blob.key, frame.blob.version, frame.blob.id, frame.blob.size = b"k", 1, 1, blob.size if size is None else size
        writer.add(frame)
        writer.add_sum("mark")
        attach = dict(transfer=NEW, exporter=0, ids=[1])
        if before:
            new.tell("attach", [blob], **attach)
            self.settle()
        os.write(self.pipes[0, 0][1].fileno(), writer.buffer)
        self.settle()
        if not before:
            self.assertFalse(new.heard("loaded"))
            new.tell("attach", [blob], **attach)
        self.settle()
        self.pipes = None
        return new

    def test_descriptor_may_come_before_or_behind_its_frame(self):
        for before in (True, False):
            new = self.fed(Blob.of(b"data"), before=before)
            self.assertTrue(new.heard("loaded"))
            self.assertEqual(new.segments[0].records[b"k"].read(), b"data")
            new.segments[0].records.clear()

    def test_file_that_is_not_sealed_is_refused(self):
        blob = Blob(os.memfd_create("open", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), 4)
        os.write(blob.fileno(), b"data")
        self.assert_failed(self.fed(blob), errno.EBADMSG, "sealed")

    def test_stream_of_another_transfer_is_refused(self):
        self.assert_failed(self.fed(Blob.of(b"data"), number=OLD), errno.EBADMSG, "transfer 1")

    def test_file_of_another_size_is_refused(self):
        self.assert_failed(self.fed(Blob.of(b"data"), size=5), errno.EBADMSG, "5 bytes")

    def test_descriptor_that_is_no_file_is_refused(self):
        read, _ = pipe()
        blob = Blob(read.take(), 0)
        self.assert_failed(self.fed(blob), errno.EBADMSG, "memory file")


class StuckTest(Case):
    def test_export_that_waits_for_the_channel_goes_on_whoever_has_sent_what_was_in_it(self):
        """Another message may, before the loop hears that there is room."""
        worker = self.peer([Table()]).worker
        pumped = []
        worker._exports = lambda: [types.SimpleNamespace(changes_only=False, pump=lambda: pumped.append(worker.is_stuck()))]
        worker._channel._queue.append((Control(done={}).SerializeToString(), []))
        worker._watch_channel()
        self.assertTrue(worker.is_stuck())
        worker.tell("progress", transfer=1)
        self.assertFalse(worker.is_stuck())
        worker.dispatch()
        self.assertEqual(pumped, [False])


class BackTest(Case):
    """After the switch: the old version is on standby."""

    def start(self, pipe_size=None, **rules):
        self.table, self.copy = Table(**rules), Table(**rules)
        self.table.records = {b"a": b"1", b"b": b"2"}
        self.old, self.new = self.peer([self.table]), self.peer([self.copy], successor=True)
        self.snapshot([self.old], [self.new])
        self.freeze([self.old], [self.new])
        self.connect([self.new], [self.old], BACK, pipe_size=pipe_size)
        self.export([self.new], [self.old], BACK)
        self.hand_over([self.old], [self.new])
        self.old.said.clear()

    def change(self, key, value):
        self.copy.records[key] = value
        self.new.worker.changed(self.copy, key)

    def roll_back(self):
        for kind, peer in (("own", self.old), ("release", self.new)):
            peer.tell(kind, transfer=NEW)
        self.run_until(lambda: self.old.worker.owned and not self.new.worker.owned, "owned again")

    def test_settled_change_survives_the_death_of_the_new_version(self):
        self.start()
        self.change(b"a", b"10")
        self.copy.records.pop(b"b")
        self.new.worker.changed(self.copy, b"b")
        self.assertTrue(self.new.worker.settle())
        self.new.close()  # without End
        self.peers.remove(self.new)
        self.run_until(lambda: self.old.heard("imported"), "imported")
        self.assertEqual(self.old.heard("imported")[0].cut, 1)
        self.assertEqual(self.table.records, {b"a": b"10"})
        self.old.tell("own", transfer=NEW)
        self.run_until(lambda: self.old.worker.owned, "owned again")

    def test_change_that_has_no_room_is_settled_later(self):
        self.start(pipe_size=4096)
        for i in range(1000):
            self.change(b"key%d" % i, bytes(100))
        self.assertFalse(self.new.worker.settle())
        self.new.worker.dispatch()
        self.run_until(lambda: "settled" in self.new.server.told, "settled")
        self.settle()
        self.assertEqual(self.table.records, self.copy.records)

    def test_answers_that_wait_are_told_although_a_later_one_need_not_wait(self):
        self.start(pipe_size=4096)
        for i in range(1000):
            self.change(b"key%d" % i, bytes(100))
        self.assertFalse(self.new.worker.settle())
        for _ in range(1000):
            self.old.worker.dispatch()
            if self.new.worker.settle():
                break
        self.assertNotIn("settled", self.new.server.told)
        self.new.worker.dispatch()
        self.assertEqual(self.new.server.told[-1], "settled")

    def test_waiting_is_told(self):
        self.start(pipe_size=4096)
        for i in range(1000):
            self.change(b"key%d" % i, bytes(100))
        self.assertFalse(self.new.worker.settle())
        self.new.worker._check_settled()
        self.new.worker._transfers[-1].tell_progress(1e9)
        self.new.hear()
        self.assertTrue(self.new.heard("progress")[-1].waiting)
        self.settle()
        self.new.worker._transfers[-1].tell_progress(2e9)
        self.new.hear()
        self.assertFalse(self.new.heard("progress")[-1].waiting)

    def test_answers_do_not_wait_for_a_standby_that_has_gone(self):
        self.start(pipe_size=4096)
        for i in range(1000):
            self.change(b"key%d" % i, bytes(100))
        self.assertFalse(self.new.worker.settle())
        self.old.close()
        self.peers.remove(self.old)
        self.run_until(lambda: "settled" in self.new.server.told, "settled")
        self.assertTrue(self.new.heard("failed"))

    def test_rolled_back_in_order_everything_is_there(self):
        self.start()
        self.change(b"a", b"10")
        self.new.tell("freeze", transfer=BACK, timeout_ms=1000)
        self.run_until(lambda: self.old.heard("imported"), "imported")
        self.assertEqual(self.old.heard("imported")[0].cut, 0)
        self.roll_back()
        self.assertEqual(self.table.records, {b"a": b"10", b"b": b"2"})
        self.assertEqual(self.old.server.told[-1], "own")
        self.assertEqual(self.new.server.told[-1], "release")

    def test_closed_way_back_lets_answers_go(self):
        self.start(pipe_size=4096)
        for i in range(1000):
            self.change(b"key%d" % i, bytes(100))
        self.assertFalse(self.new.worker.settle())
        self.new.tell("close", transfer=BACK)
        self.run_until(lambda: "settled" in self.new.server.told, "settled")
        self.assertTrue(self.new.worker.settle())

    def test_late_deltas_are_merged_and_sent_back(self):
        number = lambda value: value.to_bytes(8, "little")
        for merge, results in ((gapless.MERGE_SUM, (5 + 7, 7)), (gapless.MERGE_MAX, (7, 7)), (gapless.MERGE_MIN, (5, 7))):
            self.start(merge=merge)
            self.change(b"a", number(5))
            self.assertTrue(self.new.worker.settle())
            for key in (b"a", b"fresh"):
                self.old.worker.delta(self.table, key, number(7))
            self.settle()
            self.assertEqual((self.copy.records[b"a"], self.copy.records[b"fresh"]), tuple(map(number, results)))
            self.assertTrue(self.new.worker.settle())
            self.settle()
            self.assertEqual(self.table.records[b"a"], number(results[0]))

    def test_delta_of_its_own_kind(self):
        self.start(merge=gapless.MERGE_OWN)
        self.copy.merge_delta = lambda key, data: self.copy.records.__setitem__(key, self.copy.records[key] + data)
        self.old.worker.delta(self.table, b"a", b"+more")
        self.settle()
        self.assertEqual(self.copy.records[b"a"], b"1+more")

    def test_delta_is_refused_where_nobody_merges_it(self):
        self.start(merge=gapless.MERGE_OWN)
        with self.assertRaises(Error):
            self.old.worker.delta(self.table, b"a", bytes(8 << 20))
        self.table.merge = gapless.MERGE_NONE
        with self.assertRaises(Error):
            self.old.worker.delta(self.table, b"a", bytes(8))
        with self.assertRaises(Error):
            self.new.worker.delta(self.copy, b"a", bytes(8))


class ConnectionTest(Case):
    def offered(self, data, state):
        old, new = self.peer([Table()]), self.peer([Table()], successor=True)
        ours, theirs = socket.socketpair()
        with self.assertRaises(Error):
            old.worker.offer(theirs, "web", data, state)
        self.upgrade([old], [new])
        old.worker.offer(theirs, "web", data, state)
        del theirs
        self.assertEqual(old.worker.offers, 1)
        self.settle()
        _, body, fds = next(each for each in old.said if each[0] == "offer")
        body.offer = 77
        new.channel.send(Control(offer=body), fds)
        fds.clear()
        self.settle()
        self.assertEqual([taken.offer for taken in new.heard("taken")], [77])
        old.tell("taken", offer=1)
        self.run_until(lambda: old.worker.offers == 0, "taken")
        connection = new.server.taken[0]
        self.assertEqual((connection.listener, connection.input, connection.state), ("web", data, state))
        connection.socket.sendall(b"answer")
        self.assertEqual(ours.recv(10), b"answer")
        connection.socket.close()
        self.assertEqual(ours.recv(10), b"", "a duplicate is left open")
        ours.close()

    def test_connection_goes_over_with_what_was_read(self):
        self.offered(b"GET /half", b"state")
        self.offered(b"", b"")

    def test_large_input_and_state_go_in_a_memory_file(self):
        self.offered(os.urandom(100000), os.urandom(70000))

    def test_out_of_descriptors_nothing_is_taken_and_the_worker_serves_on(self):
        old, new = self.peer([Table()]), self.peer([Table()], successor=True)
        self.upgrade([old], [new])
        ours, theirs = socket.socketpair()
        message = Control()
        message.offer.offer = 77
        message.offer.connections.add(listener="web")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        for limit in 0, limits[0]:
            new.channel.send(message, [theirs])
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits[1]))
            try:
                new.worker.dispatch()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.settle()
        self.assertEqual([(each.offer, each.transfer, each.code) for each in new.heard("failed")], [(77, 0, errno.EMFILE)])
        self.assertEqual([each.offer for each in new.heard("taken")], [77])
        new.server.taken.pop().socket.close()
        ours.close()
        theirs.close()

    def release_with(self, count):
        """A worker that offers so many, and our ends."""
        old, new = self.peer([Table()]), self.peer([Table()], successor=True)
        self.upgrade([old], [new])
        pairs = [socket.socketpair() for _ in range(count)]
        for i, (_, theirs) in enumerate(pairs):
            old.worker.offer(theirs, "web", b"%d" % i, b"")
        return old, [ours for ours, _ in pairs]

    def test_eight_offers_are_on_their_way_at_most(self):
        old, ours = self.release_with(1000)
        taken = []
        while old.worker.offers:
            self.settle()
            offers = old.heard("offer")[len(taken):]
            self.assertTrue(0 < len(offers) <= 8)
            for offer in offers:
                taken.append(offer.offer)
                old.tell("taken", offer=offer.offer)
            self.run_until(lambda: not set(taken) & set(old.worker._offers), "taken")
        inputs = [connection.input for offer in old.heard("offer") for connection in offer.connections]
        self.assertEqual(inputs, [b"%d" % i for i in range(1000)])
        for each in ours:
            each.close()
        old.said.clear()

    def test_what_was_not_offered_yet_is_the_servers_again_when_it_owns_again(self):
        old, ours = self.release_with(1000)
        self.settle()
        sent = sum(len(offer.connections) for offer in old.heard("offer"))
        old.tell("own", transfer=NEW)
        self.run_until(lambda: old.server.taken, "taken")
        self.assertEqual([connection.input for connection in old.server.taken], [b"%d" % i for i in range(sent, 1000)])
        for each in (*ours, *(connection.socket for connection in old.server.taken)):
            each.close()
        old.said.clear()

    def test_too_large_is_refused_and_stays(self):
        old, new = self.peer([Table()]), self.peer([Table()], successor=True)
        self.upgrade([old], [new])
        ours, theirs = socket.socketpair()
        with self.assertRaises(Error):
            old.worker.offer(theirs, "web", bytes(16 << 20), b"x")
        theirs.sendall(b"here")
        self.assertEqual(ours.recv(10), b"here")
        ours.close()
        theirs.close()

    def test_offer_without_its_descriptors_ends_the_channel(self):
        peer = self.peer([Table()])
        peer.tell("offer", offer=1, connections=[{"listener": "web"}])
        self.run_until(lambda: "lost" in peer.server.told, "lost")


class FrameTest(unittest.TestCase):
    def stream(self):
        writer = Writer()
        frame = Frame()
        frame.begin.format, frame.begin.transfer = 1, 5
        frame.begin.segments.add(name="table", version=1)
        writer.add(frame)
        frame = Frame()
        frame.record.key, frame.record.version, frame.record.value = b"key", 1, b"value" * 100
        writer.add(frame)
        writer.add_sum("mark")
        writer.add_sum("end")
        return bytes(writer.buffer)

    def read(self, data, step=None, changes_only=False):
        reader, kinds = Reader(changes_only), []
        for i in range(0, len(data), step or len(data)):
            reader.feed(data[i:i + (step or len(data))])
            while frame := reader.next():
                kinds.append(frame[0])
        return kinds

    def refuses(self, code, data, **keywords):
        with self.assertRaises(Error) as raised:
            self.read(data, **keywords)
        self.assertEqual(raised.exception.code, code, str(raised.exception))

    def test_frames_are_read_whatever_their_bytes_come_in(self):
        for step in (1, 2, 7, None):
            self.assertEqual(self.read(self.stream(), step), ["begin", "record", "mark", "end"])

    def test_each_changed_byte_is_seen(self):
        data = self.stream()
        for i in range(len(data)):
            bad = bytearray(data)
            bad[i] ^= 1
            with contextlib.suppress(Error):
                self.assertNotEqual(self.read(bytes(bad)), ["begin", "record", "mark", "end"], f"byte {i}")

    def test_order_is_held(self):
        whole = self.stream()
        self.refuses(errno.EBADMSG, whole, changes_only=True)
        begin = whole[:whole[0] + 1]
        self.refuses(errno.EBADMSG, begin + begin)
        self.refuses(errno.EBADMSG, whole[len(begin):])
        self.refuses(errno.EBADMSG, whole + whole[len(begin):len(begin) + 520])
        writer = Writer()
        frame = Frame()
        frame.begin.format = 1
        writer.add(frame)
        writer.add_sum("mark")
        writer.add_sum("mark")
        self.refuses(errno.EBADMSG, writer.buffer)

    def test_blobs_are_numbered_from_one(self):
        for number in (0, 2):
            writer = Writer()
            frame = Frame()
            frame.begin.format = 1
            frame.begin.segments.add(name="table", version=1)
            writer.add(frame)
            frame = Frame()
            frame.blob.version, frame.blob.id = 1, number
            writer.add(frame)
            self.refuses(errno.EBADMSG, writer.buffer)

    def test_lengths_that_are_not_allowed(self):
        self.refuses(errno.EMSGSIZE, b"\xff\xff\xff\xff\x0f")
        whole = self.stream()
        self.refuses(errno.EBADMSG, whole[:whole[0] + 1] + b"\x80\x00")
        self.refuses(errno.EBADMSG, b"\xff\xff\xff\xff\x1f")
        self.refuses(errno.EBADMSG, b"\xff\xff\xff\xff\xff\x01")

    def test_unknown_frame_is_counted_and_passed_over(self):
        writer = Writer()
        frame = Frame()
        frame.begin.format = 1
        writer.add(frame)
        writer.add(Frame.FromString(b"\xfa\x3f\x02hi"))
        writer.add_sum("mark")
        self.assertEqual(self.read(bytes(writer.buffer)), ["begin", "mark"])


@unittest.skipUnless(os.environ.get("GAPLESS_STREAM"), "GAPLESS_STREAM is not set")
class CodecTest(unittest.TestCase):
    """The same bytes as the codec in C writes, which reads them, and the other way."""

    def stream(self, *arguments, data):
        return subprocess.run([os.environ["GAPLESS_STREAM"], *arguments], input=data, capture_output=True, check=True).stdout

    @staticmethod
    def hexadecimal(data):
        return data.hex() or "-"

    def lines(self, changes_only):
        records = [("record", 0, b"key", 1, b"value"), ("record", 1, b"", 300, b""), ("tombstone", 0, b"key"),
                   ("blob", 1, b"b", 2, 1, 1 << 33),
                   ("record", 1, bytes(range(256)), 1 << 31, bytes(70000)), ("blob", 0, b"", 1, 2, 0), ("tombstone", 1, b"")]
        sums = [("end",)] if changes_only else [("mark",), *records[4:5], *records[:3], ("end",), ("delta", 1, b"d", 2, bytes(8)),
                                                ("delta", 0, b"", 1, b"")]
        return [("begin", 1 << 40, 3, "table:1", "other:4000000000"), *records, *sums]

    def text(self, lines):
        return "".join(" ".join(self.hexadecimal(field) if isinstance(field, bytes) else str(field) for field in line) + "\n"
                       for line in lines).encode()

    def written(self, lines):
        writer = Writer()
        for kind, *fields in lines:
            frame = Frame()
            if kind == "begin":
                frame.begin.format, frame.begin.transfer, frame.begin.worker = 1, *fields[:2]
                for segment in fields[2:]:
                    name, version = segment.split(":")
                    frame.begin.segments.add(name=name, version=int(version))
            elif kind in ("mark", "end"):
                writer.add_sum(kind)
                continue
            else:
                body = getattr(frame, kind)
                body.SetInParent()
                for name, value in zip(("segment", "key", "version", *(("id", "size") if kind == "blob" else ("value",))), fields):
                    setattr(body, name, value)
            writer.add(frame)
        return bytes(writer.buffer)

    def test_both_write_the_same_bytes(self):
        for changes_only in (False, True):
            lines = self.lines(changes_only)
            self.assertEqual(self.stream("write", *["changes"] * changes_only, data=self.text(lines)), self.written(lines))

    def test_what_is_written_here_is_read_there(self):
        for changes_only in (False, True):
            lines = self.lines(changes_only)
            read = self.stream("read", *["changes"] * changes_only, data=self.written(lines))
            self.assertEqual(read, self.text(lines) + b"end of file\n")

    def test_what_is_written_there_is_read_here(self):
        for changes_only in (False, True):
            lines = self.lines(changes_only)
            reader = Reader(changes_only)
            reader.feed(self.stream("write", *["changes"] * changes_only, data=self.text(lines)))
            for kind, *fields in lines:
                got, body = reader.next()
                self.assertEqual(got, kind)
                if kind in ("record", "delta"):
                    self.assertEqual([body.segment, body.key, body.version, body.value], fields)
                elif kind == "tombstone":
                    self.assertEqual([body.segment, body.key], fields)
                elif kind == "blob":
                    self.assertEqual([body.segment, body.key, body.version, body.id, body.size], fields)
            self.assertIsNone(reader.next())
            self.assertTrue(reader.whole())

    def test_both_refuse_the_same_cuts_and_changes(self):
        lines = self.lines(False)[:4] + [("mark",), ("end",)]
        data = self.written(lines)
        for i in range(len(data)):
            for bad in (data[:i], *(data[:i] + bytes([data[i] ^ bit]) + data[i + 1:] for bit in (1, 8, 32))):
                there = self.stream("read", data=bad).splitlines()[-1] == b"end of file"
                reader, here = Reader(False), False
                reader.feed(bad)
                with contextlib.suppress(Error):
                    while frame := reader.next():
                        here = frame[0] == "end"
                self.assertEqual(there, here and reader.whole(), bad)

    def test_keys_belong_to_the_same_importers(self):
        keys = [os.urandom(size) for size in (*range(300), 5000)]
        for importers in (1, 2, 3, 7, 64, 1000):
            there = self.stream("partition", str(importers), data=self.text([(key,) for key in keys]))
            self.assertEqual(list(map(int, there.split())), [partition(key, importers) for key in keys])


if __name__ == "__main__":
    unittest.main()
