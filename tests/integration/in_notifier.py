#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs a program below a seccomp filter with user notification, as some containers do; the kernel allows one in a chain.

    in_notifier.py SOCKET COMMAND…    the descriptor of notifications is sent to SOCKET, an inherited Unix socket: the
                                      filter is one that notifies as long as somebody holds it
"""

import ctypes
import os
import platform
import socket
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
SET_MODE_FILTER, NEW_LISTENER = 1, 8
LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
USER_NOTIF, ALLOW = 0x7fc00000, 0x7fff0000
SECCOMP, VHANGUP = {"x86_64": (317, 153), "aarch64": (277, 58)}[platform.machine()]

sender = socket.socket(fileno=int(sys.argv[1]))
# What is notified is a call that nobody makes.
program = b"".join(struct.pack("=HBBI", *line) for line in (
    (LOAD_WORD, 0, 0, 0), (JUMP_EQUAL, 0, 1, VHANGUP), (RETURN, 0, 0, USER_NOTIF), (RETURN, 0, 0, ALLOW)))
lines = ctypes.create_string_buffer(program)
header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(lines)))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
notifications = libc.syscall(ctypes.c_long(SECCOMP), SET_MODE_FILTER, NEW_LISTENER, header)
if notifications < 0:
    sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
socket.send_fds(sender, [b"."], [notifications])
os.close(notifications)
sender.close()
os.execvp(sys.argv[2], sys.argv[2:])
