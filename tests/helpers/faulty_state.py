#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""examples/python/counter.py, which does something wrong when its state moves (test_state_faults.py).

    --faults JSON         what, and where: keys of `Faults`
    --padding N SIZE      a segment more, of N records of SIZE bytes; GET /padding says how many they are, and a digest
    GET /faults/JSON      as --faults, from now on

A point is a hook's name, or "before MESSAGE", "after MESSAGE" of what it tells the master, or "put N", "read N": the Nth record of padding.
"""

import argparse
import errno
import hashlib
import json
import os
import pathlib
import resource
import signal
import sys
import time
import types
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples/python"))

import counter  # noqa: E402
import gapless  # noqa: E402
from gapless import state, wire  # noqa: E402
from ipc.control_pb2 import Control  # noqa: E402

HOOKS = ("reloadable", "load", "init", "accept", "own", "freeze", "release", "settled", "drain")
REASON = "the disk is on fire"
the_worker = None
padding_size = (0, 0)
faults = types.SimpleNamespace(
    at={},               # point: one of ACTIONS
    file="",             # of "hold"
    say=[],              # of "say": MESSAGES
    stream="",           # what is wrong with the frames that it sends
    record_max=None,     # bytes; what is longer goes as a blob
    unknown=False,       # it has a segment that no other version knows
    never_frozen=False,
    flood=False)


def set_faults(**given):
    for key, value in given.items():
        assert hasattr(faults, key), key
        setattr(faults, key, value)
    if the_worker:
        the_worker.hooks.padding.read_count = 0
    state.RECORD_MAX = faults.record_max or wire.FRAME_MAX - 64


def at(point):
    if point in faults.at:
        ACTIONS[faults.at[point]]()


def hold():
    """Serves nothing meanwhile, as a server that computes for long."""
    pathlib.Path(f"{faults.file}.reached").touch()
    while not pathlib.Path(f"{faults.file}.go").exists():
        time.sleep(0.005)


def fail():
    raise gapless.Error(errno.EIO, REASON)


def say():
    """What is out of turn."""
    for name in faults.say:
        MESSAGES[name](the_worker)


def tell_raw(worker, kind, owners=(), **fields):
    message = Control()
    body = getattr(message, kind)
    body.SetInParent()
    for field, value in fields.items():
        setattr(body, field, value)
    worker._send(message, owners)


def describe(worker, name="late", version=1):
    message = Control()
    segment = message.describe.segments.add()
    segment.name, segment.version = name, version
    worker._send(message)


def offer_without_descriptors(worker):
    message = Control()
    message.offer.offer = 77
    message.offer.connections.add(listener="web")
    worker._send(message)


def flood(worker):
    """In every turn of the loop as many as the channel takes."""
    number = worker._transfers[0].number if worker._transfers else 0
    for _ in range(2000):
        if worker.is_stuck():
            break
        tell_raw(worker, "progress", transfer=number, records=1)


ACTIONS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "hold": hold,
    "raise": fail,
    "say": say,
}
MESSAGES = {
    "describe": describe,
    "describe_without_name": lambda worker: describe(worker, name=""),
    "describe_without_version": lambda worker: describe(worker, version=0),
    "offer_without_descriptors": offer_without_descriptors,
    "offer_beyond": lambda worker: tell_raw(worker, "offer", offer=1 << 32),
    "taken": lambda worker: tell_raw(worker, "taken", offer=4711),
    "attach_without_descriptors": lambda worker: tell_raw(worker, "attach", transfer=worker._transfers[0].number),
    # Of no transfer that is, and of this one, out of turn.
    "others": lambda worker: [tell_raw(worker, kind, transfer=4711)
                              for kind in ("accepted", "loaded", "frozen", "imported", "progress", "failed")],
    "early": lambda worker: [tell_raw(worker, kind, transfer=transfer.number) for transfer in worker._transfers
                             for kind in ("frozen", "imported")],
    "failed": lambda worker: [tell_raw(worker, "failed", transfer=transfer.number, reason=REASON)
                              for transfer in worker._transfers if transfer.number % 2 == 0],
    "flood": flood,
}


class Padding(gapless.Segment):
    """Records that never change, so that there is something to send."""

    def __init__(self, name="padding"):
        self.name, self.values, self.touched, self.read_count, self.put_count = name, {}, 0, 0, 0

    def fill(self, count, size):
        for i in range(count):
            self.values[b"%08d" % i] = (b"%d " % i * (size // 2 + 1))[:size]

    def keys(self):
        return iter(list(self.values))

    def read(self, key):
        self.read_count += 1
        at(f"read {self.read_count}")
        return self.values.get(key)

    def put(self, key, data):
        self.put_count += 1
        at(f"put {self.put_count}")
        self.values[key] = data.read() if isinstance(data, gapless.Blob) else data

    def remove(self, key):
        self.values.pop(key, None)

    def size(self):
        return len(self.values), sum(map(len, self.values.values()))

    def digest(self):
        found = hashlib.sha256()
        for key, data in sorted(self.values.items()):
            found.update(key + data)
        return found.hexdigest()[:16]


class Worker(gapless.Worker):
    def __init__(self, hooks, segments, version):
        global the_worker
        the_worker = self
        hooks.padding = Padding()
        segments = [*segments, hooks.padding] + ([Padding("unheard")] if faults.unknown else [])
        super().__init__(hooks, segments, version)
        if not self._successor:
            hooks.padding.fill(*padding_size)

    def tell(self, kind, owners=(), **fields):
        at(f"before {kind}")
        if faults.stream == "no descriptor" and kind == "attach":
            return
        super().tell(kind, owners, **fields)
        at(f"after {kind}")

    def dispatch(self):
        if faults.flood and self._transfers:
            flood(self)
        super().dispatch()


class Writer(wire.Writer):
    """The frames that are sent, of a snapshot or of changes."""

    def add(self, frame):
        kind = frame.WhichOneof("body")
        fault = faults.stream if kind != "begin" else ""
        if fault == "schema" and kind == "record":
            frame.record.version = 9
        elif fault == "segment" and kind == "record":
            frame.record.segment = 99
        elif fault == f"count of {kind}":
            getattr(frame, kind).frames += 1
        elif fault == "blob's size" and kind == "blob":
            frame.blob.size += 1
        if fault == "no end" and kind == "end" or fault == "cut" and self.frames == 3:
            return
        before = len(self.buffer)
        super().add(frame)
        if self.frames < 3:
            return
        if fault == "bit":
            self.buffer[before + (len(self.buffer) - before) // 2] ^= 0x10
            faults.stream = ""
        elif fault == "bit of a value" and kind == "record":
            self.buffer[-1] ^= 0x01
            faults.stream = ""
        elif fault == "garbage":
            self.buffer += b"\x05\xff\xff\xff\xff\xff"
        elif fault == "too long":
            self.buffer += b"\x81\x80\x80\x04"  # 8 MiB and one byte
        elif fault == "cut":
            del self.buffer[before + 3:]


class OutPipe(state.OutPipe):
    other = ()

    def flush(self):
        super().flush()
        cut = faults.stream == "cut" or faults.stream == "no end" and self.ended
        if cut and self.writer.frames > 2 and self.fd.fileno() >= 0:
            # Nothing more comes of it, but the worker goes on. Another pipe is in its place.
            self.export.worker.watch(self.fd, 0, None, None)
            faults.stream = ""
            self.other = os.pipe()
            os.dup2(self.other[1], self.fd.fileno(), inheritable=False)

    def close(self):
        super().close()
        for fd in self.other:
            os.close(fd)
        self.other = ()


class Server(counter.Server):
    def respond(self, client, head):
        if head.startswith(b"GET /padding "):
            return 200, f"{len(self.padding.values)} {self.padding.digest()}", self.ending
        if head.startswith(b"GET /faults/"):
            set_faults(**json.loads(urllib.parse.unquote(head.split(b" ")[1][len("/faults/"):].decode())))
            return 200, "so be it", self.ending
        return super().respond(client, head)


def hooked(name):
    original = getattr(counter.Server, name, None) or getattr(gapless.Hooks, name)

    def hook(self, *arguments):
        at(name)
        if name == "freeze" and faults.never_frozen:
            self.serving = False
            return
        original(self, *arguments)

    setattr(Server, name, hook)


def make_blob(cls, *parts, original=wire.Blob.of.__func__):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if faults.stream == "few descriptors":
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        if faults.stream != "unsealed":
            return original(cls, *parts)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    blob = cls(os.memfd_create("gapless", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), sum(map(len, parts)))
    for part in parts:
        os.write(blob.fileno(), part)
    return blob


def main():
    global padding_size
    parser = argparse.ArgumentParser()
    parser.add_argument("--schema", default="1")
    parser.add_argument("--faults", type=json.loads, default={})
    parser.add_argument("--padding", nargs=2, type=int, default=(0, 0))
    options = parser.parse_args()
    padding_size = options.padding
    for name in HOOKS:
        hooked(name)
    gapless.Worker = Worker
    state.Writer, state.OutPipe = Writer, OutPipe
    wire.Blob.of = classmethod(make_blob)
    counter.Server = Server
    set_faults(**options.faults)
    sys.argv = [sys.argv[0], "--schema", options.schema]
    counter.main()


if __name__ == "__main__":
    main()
