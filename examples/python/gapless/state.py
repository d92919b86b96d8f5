# SPDX-License-Identifier: BSD-2-Clause
"""State on its way: what a server says of it (Segment), and a transfer out (Export) and in (Import).

What a method of a segment raises ends the transfer, not the server: Worker sees to it.
"""

import collections
import errno
import os
import selectors
import stat

from ipc.transfer_pb2 import (MERGE_MAX, MERGE_MIN, MERGE_NONE, MERGE_OWN, MERGE_SUM, UNKNOWN_DROP, UNKNOWN_KEEP,
                              UNKNOWN_REFUSE, Frame)

from .wire import FORMAT, FRAME_MAX, Blob, Error, Reader, Writer, partition

RECORD_MAX = FRAME_MAX - 64  # bytes of key and value together; what is larger goes as a blob
CHUNK = 256 << 10            # bytes that one turn reads from a pipe, and that may wait for one
PROGRESS_S = 0.1             # between two reports of it

# What `read` may give in place of bytes or a Blob alone, where a record isn't in the segment's version.
Value = collections.namedtuple("Value", "data version")


class Segment:
    """Records of one kind: keys and values, bytes each. A server derives from it; gapless_state.h says the same of C."""

    name = ""
    version = 1            # of the schema in which `read` gives values and `put` takes them, from 1
    replicated = False     # each worker of the next generation gets every record, not the one that the key belongs to
    read_only = False      # serving doesn't change it
    merge = MERGE_NONE     # how a delta goes into it. SUM, MAX, MIN: values of 8 bytes, unsigned, lowest first
    unknown = UNKNOWN_REFUSE  # what a version does with the records that doesn't know the segment
    converters = {}        # {(from, to): function(bytes or Blob) → the same}: up, and down for the way back; chained

    def keys(self):
        """Iterates over the keys, lazily: while that goes on keys come and go. Each that is there all the time must be among them."""
        raise NotImplementedError

    def read(self, key):
        """The value now: bytes, Blob, or Value. None: the key isn't there (any more)."""
        raise NotImplementedError

    def put(self, key, data):
        """Takes a record, bytes or Blob, in place of what the key had."""
        raise NotImplementedError

    def remove(self, key):
        """The key isn't there any more, if it was."""
        raise NotImplementedError

    def merge_delta(self, key, data):
        """Takes a delta; for MERGE_OWN only."""
        raise NotImplementedError

    def size(self):
        """(records, bytes), about; 0: not known."""
        return 0, 0

    # The rest is for this module.

    def chain(self, start, goal):
        """The fewest converters that lead from one version to another."""
        ways, queue = {start: []}, collections.deque([start])
        while queue and goal not in ways:
            at = queue.popleft()
            for (a, b), convert in self.converters.items():
                if a == at and b not in ways:
                    ways[b] = [*ways[at], convert]
                    queue.append(b)
        if goal not in ways:
            raise Error(errno.EPROTONOSUPPORT, f"segment {self.name}: no converter from version {start} to {goal}")
        return ways[goal]

    def convert(self, data, start, goal):
        for convert in self.chain(start, goal):
            data = convert(data)
        return data

    def current(self, key):
        value = self.read(key)
        return value if value is None or isinstance(value, Value) else Value(value, self.version)

    def take(self, key, value):
        self.put(key, self.convert(value.data, value.version, self.version))

    def take_delta(self, key, value):
        data = self.convert(value.data, value.version, self.version)
        if self.merge == MERGE_OWN:
            self.merge_delta(key, data)
            return
        combine = {MERGE_SUM: lambda a, b: (a + b) % (1 << 64), MERGE_MAX: max, MERGE_MIN: min}.get(self.merge)
        if combine is None:
            raise Error(errno.EPROTO, f"segment {self.name}: a delta, and it doesn't merge")
        before = self.current(key)
        numbers = [data] if before is None else [before.data, data]
        if any(len(each) != 8 for each in numbers):
            raise Error(errno.EBADMSG, f"segment {self.name}: merging values that aren't 8 bytes")
        numbers = [int.from_bytes(each, "little") for each in numbers]
        merged = numbers[0] if before is None else combine(*numbers)
        self.take(key, Value(merged.to_bytes(8, "little"), self.version))

    def describe(self, to, version=None):
        """Fills in a Segment message."""
        to.name, to.version, to.replicated, to.merge = self.name, version or self.version, self.replicated, self.merge
        to.read_only, to.unknown = self.read_only, self.unknown


class Kept(Segment):
    """A segment that this version doesn't know and keeps unread (UNKNOWN_KEEP), for the next one, or the one before."""

    def __init__(self, description):
        for field in ("name", "version", "replicated", "read_only", "merge", "unknown"):
            setattr(self, field, getattr(description, field))
        self.records = {}

    def keys(self):
        return iter(list(self.records))

    def read(self, key):
        return self.records.get(key)

    def take(self, key, value):
        self.records[key] = value

    def chain(self, start, goal):
        return []

    def remove(self, key):
        self.records.pop(key, None)

    def size(self):
        return len(self.records), 0


# ── a transfer ──


class Transfer:
    """What an Export and an Import have in common: a number, the pipes in their order, and what was said of the progress."""

    def __init__(self, worker, number, count, changes_only):
        self.worker, self.number, self.count, self.changes_only = worker, number, count, changes_only
        self.pipes, self.segments = [], []
        self.records = self.bytes = self.expected_records = self.expected_bytes = 0
        self.waiting = False
        self._said, self._said_at = (0, 0, False), 0.0

    def add_pipes(self, first, fds, pipe_class):
        """True: these were the last."""
        if first != len(self.pipes):
            raise Error(errno.EPROTO, f"the master sent pipe {first} after {len(self.pipes)} of them")
        for fd in fds:
            if not stat.S_ISFIFO(os.fstat(fd.fileno()).st_mode):
                raise Error(errno.EPROTO, "the master sent what is no pipe")
            os.set_blocking(fd.fileno(), False)
            self.pipes.append(pipe_class(self, fd, len(self.pipes)))
        if len(self.pipes) > self.count or not self.count:
            raise Error(errno.EPROTO, f"the master announced {self.count} pipes and sent {len(self.pipes)}")
        return len(self.pipes) == self.count

    def tell_progress(self, now):
        said = (self.records, self.bytes, self.waiting)
        if said == self._said or now - self._said_at < PROGRESS_S:
            return
        self._said, self._said_at = said, now
        self.worker.tell("progress", transfer=self.number, records=self.records, bytes=self.bytes, waiting=self.waiting,
                         expected_records=self.expected_records, expected_bytes=self.expected_bytes)

    def close(self):
        for pipe in self.pipes:
            pipe.close()


class OutPipe:
    """The way to one importer."""

    def __init__(self, export, fd, index):
        self.export, self.fd, self.index, self.writer = export, fd, index, Writer()
        self.changed = {}  # (segment, key): changed since it was sent; in this order. A dict is a set with an order
        self.ended = False
        self._blob_id = 0

    def has_room(self):
        return len(self.writer.buffer) < CHUNK and not self.export.worker.is_stuck()

    def settled(self):
        return not (self.changed or self.writer.buffer)

    def add_record(self, segment, key, value, kind="record"):
        data = value.data
        if kind == "record" and isinstance(data, bytes) and len(key) + len(data) > RECORD_MAX:
            data = Blob.of(data)
        frame = Frame()
        if isinstance(data, Blob):
            # The descriptor first: if we die now, the importer doesn't wait for one that never comes.
            self._blob_id += 1
            worker = self.export.worker
            worker.tell("attach", [data], transfer=self.export.number, exporter=worker.index, importer=self.index, ids=[self._blob_id])
            body, size = frame.blob, data.size
            body.id, body.size = self._blob_id, size
        else:
            body, size = getattr(frame, kind), len(data)
            body.value = data
        body.segment, body.key, body.version = segment, key, value.version
        self.writer.add(frame)
        self.export.count_record(len(key) + size)

    def add_tombstone(self, segment, key):
        frame = Frame()
        frame.tombstone.segment, frame.tombstone.key = segment, key
        self.writer.add(frame)
        self.export.count_record(len(key))

    def flush(self):
        """Writes what the pipe takes."""
        buffer = self.writer.buffer
        try:
            while buffer:
                with memoryview(buffer) as view:
                    written = os.write(self.fd.fileno(), view)
                del buffer[:written]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            raise Error(errno.EPIPE, f"importer {self.index} has gone") from None

    def watch(self, wanted):
        self.export.worker.watch(self.fd, selectors.EVENT_WRITE if wanted else 0, self.export, self.export.pump)

    def close(self):
        self.watch(False)
        self.fd.close()


class Export(Transfer):
    """State on its way out: a snapshot, and what changes meanwhile; or changes only. A changed key is read when there is room for it,
    so what waits is a set of keys, however often they change."""

    def __init__(self, worker, message):
        super().__init__(worker, message.transfer, message.importers, message.changes_only)
        self.frozen = False
        self._theirs, self._convert = {}, set()
        self.numbers = {}  # of the segments, as records name them; none before it has begun
        self._snapshot = None

    def add(self, message, fds):
        if not self.changes_only and not self.worker.owned:
            raise Error(errno.EPERM, "the state isn't this worker's")
        self._theirs.update({segment.name: segment.version for segment in message.segments})
        self._convert.update(message.convert)
        if self.add_pipes(message.first, fds, OutPipe):
            self._begin()

    def _begin(self):
        self.segments = self.worker.all_segments()
        self.numbers = {segment: number for number, segment in enumerate(self.segments)}
        for segment in self.segments:
            segment.chain(segment.version, self.version_of(segment))  # before anything is sent
        records, size = (sum(figures) for figures in zip((0, 0), *(segment.size() for segment in self.segments)))
        if not self.changes_only:
            self.expected_records, self.expected_bytes = records, size
            self._snapshot = ((index, key) for index, segment in enumerate(self.segments) for key in segment.keys())
        for pipe in self.pipes:
            frame = Frame()
            frame.begin.format, frame.begin.transfer, frame.begin.worker = FORMAT, self.number, self.worker.index
            for segment in self.segments:
                segment.describe(frame.begin.segments.add(), self.version_of(segment))
            frame.begin.expected_records = self.expected_records // self.count
            frame.begin.expected_bytes = self.expected_bytes // self.count
            pipe.writer.add(frame)
        self.pump()

    def converts(self, segment):
        """The importers can't read our version: those that asked for theirs, and on the way back all."""
        if isinstance(segment, Kept):
            return False  # its records are in the versions in which they came
        return segment.name in self._theirs and (self.changes_only or segment.name in self._convert)

    def version_of(self, segment):
        return self._theirs[segment.name] if self.converts(segment) else segment.version

    def count_record(self, size):
        self.records += 1
        self.bytes += size

    def pipes_of(self, segment, key):
        return self.pipes if segment.replicated else [self.pipes[partition(key, self.count)]]

    def changed(self, segment, key):
        if not self.numbers:
            return  # it hasn't begun: all is still to be read
        if self.frozen:
            raise Error(errno.EPERM, f"segment {segment.name} was changed after it was frozen")
        for pipe in self.pipes_of(segment, key):
            pipe.changed[self.numbers[segment], key] = True
            pipe.watch(True)

    def finish(self):
        """Nothing changes any more."""
        self.frozen = True
        self.pump()

    def delta(self, segment, key, data):
        for pipe in self.pipes_of(segment, key):
            pipe.add_record(self.numbers[segment], key, Value(data, segment.version), "delta")
        self.pump()

    def pump(self):
        """A part of what is to be done: what fills the buffers once."""
        self._send_snapshot()
        for pipe in self.pipes:
            while pipe.changed and pipe.has_room():
                index, key = next(iter(pipe.changed))
                del pipe.changed[index, key]
                self._send(index, key, [pipe], tombstone=True)
            if self.frozen and self._snapshot is None and not pipe.changed and not pipe.ended:
                pipe.writer.add_sum("end")
                pipe.ended = True
            pipe.flush()
        goes_on = self._snapshot is not None and all(pipe.has_room() for pipe in self.pipes)
        for pipe in self.pipes:  # one that is empty is watched only if something can go on
            pipe.watch(pipe.writer.buffer or goes_on or pipe.changed and pipe.has_room())

    def _send_snapshot(self):
        while self._snapshot is not None and all(pipe.has_room() for pipe in self.pipes):
            try:
                index, key = next(self._snapshot)
            except StopIteration:
                self._snapshot = None
                for pipe in self.pipes:
                    pipe.writer.add_sum("mark")
                return
            self._send(index, key, self.pipes_of(self.segments[index], key), tombstone=False)

    def _send(self, index, key, pipes, tombstone):
        segment = self.segments[index]
        value = segment.current(key)
        if value is not None and self.converts(segment):
            goal = self.version_of(segment)
            value = Value(segment.convert(value.data, value.version, goal), goal)
        for pipe in pipes:
            if value is not None:
                pipe.add_record(index, key, value)
            elif tombstone:
                pipe.add_tombstone(index, key)

    def settled(self):
        """Every change is in the pipes, where the end of this process doesn't matter any more."""
        return all(pipe.settled() for pipe in self.pipes)


class InPipe:
    """The way from one exporter."""

    def __init__(self, transfer, fd, index):
        self.transfer, self.fd, self.index, self.reader = transfer, fd, index, Reader(transfer.changes_only)
        self.segments = []      # by the numbers of this pipe; None: dropped
        self.attached = {}      # descriptors of blobs that have come, by id
        self.blob = None        # a frame whose descriptor hasn't
        self.marked = self.ended = self.cut = False

    def watch(self, wanted):
        self.transfer.worker.watch(self.fd, selectors.EVENT_READ if wanted else 0, self.transfer, self.pump)

    def pump(self):
        try:
            data = os.read(self.fd.fileno(), CHUNK)
        except BlockingIOError:
            return
        if data:
            self.reader.feed(data)
            self.handle()
        else:
            self._end_of_file()

    def _end_of_file(self):
        self.close()
        if not self.ended and self.transfer.changes_only:
            self.cut = True  # what came whole is there
            self.transfer.check_end()
        elif not self.ended or not self.reader.whole():
            raise Error(errno.EPIPE, f"exporter {self.index} has gone in the midst of its state")

    def attach(self, ids, fds):
        if len(ids) != len(fds):
            raise Error(errno.EPROTO, f"the master sent {len(fds)} descriptors for {len(ids)} blobs")
        self.attached.update(zip(ids, fds))
        self.handle()
        if self.fd.fileno() >= 0 and not self.blob:
            self.pump()  # now, so that descriptors don't pile up here

    def handle(self):
        """Takes the frames that are there, up to a blob whose descriptor isn't."""
        while True:
            if self.blob:
                if self.blob.id not in self.attached:
                    break
                self._take_blob(self.blob)
                self.blob = None
            frame = self.reader.next()
            if frame is None:
                break
            kind, body = frame
            if kind == "blob":
                self.blob = body
            else:
                self._take(kind, body)
        self.watch(not self.blob)

    def _take_blob(self, body):
        data = Blob.received(self.attached.pop(body.id), body.size)
        self.transfer.take_record(self.segments[body.segment], body.key, Value(data, body.version), data.size)

    def _take(self, kind, body):
        if kind == "begin":
            if body.transfer != self.transfer.number:
                raise Error(errno.EBADMSG, f"state of transfer {body.transfer} in that of {self.transfer.number}")
            self.segments = [self.transfer.segment_for(description) for description in body.segments]
            self.transfer.expected_records += body.expected_records
            self.transfer.expected_bytes += body.expected_bytes
        elif kind == "record":
            self.transfer.take_record(self.segments[body.segment], body.key, Value(body.value, body.version), len(body.value))
        elif kind == "tombstone":
            self.transfer.take_tombstone(self.segments[body.segment], body.key)
        elif kind == "delta":
            self.transfer.take_delta(self.segments[body.segment], body.key, Value(body.value, body.version))
        elif kind == "mark":
            self.marked = True
            self.transfer.check_mark()
        elif kind == "end":
            self.ended = True
            self.transfer.check_end()

    def close(self):
        self.watch(False)
        self.fd.close()
        self.attached.clear()


class Import(Transfer):
    """State on its way in."""

    def __init__(self, worker, message):
        super().__init__(worker, message.transfer, message.exporters, message.changes_only)
        self.serve_at_mark = message.serve_at_mark
        self.kept = self.dropped = 0
        self._theirs = {}

    def add(self, message, fds):
        if not self.changes_only and self.worker.owned:
            raise Error(errno.EPERM, "this worker has a state of its own")
        self._theirs.update({segment.name: segment for segment in message.segments})
        if self.add_pipes(message.first, fds, InPipe):
            self._accept()

    def _accept(self):
        """Looks whether all can be taken, before anything is sent."""
        convert = []
        for theirs in self._theirs.values():
            segment = self.segment_for(theirs)
            try:
                if segment:
                    segment.chain(theirs.version, segment.version)
            except Error:
                convert.append(theirs.name)  # an older version than theirs: its converters are theirs
        reason = self._cannot_send_back()
        self.worker.tell("accepted", transfer=self.number, sends_back=not reason, reason=reason, convert=convert)
        for pipe in self.pipes:
            pipe.watch(True)

    def attach(self, exporter, ids, fds):
        if exporter >= len(self.pipes):
            raise Error(errno.EPROTO, f"the master sent blobs of exporter {exporter} of {len(self.pipes)}")
        self.pipes[exporter].attach(ids, fds)

    def _cannot_send_back(self):
        for segment in self.worker.segments:
            try:
                if segment.name in self._theirs:
                    segment.chain(segment.version, self._theirs[segment.name].version)
                elif segment.unknown == UNKNOWN_REFUSE:
                    return f"segment {segment.name} isn't known to the version before"
            except Error as error:
                return str(error)
        return ""

    def segment_for(self, theirs):
        """Our segment of that name; one that keeps what we don't know; None: it is dropped."""
        for segment in self.worker.all_segments():
            if segment.name == theirs.name:
                return segment
        if theirs.unknown == UNKNOWN_KEEP:
            return self.worker.keep(Kept(theirs))
        if theirs.unknown == UNKNOWN_DROP:
            return None
        raise Error(errno.EPROTONOSUPPORT, f"segment {theirs.name} isn't known to this version")

    def take_record(self, segment, key, value, size):
        self._count(segment, len(key) + size)
        if segment:
            segment.take(key, value)

    def take_tombstone(self, segment, key):
        self._count(segment, len(key))
        if segment:
            segment.remove(key)

    def take_delta(self, segment, key, value):
        """From a request that still ran in the old version when this one had the state. It is a change like ours."""
        if segment:
            segment.take_delta(key, value)
            self.worker.changed(segment, key)

    def _count(self, segment, size):
        self.records += 1
        self.bytes += size
        self.kept += isinstance(segment, Kept)
        self.dropped += segment is None

    def check_mark(self):
        if not self.changes_only and all(pipe.marked for pipe in self.pipes):
            self.worker.load()
            if self.serve_at_mark:
                self.worker.accept()
            self.worker.tell("loaded", transfer=self.number, records=self.records, bytes=self.bytes)

    def check_end(self):
        if all(pipe.ended or pipe.cut for pipe in self.pipes):
            self.worker.tell("imported", transfer=self.number, records=self.records, bytes=self.bytes, kept=self.kept,
                             dropped=self.dropped, cut=sum(pipe.cut for pipe in self.pipes))
