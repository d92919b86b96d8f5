# SPDX-License-Identifier: BSD-2-Clause
"""A native worker of gapless in Python: its listeners, its state and its connections, without libgapless.

This speaks the protocol itself (ipc/control.proto, ipc/transfer.proto; docs/protocol.md tells it in order) and is meant to be read by
whoever writes the next client. counter.py, beside, is a server on it. It needs python3-protobuf, python3-xxhash and what protoc
makes of the two .proto files: a build of gapless leaves that in BUILD/ipc, so PYTHONPATH=BUILD.

    class Server(gapless.Hooks):                      class Names(gapless.Segment):
        def accept(self): …                               name, version = "names", 1
        def own(self): …                                  def keys(self): …
        …                                                 def read(self, key): …  put, remove

    worker = gapless.Worker(server, [names], version="names 1")
    worker.listeners …
    worker.ready()
    selector.register(worker, selectors.EVENT_READ)   when it is readable, and now and then: worker.dispatch()

Nothing waits but the constructor. All is called from dispatch(), ready(), settle() and frozen(), in the thread that calls them. A hook, or
a method of a segment, fails by raising: the operator reads the text, and the transfer ends there, not the server.

From the bottom up: wire.py (packets and frames), state.py (segments, a transfer out and one in), worker.py (the course of things).
"""

from .state import (MERGE_MAX, MERGE_MIN, MERGE_NONE, MERGE_OWN, MERGE_SUM, UNKNOWN_DROP, UNKNOWN_KEEP, UNKNOWN_REFUSE, Segment,
                    Value)
from .wire import Blob, Error
from .worker import Connection, Hooks, Worker

__all__ = ["Blob", "Connection", "Error", "Hooks", "Segment", "Value", "Worker", "MERGE_MAX", "MERGE_MIN", "MERGE_NONE", "MERGE_OWN",
           "MERGE_SUM", "UNKNOWN_DROP", "UNKNOWN_KEEP", "UNKNOWN_REFUSE"]
