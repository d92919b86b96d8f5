# SPDX-License-Identifier: BSD-2-Clause
"""The worker: the course of things with the master, and what the server is asked."""

import collections
import errno
import os
import selectors
import socket
import time

from ipc.control_pb2 import PROTOCOL_VERSION, Control
from ipc.transfer_pb2 import MERGE_NONE

from .state import RECORD_MAX, Export, Import
from .wire import PACKET_FDS_MAX, PACKET_MAX, Blob, Broken, Channel, Error, Fd, described, drop_inherited

CONNECTION_MAX = 16 << 20  # bytes of its input and state together
INLINE_MAX = 16384         # the same, in the packet; what is larger goes in a memory file
OFFERS_MAX = 8             # on their way
PACKETS_A_TURN = 64

Listener = collections.namedtuple("Listener", "name address socket")
# An open connection that another version had: `input` was read from it and not answered; `state` is what that version says of it.
Connection = collections.namedtuple("Connection", "socket listener input state")


class Hooks:
    """What a server is told. Each may be left out. With a predecessor load and init come when its snapshot is there, and own when it has
    handed over; without one load, init, accept and own come from ready()."""

    def reloadable(self):
        """An upgrade is about to begin. An exception refuses it."""

    def load(self):
        """Every record of the snapshot is there. Changes may still come."""

    def init(self):
        """The last before serving."""

    def accept(self):
        """Begin to accept. The state may still be another's (worker.owned): then what comes are tests, which only read."""

    def own(self):
        """The state is this worker's: serve, and go on with what was parked if it was frozen."""

    def freeze(self, timeout_ms):
        """Begin no request that changes the state; leave what comes unread, or keep it: it goes over with its connection. When nothing
        that may change the state is running, worker.frozen(). Later than timeout_ms it was in vain, and own() follows."""

    def release(self):
        """Another has the state. worker.offer() every connection that owes no answer, now or when it doesn't any more."""

    def settled(self):
        """Every answer that worker.settle() made wait may go."""

    take = None
    """take(connection): a Connection that another version had. Defined: this server takes connections, and offers its own."""

    def drain(self, timeout_ms):
        """Close the listeners, finish what was accepted, close what is idle, then worker.done()."""

    def lost(self, reason):
        """The master has closed the channel. Serve on; signals come."""


class Worker:
    """See the top. Without GAPLESS_FD (`managed` is false) all works, and nothing is ever transferred."""

    def __init__(self, hooks, segments=(), version="", timeout=10.0):
        self.hooks, self.segments = hooks, list(segments)
        if len({segment.name for segment in self.segments}) < len(self.segments):
            raise Error(errno.EINVAL, "a segment's name is there twice")
        self.managed, self.service, self.generation, self.index = False, "", 0, 0
        self.listeners = []
        self.owned = False  # the state is this worker's: it may write
        self._kept, self._transfers = [], []
        self._was_stuck = False  # packets waited for the master, and exports for these
        self._loaded = self._accepting = self._released = self._settling = self._done = False
        self._freezing = None  # the transfer for which the master wants a stop, until it says how that ended
        self._to_offer = collections.deque()  # (descriptor, listener, input, state) of connections
        self._offers, self._offer = {}, 0     # on their way: {number: the owners of their descriptors}
        self._channel, self._broken, self._successor = None, None, False
        self._announced, self._batch, self._open = 0, 0, False
        self._poll = selectors.EpollSelector()
        if "GAPLESS_FD" in os.environ:
            self._connect(int(os.environ.pop("GAPLESS_FD")), version, timeout)

    # -- what the server calls

    def fileno(self):
        """To poll for reading; it stays the same."""
        return self._poll.fileno()

    def ready(self):
        """This worker can serve, or, with a predecessor, can take its state. What load or init raises is told to the operator."""
        if not self._successor:
            try:
                self.load()
            except Exception as error:
                self.refuse(*described(error))
                raise
            self._own()
        self.tell("ready")

    def dispatch(self):
        """Does what can be done without waiting. When fileno() is readable, and a few times a second (the operator's progress)."""
        for key, _ in self._poll.select(0):
            if key.fileobj.fileno() >= 0:  # not closed by what came before it here
                transfer, act = key.data
                self._guarded(transfer, act)
        self._check_settled()
        now = time.monotonic()
        for transfer in self._transfers:
            transfer.tell_progress(now)
        self._go_on_unstuck()
        if self._broken and self._channel:
            self._lose()

    def changed(self, segment, key):
        """The record of that key has changed, came or went."""
        for export in self._exports():
            self._guarded(export, export.changed, segment, key)

    def settle(self):
        """Before a request that has changed something is answered. False: not yet; settled() comes."""
        for export in self._exports():
            if export.changes_only:
                self._guarded(export, export.pump)
        settled = self._is_settled()
        self._settling |= not settled  # dispatch() tells those that wait
        return settled

    def frozen(self):
        """After freeze(): nothing that may change the state is running."""
        if self._freezing is None or not self.owned:
            return
        self.owned = False
        self.tell("frozen", transfer=self._freezing)
        for export in self._exports():
            if export.number == self._freezing:
                self._guarded(export, export.finish)

    def delta(self, segment, key, data):
        """After release(): a request that still ran has changed something, in a segment that merges."""
        exports = [export for export in self._exports() if export.frozen and not export.changes_only]
        if not self._released or not exports or segment.merge == MERGE_NONE:
            raise Error(errno.EPERM, f"segment {segment.name}: nobody merges a delta now")
        if len(key) + len(data) > RECORD_MAX:
            raise Error(errno.EMSGSIZE, f"segment {segment.name}: a delta of {len(data)} bytes is too large")
        for export in exports:
            self._guarded(export, export.delta, segment, key, data)

    def offer(self, sock, listener="", data=b"", state=b""):
        """After release(): hands a connection over. It must have left the loop, and nothing is done with it any more."""
        if not self._released or not self._channel or not self.hooks.take:
            raise Error(errno.EPERM, "nobody is there to take a connection")
        if len(data) + len(state) > CONNECTION_MAX:
            raise Error(errno.EMSGSIZE, f"a connection with {len(data) + len(state)} bytes; at most {CONNECTION_MAX} are allowed")
        self._to_offer.append((Fd(sock.detach()), listener, data, state))
        self._send_offers()

    @property
    def offers(self):
        """Connections that nobody has taken yet: a worker isn't done before there is none."""
        return len(self._to_offer) + sum(count for _, count in self._offers.values())

    def done(self):
        """Nothing is in flight any more."""
        if not self._done:
            self._done = True
            self.tell("done")

    def refuse(self, code, reason):
        """This worker can't serve, and why. Exit then."""
        self.tell("refusal", code=code, reason=reason)
        self.close()

    def close(self):
        for transfer in self._transfers:
            transfer.close()
        self._transfers = []
        if self._channel:
            self._channel.socket.close()
            self._channel = None
        for listener in self.listeners:
            listener.socket.close()
        self._offers.clear()
        self._to_offer.clear()
        self._poll.close()

    # -- the start

    def _connect(self, fd, version, timeout):
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
            raise Error(errno.EINVAL, f"GAPLESS_FD={fd} is no SEQPACKET socket")
        drop_inherited(fd)
        self.managed, self._channel = True, Channel(sock)
        self.tell("hello", protocol=PROTOCOL_VERSION, version=version, library="gapless.py 1", counters=0)
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            while not self._open:
                if not self._receive() and not selector.select(max(0.0, deadline - time.monotonic())):
                    raise Broken(errno.ETIMEDOUT, "the master didn't answer on the control channel in time")
        if self.segments or self.hooks.take:
            message = Control()
            message.describe.takes_connections = bool(self.hooks.take)
            for segment in self.segments:
                segment.describe(message.describe.segments.add())
            self._send(message)
        else:
            self._successor = False  # nothing of it has to come
        self._watch_channel()

    def _on_welcome(self, body, fds):
        if body.protocol != PROTOCOL_VERSION:
            raise Broken(errno.EPROTO, f"the master speaks protocol {body.protocol}, not {PROTOCOL_VERSION}")
        self.service, self.generation, self.index = body.service, body.generation, body.worker
        self._announced, self._successor = body.listener_count, body.successor

    def _on_listeners(self, body, fds):
        if body.batch != self._batch + 1 or len(fds) > len(body.listeners):
            raise Broken(errno.EPROTO, "the master sent listeners out of turn")
        self._batch = body.batch
        for listener, fd in zip(body.listeners, fds):
            self.listeners.append(Listener(listener.name, listener.address, socket.socket(fileno=fd.take())))
        self.tell("acknowledge", batch=body.batch, received=len(fds))
        if len(fds) < len(body.listeners):
            raise Broken(errno.EMFILE, "out of descriptors: raise nofile")
        if body.last and len(self.listeners) != self._announced:
            raise Broken(errno.EPROTO, f"the master announced {self._announced} listeners and sent {len(self.listeners)}")
        self._open = body.last

    # -- the channel

    def tell(self, kind, owners=(), **fields):
        message = Control()
        getattr(message, kind).SetInParent()
        for field, value in fields.items():
            if isinstance(value, list):
                getattr(getattr(message, kind), field).extend(value)
            else:
                setattr(getattr(message, kind), field, value)
        self._send(message, owners)

    def _send(self, message, owners=()):
        if not self._channel or self._broken:
            return
        try:
            self._channel.send(message, owners)
        except Broken as error:
            self._broken = error  # dispatch() sees to it: here we may be anywhere
        self._watch_channel()

    def _watch_channel(self):
        if self._open:
            self._was_stuck |= self.is_stuck()
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.is_stuck() else 0)
            self.watch(self._channel, events, None, self._channel_is_ready)

    def _channel_is_ready(self):
        try:
            self._channel.flush()
            for _ in range(PACKETS_A_TURN):
                if not self._receive():
                    break
        except Broken as error:
            self._broken = error
        self._watch_channel()
        self._go_on_unstuck()

    def _go_on_unstuck(self):
        """With the exports that waited for the channel, whoever has sent what was in it."""
        if self._was_stuck and not self.is_stuck():
            self._was_stuck = False
            for export in self._exports():
                self._guarded(export, export.pump)

    def is_stuck(self):
        """Packets wait for the master."""
        return bool(self._channel) and self._channel.wants_write()

    def _receive(self):
        """One message. False: there is none."""
        received = self._channel.receive() if self._channel else None
        if not received:
            return False
        message, fds, whole = received
        kind = message.WhichOneof("body")
        handler = getattr(self, f"_on_{kind}", None)  # None: of a later version
        if not handler:
            return True
        body = getattr(message, kind)
        if not whole and kind in ("export", "import", "attach"):
            self._fail(body.transfer, Error(errno.EMFILE, "out of descriptors: raise nofile"))
        elif not whole and kind == "offer":
            self.tell("failed", offer=body.offer, code=errno.EMFILE, reason="out of descriptors: raise nofile")
        elif fds and kind not in ("welcome", "listeners", "export", "import", "attach", "offer"):
            raise Broken(errno.EPROTO, "the master sent descriptors that nobody asked for")
        else:
            handler(body, fds)
        return True

    def _lose(self):
        """The channel has ended. A state that is only frozen is ours: nobody has said that another has it."""
        reason = str(self._broken)
        self._poll.unregister(self._channel)
        self._channel.socket.close()
        self._channel = None
        for transfer in self._transfers:
            transfer.close()
        self._transfers = []
        self._offers.clear()
        self._to_offer.clear()
        self._check_settled()
        if self._freezing is not None and not self._released:
            self._own()
        self.hooks.lost(reason)

    def watch(self, fd, events, transfer, act):
        """What of a descriptor wakes dispatch(), and what it does then. 0: nothing."""
        if fd.fileno() < 0:
            return
        key = self._poll.get_map().get(fd)
        if not events:
            if key:
                self._poll.unregister(fd)
        elif not key:
            self._poll.register(fd, events, (transfer, act))
        elif key.events != events:
            self._poll.modify(fd, events, (transfer, act))

    # -- transfers

    def all_segments(self):
        return self.segments + self._kept

    def keep(self, segment):
        self._kept.append(segment)
        return segment

    def load(self):
        if not self._loaded:
            self.hooks.load()
            self.hooks.init()
            self._loaded = True

    def accept(self):
        if not self._accepting:
            self._accepting = True
            self.hooks.accept()

    def _own(self):
        if self.owned and self._freezing is None:
            return
        self._freezing, self._released = None, False
        self.accept()
        self.owned = True
        self.hooks.own()
        while self._to_offer:  # not sent yet, so still ours; those that were come back as anybody's, by Offer
            fd, listener, data, state = self._to_offer.popleft()
            self.hooks.take(Connection(socket.socket(fileno=fd.take()), listener, data, state))

    def _exports(self):
        return [transfer for transfer in self._transfers if isinstance(transfer, Export)]

    def _is_settled(self):
        back = [export for export in self._exports() if export.changes_only]
        for export in back:
            export.waiting = not export.settled()
        return not back or not (any(export.waiting for export in back) or self.is_stuck())

    def _check_settled(self):
        if self._settling and self._is_settled():
            self._settling = False
            self.hooks.settled()

    def _guarded(self, transfer, act, *arguments):
        """What fails ends the transfer, and no more."""
        if not transfer:
            act(*arguments)
            return
        try:
            act(*arguments)
        except Exception as error:  # of the server's own, too
            self._fail(transfer.number, error)

    def _fail(self, number, error):
        code, reason = described(error)
        self.tell("failed", transfer=number, code=code, reason=reason)  # before the other side sees the pipe's end
        self._forget(number)

    def _forget(self, number):
        for transfer in [each for each in self._transfers if each.number == number]:
            transfer.close()
            self._transfers.remove(transfer)

    def _transfer(self, kind, message):
        """The one of that number, a new one if need be."""
        for transfer in self._transfers:
            if isinstance(transfer, kind) and transfer.number == message.transfer:
                return transfer
        self._transfers.append(kind(self, message))
        return self._transfers[-1]

    def _on_export(self, body, fds):
        export = self._transfer(Export, body)
        self._guarded(export, export.add, body, fds)

    def _on_import(self, body, fds):
        transfer = self._transfer(Import, body)
        self._guarded(transfer, transfer.add, body, fds)

    def _on_attach(self, body, fds):
        for transfer in self._transfers:
            if isinstance(transfer, Import) and transfer.number == body.transfer:
                self._guarded(transfer, transfer.attach, body.exporter, list(body.ids), fds)

    def _on_close(self, body, fds):
        self._forget(body.transfer)

    # -- who has the state. These hold whatever became of the transfer's pipes

    def _on_ask_reload(self, body, fds):
        try:
            self.hooks.reloadable()
        except Exception as error:
            self.tell("reloadable", request=body.request, refused=True, reason=described(error)[1])
        else:
            self.tell("reloadable", request=body.request)

    def _on_freeze(self, body, fds):
        if self._freezing == body.transfer:
            return  # a master that was restarted says it again
        self._freezing = body.transfer
        try:
            self.hooks.freeze(body.timeout_ms)
        except Exception as error:
            self._fail(body.transfer, error)

    def _on_thaw(self, body, fds):
        self._forget(body.transfer)
        if self._freezing == body.transfer:
            self._own()

    def _on_own(self, body, fds):
        try:
            self.load()
        except Exception as error:
            self._fail(body.transfer, error)
        else:
            self._own()

    def _on_release(self, body, fds):
        self._freezing, self.owned = None, False
        if not self._released:
            self._released = True
            self.hooks.release()

    # -- connections, and the end

    def _on_offer(self, body, fds):
        fds = collections.deque(fds)
        if len(fds) != sum(2 if connection.memory else 1 for connection in body.connections):
            raise Broken(errno.EPROTO, f"the master sent {len(fds)} descriptors for {len(body.connections)} connections")
        for connection in body.connections:
            sock = socket.socket(fileno=fds.popleft().take())
            data, state = connection.input, connection.state
            if connection.memory:
                size = connection.input_size + connection.state_size
                if size > CONNECTION_MAX:
                    raise Broken(errno.EMSGSIZE, f"the master sent a connection with {size} bytes")
                memory = Blob(fds.popleft().take(), size)
                data, state = memory.read(connection.input_size), memory.read(offset=connection.input_size)
            if self.hooks.take:
                self.hooks.take(Connection(sock, connection.listener, data, state))
        self.tell("taken", offer=body.offer)

    def _send_offers(self):
        """As many at a time as a packet takes. Their descriptors stay open here until they are taken."""
        while self._to_offer and len(self._offers) < OFFERS_MAX:
            message, owners, count = Control(), [], 0
            while self._to_offer and len(owners) + 2 <= PACKET_FDS_MAX and message.ByteSize() < PACKET_MAX // 2:
                fd, listener, data, state = self._to_offer.popleft()
                connection = message.offer.connections.add(listener=listener)
                owners.append(fd)
                count += 1
                if len(data) + len(state) > INLINE_MAX:
                    connection.memory, connection.input_size, connection.state_size = True, len(data), len(state)
                    owners.append(Blob.of(data, state))
                else:
                    connection.input, connection.state = data, state
            self._offer += 1
            message.offer.offer = self._offer
            self._offers[self._offer] = (owners, count)
            self._send(message, owners)

    def _on_taken(self, body, fds):
        self._offers.pop(body.offer, None)
        self._send_offers()

    def _on_drain(self, body, fds):
        self.hooks.drain(body.timeout_ms)

    def _on_refusal(self, body, fds):
        raise Broken(body.code or errno.EPIPE, f"refused by the master: {body.reason}")
