#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Servers and hosts that make capture hard: each works, or it is refused in words that say why, and nothing else comes to harm."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import unittest

import capturing
import exact
import harness

NOTIFIER = str(pathlib.Path(__file__).resolve().parent / "in_notifier.py")
CALL_PORTS = 10  # more than `binder --calls` uses
LOAD_TARGETS = 16  # of one gapless-load
CHILDREN = 10 if harness.SANITIZED else 50
# How a server binds: its options and, where that isn't the one address, how its addresses and the listener are written.
ODD = {
    "a signal each 0.1 ms": (["--signals", 100, "--restart"],),
    "a signal each 3 ms": (["--signals", 3000, "--restart"],),
    "in epoll before bind": (["--epoll-first"],),
    "blocking": (["--blocking"],),
    "in a thread": (["--thread"],),
    "in a child": (["--fork"],),
    "in a program of a child": (["--vfork"],),
    "in each of three children": (["--processes", 3],),
    "64 times": (["--many", 64],),
    "with children killed in the middle of it": (["--killed", CHILDREN, "--reuseport"],),
    "every IPv4 address": ([], ["0.0.0.0:{}"], "tcp:{}"),
    "every address": ([], ["[::]:{}"], "tcp:{}"),
    "every address of both families": (["--v6only"], ["0.0.0.0:{}", "[::]:{}"], "tcp:{}"),
}


class Odd:
    """A class with a tier adds the rest."""

    FILLERS = 0  # sockets that the tier may keep (listener.h)
    BOTH = True  # each way with the address named and without
    ROUNDS = (100, 100)  # of eight calls, without and with it named

    def works(self, ways):
        """Servers that bind so serve and are upgraded, all at the same time; in turn with their address named and without."""
        running, targets = {}, []
        ports = iter(self.free_ports(2 * len(ways)))
        for number, (what, (options, *addresses)) in enumerate(ways.items()):
            for named in (False, True) if self.BOTH else (number % 2 == 1,):
                port = next(ports)
                at, listen = addresses or (["127.0.0.1:{}"], "tcp:127.0.0.1:{}")
                at = [address.format(port) for address in at]
                gapless = self.begin(*(("-l", listen.format(port)) if named else ()), "--",
                                     *self.binder(*options, at=at, records=self.dir / f"record{len(targets)}"))
                running[what, named] = gapless, len(at) * (64 if "--many" in options else 3 if "--processes" in options else 1)
                targets += [f"tcp:127.0.0.1:{port}"] + [f"tcp:[::1]:{port}"] * ("[::]" in "".join(at))
        before = {}
        for what, (gapless, sockets) in running.items():
            gapless.log.wait("serving")
            harness.wait_until(lambda: len(gapless.log.find("captured", generation=1)) >= sockets, f"{sockets} sockets: {what}")
            before[what] = gapless.wait_serving(1) and gapless.wait_master(), harness.settled(lambda: self.held(gapless))
        loads = [self.load(500, targets[at:at + LOAD_TARGETS]) for at in range(0, len(targets), LOAD_TARGETS)]
        for gapless, _ in running.values():
            gapless.hup()
        for gapless, _ in running.values():
            gapless.wait_serving(2)
        for load in loads:
            report = load.stop()
            self.assert_clean(report)
            self.assertEqual(set(report["by"]), {"1", "2"})
        for what, (gapless, _) in running.items():
            with self.subTest(what):
                master, held = before[what]
                self.assert_holds_no_more(gapless, held, self.FILLERS)
                self.assertEqual(gapless.wait_master(), master, "nothing ended the master")
        for gapless, _ in running.values():
            gapless.signal(signal.SIGTERM)
        for what, (gapless, _) in running.items():
            self.assertEqual(gapless.wait_exit(), 0, what)

    def test_odd_ways_to_bind(self):
        self.works(ODD)

    def test_signals_that_interrupt_calls(self):
        """Without SA_RESTART they interrupt one that waits to be looked at: it works all the same, or the log says what that takes."""
        gapless = self.begin("--", *self.binder("--signals", 100))
        harness.wait_until(lambda: gapless.log.find("serving") or gapless.log.find("EINTR.*SA_RESTART"), "it to serve, or why not")

    def test_calls_that_are_not_its_business(self):
        """Binds of other kinds, thousands of them, wrong arguments, clients: each ends as in a run that nobody looked at."""
        at, reports, running = [], [], []
        for number, rounds in enumerate(self.ROUNDS):
            address = f"127.0.0.1:{self.port + number * CALL_PORTS}"
            alone, captured = self.dir / f"alone{number}", self.dir / f"captured{number}"
            calls = ("--rounds", rounds, "--calls")
            subprocess.run([*self.WRAPPER, *self.binder(*calls, alone, "--calls-only", at=[address])], check=True,
                           timeout=harness.PATIENCE)
            at.append(address)
            reports.append((alone, captured))
            running.append(self.begin(*(("-l", f"tcp:{address}") if number else ()), "--",
                                      *self.binder(*calls, captured, at=[address])))
        for gapless, address, (alone, captured) in zip(running, at, reports):
            gapless.wait_serving(1)
            harness.wait_until(lambda: len(captured.read_text()) >= len(alone.read_text()), "all calls")
            self.assertEqual(captured.read_text(), alone.read_text())
            self.assertEqual([each["address"] for each in gapless.service()["listeners"]], [f"tcp:{address}"])
            self.assertEqual(harness.http_get(("127.0.0.1", int(address.partition(":")[2])))[0], 200)

    # -- what is refused, in words

    def refused(self, *flags, at=None, command=None, words):
        gapless = self.begin("--ready-timeout", "2s", *flags, "--", *(command or self.binder(at=at)))
        for word in words:
            gapless.log.wait(word)
        self.assertEqual(gapless.log.find("serving"), [])
        gapless.terminate()

    def test_address_that_is_wider_or_narrower_is_refused(self):
        self.refused("-l", f"tcp:{self.port}", at=[f"127.0.0.1:{self.port}"], words=[f"tcp:127.0.0.1:{self.port}"])
        self.refused("-l", f"tcp:127.0.0.1:{self.port}", at=[f"0.0.0.0:{self.port}"], words=[f"tcp:0.0.0.0:{self.port}"])
        self.refused("-l", f"tcp:127.0.0.1:{self.port}", at=[f"[::]:{self.port}"], words=[rf"tcp:(\[::\]:)?{self.port}"])

    def test_address_that_a_stranger_has_is_said_to_be_in_use(self):
        with socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind(("127.0.0.1", self.port))
            stranger.listen()
            for flags in ((), ("-l", self.listen, "--capture", "on")):
                self.refused(*flags, words=[f"can't bind {self.address}: another.*EADDRINUSE"])

    def test_second_gapless_on_the_address_is_a_conflict(self):
        self.bound()
        self.refused(words=[f"can't bind {self.address}: another.*EADDRINUSE"])

    def test_server_that_binds_what_gapless_holds_is_told_so(self):
        self.refused("--capture", "off", "-l", self.listen, words=[f"tcp:{self.address}.*gapless has that address.*capture"])


@exact.needs_bpf
class EbpfTest(Odd, capturing.TestCase):
    BOTH = False
    ROUNDS = (200 if harness.SANITIZED else 1250, 100)

    def test_server_that_its_user_can_not_look_into(self):
        self.works({"another user": (["--uid", 65534],), "not dumpable": (["--undumpable"],)})

    def test_worker_is_filtered_where_it_is_captured(self):
        facts = {}
        for what, flags in {"auto": (), "off": ("--capture", "off")}.items():
            gapless = self.serve(*flags, "-l", f"tcp:127.0.0.1:{harness.free_port()}", *self.worker())
            facts[what] = capturing.process_status(gapless.worker_pids()[0])
            self.assertEqual(gapless.terminate(), 0)
        gapless = self.serve("-l", f"web=tcp:{self.address}", *self.worker(), "{fd:web}")
        facts["named"] = capturing.process_status(gapless.worker_pids()[0])
        self.assertEqual({what: (each["Seccomp"], each["NoNewPrivs"]) for what, each in facts.items()},
                         {"auto": ("2", "0"), "off": ("0", "0"), "named": ("0", "0")})

    def test_host_that_has_a_notifier_already(self):
        """`on` fails and says why; `auto` says so in a line and runs without."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        held = []

        def below_notifier(*arguments):
            gapless = self.start(*arguments, wrapper=(sys.executable, NOTIFIER, str(theirs.fileno())),
                                 pass_fds=[theirs.fileno()])
            held.extend(socket.recv_fds(ours, 1, 1)[1])
            return gapless

        gapless = below_notifier("--capture", "on", "--restart", "no", "--", *self.binder())
        self.assertEqual(gapless.wait_exit(), 1)
        self.assertRegex(gapless.log.text(), "(?i)capture.*(seccomp|notif)")
        gapless = below_notifier("-l", self.listen, "--", harness.program("GAPLESS_HELLO"))
        for generation in (1, 2):
            gapless.wait_serving(generation)
            gapless.hup()
        gapless.wait_serving(3)
        self.assertEqual(len(gapless.log.find("(?i)captur.*(seccomp|notif)")), 1, gapless.log.text())
        for descriptor in held:
            os.close(descriptor)

    @unittest.skipUnless(shutil.which("unshare") and shutil.which("setpriv"), "unshare or setpriv is missing")
    def test_user_namespace(self):
        for capabilities in ((), ("setpriv", "--inh-caps=-all", "--bounding-set=-all")):
            wrapper = ("unshare", "-Ur", *capabilities)
            if subprocess.run([*wrapper, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
                self.skipTest("no user namespaces here")
            self.WRAPPER = wrapper
            gapless = self.bound()
            self.assertEqual(gapless.service()["listeners"][0]["steering"], "cbpf")
            load = self.load()
            for generation in (2, 3):
                self.upgrade(gapless, generation)
            self.assert_each_answered(load.stop(), (1, 2, 3))
            self.assertEqual(gapless.terminate(), 0)
            self.open_address()


@unittest.skipUnless(os.getuid() == 0 and shutil.which("setpriv"), "only root can become nobody")
class NobodyTest(Odd, capturing.TestCase):
    WRAPPER = capturing.NOBODY
    FILLERS = 4

    def test_server_that_can_not_be_read_is_refused(self):
        for flags in ((), ("-l", self.listen, "--capture", "on")):
            self.refused(*flags, command=self.binder("--undumpable"), words=["(?i)can't be read|not dumpable|CAP_SYS_PTRACE"])

    def test_new_version_that_can_not_be_read_is_refused(self):
        self.install(*self.binder())
        gapless = self.bound("--ready-timeout", "2s", command=self.installed())
        load = self.load()
        self.install(*self.binder("--undumpable"))
        gapless.hup()
        self.assert_upgrade_fails(gapless, 2, "(?i)can't be read|not dumpable|CAP_SYS_PTRACE")
        self.assert_each_answered(load.stop(), [1])

    def test_worker_gets_no_new_privileges(self):
        gapless = self.bound()
        status = capturing.process_status(gapless.worker_pids()[0])
        self.assertEqual((status["Seccomp"], status["NoNewPrivs"]), ("2", "1"))


if __name__ == "__main__":
    harness.main()
