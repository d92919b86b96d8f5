#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A native worker in another language, for tests: it speaks the control channel and writes the counters' page by
docs/protocol.md alone. One thread, so plain stores of aligned words do.

It serves one connection after the other, each with one line; a client ends its request by closing its sending side. A
request of "end twice" is also ended twice.
"""

import ctypes
import mmap
import os
import select
import socket
import struct

CONNECTIONS, REQUESTS, BYTES = 1, 2, 4
OPENED, CLOSED, BEGUN, ENDED, IN, OUT = range(6)


# ---- the messages, which are small ----


def field(number, value):
    return bytes([number << 3, value])


def message(body, fields=b""):
    return bytes([body << 3 | 2, len(fields)]) + fields


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def parse(data):
    """{field: value}"""
    found, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        value, at = varint(data, at)
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        found[key >> 3] = value
    return found


# ---- the page ----


class Counters:
    def __init__(self, fd):
        memory = mmap.mmap(fd, 4096)
        if struct.unpack_from("=IHH", memory) != (0x636C7067, 1, 64):
            raise SystemExit("this is not a page of counters")
        self.kinds = (ctypes.c_uint32 * 2).from_buffer(memory, 8)  # and miscounted
        self.words = (ctypes.c_uint64 * 6).from_buffer(memory, 16)

    def declare(self, kinds):
        self.kinds[0] |= kinds

    def add(self, word, count=1):
        self.words[word] += count

    def end(self, ended, begun, kind):
        self.words[ended] += 1
        if self.words[ended] > self.words[begun]:
            self.kinds[1] |= kind  # miscounted


def open_channel():
    channel = socket.socket(fileno=int(os.environ.pop("GAPLESS_FD")))
    channel.send(message(1, field(1, 1) + field(4, 1)))  # Hello: protocol 1, counters 1
    data, fds, _, _ = socket.recv_fds(channel, 65536, 64)
    welcome = parse(parse(data)[2])
    if welcome.get(6) != 1 or len(fds) != 1:
        raise SystemExit(f"no page of counters came: {welcome}, {fds}")
    counters = Counters(fds[0])
    os.close(fds[0])
    _, fds, _, _ = socket.recv_fds(channel, 65536, 64)
    channel.send(message(4, field(1, 1) + field(2, len(fds))))  # Acknowledge: batch 1
    return channel, counters, socket.socket(fileno=fds[0])


def serve(connection, counters):
    counters.add(OPENED)
    request = b""
    while data := connection.recv(4096):
        if not request:
            counters.add(BEGUN)
        request += data
        counters.add(IN, len(data))
    answer = b"counted\n"
    connection.sendall(answer)
    counters.add(OUT, len(answer))
    for _ in range(2 if request == b"end twice" else 1):
        counters.end(ENDED, BEGUN, REQUESTS)
    connection.close()
    counters.end(CLOSED, OPENED, CONNECTIONS)


def main():
    channel, counters, listener = open_channel()
    counters.declare(CONNECTIONS | REQUESTS | BYTES)
    channel.send(message(5))  # Ready
    listener.setblocking(False)
    while True:
        ready, _, _ = select.select([channel, listener], [], [])
        if channel in ready:  # Drain: there is nothing else that the master says now
            break
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        connection.setblocking(True)
        serve(connection, counters)
    listener.close()
    channel.send(message(7))  # Done
    channel.recv(1)  # the stop signal ends it


main()
