# SPDX-License-Identifier: BSD-2-Clause
"""What travels: packets to and from the master, and frames from worker to worker. Descriptors are owned by objects (Fd, socket), so
that what nobody refers to any more is closed, whatever fails."""

import array
import collections
import errno
import fcntl
import os
import socket
import stat

import xxhash
from google.protobuf.message import DecodeError

from ipc.control_pb2 import Control
from ipc.transfer_pb2 import Frame

PACKET_MAX, PACKET_FDS_MAX = 65536, 64
QUEUE_MAX = 4 << 20            # unsent packets, in bytes: the master is stuck
FORMAT = 1                     # of the frames
FRAME_MAX = 8 << 20            # without its length
BEGIN_MAX = 256 << 10          # the same, of the first one
SEGMENTS_MAX, NAME_MAX = 256, 255
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Error(Exception):
    """An errno value and a line for the operator."""

    def __init__(self, code, reason):
        super().__init__(reason)
        self.code = code


class Broken(Error):
    """The control channel can't be used any more."""


def described(error):
    """(errno, text) of whatever was raised."""
    if isinstance(error, Error):
        return error.code, str(error)
    if isinstance(error, OSError) and error.errno:
        return error.errno, str(error)
    return errno.EIO, f"{type(error).__name__}: {error}"


# ── descriptors and packets ──


class Fd:
    """Owns a descriptor."""

    def __init__(self, fd):
        self._fd = fd

    def fileno(self):
        return self._fd

    def take(self):
        """Gives it to the caller."""
        fd, self._fd = self._fd, -1
        return fd

    def close(self):
        if self._fd >= 0:
            os.close(self.take())

    __del__ = close


class Blob(Fd):
    """A large value: a sealed memory file. In place of bytes wherever a value is meant."""

    def __init__(self, fd, size):
        super().__init__(fd)
        self.size = size

    @classmethod
    def of(cls, *parts):
        """With these bytes, one behind the other."""
        blob = cls(os.memfd_create("gapless", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), sum(map(len, parts)))
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(blob.fileno(), view):]
        fcntl.fcntl(blob.fileno(), fcntl.F_ADD_SEALS, SEALS)
        return blob

    @classmethod
    def received(cls, fd, size):
        """Of a descriptor that has come. Unsealed, its sender could change or shorten it while we read."""
        status = os.fstat(fd.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise Error(errno.EBADMSG, f"a memory file isn't one of {size} bytes")
        try:
            seals = fcntl.fcntl(fd.fileno(), fcntl.F_GET_SEALS)
        except OSError:
            seals = 0
        needed = SEALS & ~fcntl.F_SEAL_SEAL
        if seals & needed != needed:
            raise Error(errno.EBADMSG, "a memory file isn't sealed")
        return cls(fd.take(), size)

    def read(self, size=None, offset=0):
        data = bytearray()
        size = self.size - offset if size is None else size
        while len(data) < size:
            more = os.pread(self.fileno(), size - len(data), offset + len(data))
            if not more:
                raise Error(errno.EBADMSG, "a memory file is too short")
            data += more
        return bytes(data)


class Channel:
    """Packets to and from the master: one Control each, with descriptors beside it. It never blocks: what the socket doesn't take
    waits in order, and flush() goes on."""

    def __init__(self, sock):
        self.socket = sock
        self.socket.setblocking(False)
        self._queue, self._queued = collections.deque(), 0

    def fileno(self):
        return self.socket.fileno()

    def wants_write(self):
        return bool(self._queue)

    def send(self, message, owners=()):
        """owners: of the descriptors beside it (sockets, Fds). They are held until the packet is sent."""
        packet = message.SerializeToString()
        if len(packet) > PACKET_MAX:
            raise Broken(errno.EMSGSIZE, f"a message of {len(packet)} bytes for the master; at most {PACKET_MAX} are allowed")
        if self._queued + len(packet) > QUEUE_MAX:
            raise Broken(errno.ENOBUFS, "the master doesn't read its messages")
        self._queue.append((packet, list(owners)))
        self._queued += len(packet)
        self.flush()

    def flush(self):
        while self._queue:
            packet, owners = self._queue[0]
            fds = array.array("i", [owner.fileno() for owner in owners])
            try:
                self.socket.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else [])
            except OSError as error:
                # ETOOMANYREFS: more of our descriptors are on their way than we may have open; the master is taking them.
                if error.errno in (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS):
                    return
                raise Broken(error.errno, f"the master has closed the control channel: {error}") from None
            self._queue.popleft()
            self._queued -= len(packet)

    def receive(self):
        """(message, descriptors, whole), or None: nothing there now. Not whole: we are out of descriptors, some are lost."""
        try:
            data, ancillary, flags, _ = self.socket.recvmsg(PACKET_MAX, socket.CMSG_SPACE(4 * PACKET_FDS_MAX),
                                                            socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Broken(error.errno, f"the master has closed the control channel: {error}") from None
        fds = []
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(payload[:len(payload) // numbers.itemsize * numbers.itemsize])
                fds += map(Fd, numbers)
        if not data:
            raise Broken(errno.EPIPE, "the master has closed the control channel")
        if flags & socket.MSG_TRUNC:
            raise Broken(errno.EMSGSIZE, f"the master sent more than {PACKET_MAX} bytes in a message")
        try:
            return Control.FromString(data), fds, not flags & socket.MSG_CTRUNC
        except DecodeError:
            raise Broken(errno.EBADMSG, "the master sent what is no message") from None


def drop_inherited(keep):
    """Closes the listeners that were inherited as well (docs/protocol.md): one that nobody accepts from keeps clients waiting."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        for fd in range(3, 3 + int(os.environ.get("LISTEN_FDS", "0"))):
            try:
                if fd != keep and stat.S_ISSOCK(os.fstat(fd).st_mode):
                    os.close(fd)
            except OSError:
                pass
    for name in list(os.environ):
        if name.startswith(("LISTEN_", "SERVER_STARTER_", "EINHORN_FD_")):
            del os.environ[name]


# ── frames: bytes in a pipe, each a varint with the length and one Frame ──


class Writer:
    """Packs frames into `buffer`, and counts them, and their bytes by XXH3, for Mark and End."""

    def __init__(self):
        self.buffer, self.frames, self.bytes = bytearray(), 0, 0
        self._hash = xxhash.xxh3_64()

    def add(self, frame):
        body = frame.SerializeToString()
        if len(body) > FRAME_MAX:
            raise Error(errno.EMSGSIZE, f"a frame of {len(body)} bytes; at most {FRAME_MAX} are allowed")
        head, length = bytearray(), len(body)
        while length >= 0x80:
            head.append(length & 0x7F | 0x80)
            length >>= 7
        head.append(length)
        for part in (head, body):
            self.buffer += part
            self._hash.update(part)
            self.bytes += len(part)
        self.frames += 1

    def add_sum(self, kind):
        """"mark" or "end"."""
        frame = Frame()
        getattr(frame, kind).frames, getattr(frame, kind).checksum = self.frames, self._hash.intdigest()
        self.add(frame)


class Reader:
    """Takes bytes, gives frames, and holds the peer to their order, count and checksum."""

    _RECORDS = ("record", "tombstone", "blob")

    def __init__(self, changes_only):
        self.begin, self.frames, self.bytes = None, 0, 0
        self._buffer, self._hash, self._changes_only = bytearray(), xxhash.xxh3_64(), changes_only
        self._allowed, self._blobs = ("begin",), 0

    def feed(self, data):
        self._buffer += data

    def _head(self):
        """(size of the length, length), or None: it isn't whole."""
        length = 0
        for i, byte in enumerate(self._buffer[:5]):
            length |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if byte == 0 and i > 0 or length >= 1 << 32:
                    raise Error(errno.EBADMSG, "a frame's length is no varint of 32 bits")
                return i + 1, length
        if len(self._buffer) >= 5:
            raise Error(errno.EBADMSG, "a frame's length is no varint of 32 bits")
        return None

    def next(self):
        """(kind, body) of the next frame, or None: more bytes are needed."""
        while head := self._head():
            start, length = head
            if length > (FRAME_MAX if self.begin else BEGIN_MAX):
                raise Error(errno.EMSGSIZE, f"a frame of {length} bytes is too large")
            if len(self._buffer) < start + length:
                return None
            raw = bytes(self._buffer[:start + length])
            try:
                frame = Frame.FromString(raw[start:])
            except DecodeError:
                raise Error(errno.EBADMSG, "bytes that are no frame") from None
            kind = frame.WhichOneof("body")  # None: of a later version; counted, and passed over
            self._check(kind, getattr(frame, kind) if kind else None)
            del self._buffer[:start + length]
            self._hash.update(raw)
            self.frames += 1
            self.bytes += len(raw)
            if kind:
                return kind, getattr(frame, kind)
        return None

    def _check(self, kind, body):
        if kind not in self._allowed and (kind or not self._allowed or not self.begin):
            raise Error(errno.EBADMSG, f"{kind or 'an unknown frame'} where it can't stand")
        if not kind:
            return
        if kind == "begin":
            self._check_begin(body)
            self.begin = body
            self._allowed = (*self._RECORDS, "end" if self._changes_only else "mark")
        elif kind in ("mark", "end"):
            if (body.frames, body.checksum) != (self.frames, self._hash.intdigest()):
                raise Error(errno.EILSEQ, f"what came isn't what was sent: {self.frames} frames of {body.frames}, or their checksum")
            self._allowed = (*self._RECORDS, "end") if kind == "mark" else () if self._changes_only else ("delta",)
        else:
            self._check_record(kind, body)

    @staticmethod
    def _check_begin(body):
        if body.format != FORMAT:
            raise Error(errno.EPROTONOSUPPORT, f"frames of format {body.format}; this version knows {FORMAT}")
        names = {segment.name for segment in body.segments}
        if not len(names) == len(body.segments) <= SEGMENTS_MAX:
            raise Error(errno.EBADMSG, f"{len(body.segments)} segments of {len(names)} names")
        if not all(segment.version and 1 <= len(segment.name.encode()) <= NAME_MAX for segment in body.segments):
            raise Error(errno.EBADMSG, "a segment without a version, or with a name too short or too long")

    def _check_record(self, kind, body):
        if body.segment >= len(self.begin.segments):
            raise Error(errno.EBADMSG, f"a {kind} of segment {body.segment} of {len(self.begin.segments)}")
        if kind == "tombstone":
            if body.version or body.value:
                raise Error(errno.EBADMSG, "a tombstone with a version or a value")
        elif not body.version:
            raise Error(errno.EBADMSG, f"a {kind} without a version of its schema")
        if kind == "blob":
            self._blobs += 1
            if body.id != self._blobs:
                raise Error(errno.EBADMSG, f"blob {body.id}; the next one is {self._blobs}")

    def whole(self):
        """True: no frame is cut off here."""
        return not self._buffer


def partition(key, importers):
    """Which of so many importers a key belongs to."""
    return xxhash.xxh3_64_intdigest(key) % importers
