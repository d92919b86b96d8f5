#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""`gapless doctor`: what it says of this host, and of the same host with less: user, namespaces, limits, a notifier."""

import ctypes
import fcntl
import json
import os
import pathlib
import platform
import resource
import shutil
import struct
import subprocess
import time
import unittest

import harness

NAMES = ["kernel", "pidfd", "open_files", "capture", "no_new_privs", "steering_ebpf", "steering_cbpf", "steering_path",
         "tracking_ebpf", "tracking_sock_diag", "keepalive"]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
WITHOUT_BPF = ("setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin")
# CAP_SYS_ADMIN stands for CAP_NET_ADMIN there.
WITHOUT_NET_ADMIN = ("setpriv", "--inh-caps=-net_admin,-sys_admin", "--bounding-set=-net_admin,-sys_admin")
ROOT = os.getuid() == 0 and shutil.which("setpriv")
BUILT_WITH_BPF = os.environ.get("GAPLESS_BPF") == "1"
CLI_PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/cli.md"

SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}.get(platform.machine())
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_RET_ALLOW = 0x7FFF0000


def can_unshare(*flags):
    return subprocess.run(["unshare", *flags, "true"], capture_output=True, check=False).returncode == 0


def install_notifier():
    """Lets everything through; but it has a descriptor for notifications, which stays open across execve."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, SECCOMP_RET_ALLOW))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))
    fd = libc.syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, program)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    fcntl.fcntl(fd, fcntl.F_SETFD, 0)


class DoctorTest(harness.TestCase):
    def run_doctor(self, *arguments, wrapper=(), env=None, preexec=None):
        return subprocess.run([*wrapper, harness.program("GAPLESS"), "doctor", *arguments], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, env=harness.environment(env), timeout=harness.PATIENCE,
                              preexec_fn=preexec, close_fds=preexec is None, check=False)

    def both(self, **keywords):
        """Its text, and the same as JSON, of a moment in which the host isn't too busy for either: it says so itself."""
        for _ in range(10):
            text, done = self.run_doctor(**keywords), self.run_doctor("--json", **keywords)
            if "try again when the host has less to do" not in text.stdout + done.stdout:
                break
        return text, done

    def examine(self, **keywords):
        """What it found, by JSON; the text says the same, and both end with the same code."""
        text, done = self.both(**keywords)
        self.assertEqual((text.stderr, done.stderr), ("", ""))
        found = json.loads(done.stdout)
        self.assertEqual(list(found), ["works", "missing", "findings"])
        self.assertEqual(list(found["findings"]), NAMES)
        lines = []
        for name, finding in found["findings"].items():
            self.assertEqual(list(finding), ["state", "detail", "advice"])
            self.assertIn(finding["state"], ("ok", "limited", "no"))
            self.assertEqual(finding["state"] == "ok", finding["advice"] is None, name)
            lines.append(f"{finding['state']:<9}{name:<20}{finding['detail']}")
            if finding["advice"]:
                lines.append(" " * 29 + finding["advice"])
        lines.append("gapless works here" if found["works"] else
                     "gapless doesn't work as it should here: there is no " + ", no ".join(found["missing"]))
        self.assertEqual(text.stdout.splitlines(), lines)
        self.assertEqual(found["works"], not found["missing"])
        self.assertEqual((text.returncode, done.returncode), (0, 0) if found["works"] else (1, 1))
        return found

    def assert_states(self, found, **states):
        self.assertEqual({name: found["findings"][name]["state"] for name in states}, states, found)

    def assert_advice(self, found, name, *words):
        for word in words:
            self.assertIn(word, found["findings"][name]["advice"])

    @unittest.skipUnless(ROOT, "needs root")
    def test_root_can_do_everything(self):
        found = self.examine()
        ebpf = "ok" if BUILT_WITH_BPF else "no"
        self.assert_states(found, kernel="ok", pidfd="ok", capture="ok", no_new_privs="ok", steering_ebpf=ebpf,
                           steering_cbpf="ok", steering_path="ok", tracking_ebpf=ebpf, tracking_sock_diag="ok",
                           keepalive=ebpf)
        self.assertTrue(found["works"])
        self.assertIn(platform.release(), found["findings"]["kernel"]["detail"])

    @unittest.skipIf(BUILT_WITH_BPF, "this build has BPF")
    def test_build_without_bpf_says_so(self):
        found = self.examine()
        for name in ("steering_ebpf", "tracking_ebpf", "keepalive"):
            self.assertIn("this build has no BPF", found["findings"][name]["detail"])
            self.assert_advice(found, name, "build gapless with BPF")
        self.assertTrue(found["works"])

    @unittest.skipUnless(ROOT, "only root can become nobody")
    def test_nobody_can_do_enough(self):
        found = self.examine(wrapper=NOBODY)
        self.assert_states(found, pidfd="ok", capture="ok", no_new_privs="limited", steering_ebpf="no",
                           steering_cbpf="ok", steering_path="ok", tracking_ebpf="no", tracking_sock_diag="ok",
                           keepalive="no")
        self.assert_advice(found, "no_new_privs", "CAP_SYS_ADMIN")
        self.assert_advice(found, "keepalive", "drain signal", "retry", "docs/keepalive.md")
        self.assertTrue(found["works"])
        if BUILT_WITH_BPF:
            self.assert_advice(found, "steering_ebpf", "give gapless CAP_BPF and CAP_PERFMON ", "cbpf")
            self.assert_advice(found, "tracking_ebpf", "give gapless CAP_BPF and CAP_PERFMON ", "sock_diag")
            self.assertIn("the ebpf tracker is needed", found["findings"]["keepalive"]["detail"])
            self.assert_advice(found, "keepalive", "give gapless CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN ")

    @unittest.skipUnless(ROOT and BUILT_WITH_BPF, "needs root and BPF")
    def test_root_without_the_capabilities_of_bpf_is_told_which(self):
        found = self.examine(wrapper=WITHOUT_BPF)
        self.assert_states(found, capture="ok", steering_ebpf="no", steering_cbpf="ok", tracking_ebpf="no",
                           keepalive="no")
        self.assert_advice(found, "steering_ebpf", "give gapless CAP_BPF and CAP_PERFMON ")
        self.assert_advice(found, "keepalive", "give gapless CAP_BPF and CAP_PERFMON ")

    @unittest.skipUnless(ROOT and BUILT_WITH_BPF, "needs root and BPF")
    def test_capability_that_only_keepalive_needs_is_named_alone(self):
        found = self.examine(wrapper=WITHOUT_NET_ADMIN)
        self.assert_states(found, steering_ebpf="ok", tracking_ebpf="ok", keepalive="no")
        self.assertTrue(found["works"])
        self.assertIn("not permitted", found["findings"]["keepalive"]["detail"])
        self.assert_advice(found, "keepalive", "give gapless CAP_NET_ADMIN ", "drain signal", "docs/keepalive.md")

    @unittest.skipUnless(can_unshare("-Ur"), "cannot make a user namespace here")
    def test_capabilities_of_a_user_namespace_do_not_count_for_bpf(self):
        found = self.examine(wrapper=("unshare", "-Ur"))
        self.assert_states(found, capture="ok", no_new_privs="ok", steering_ebpf="no", steering_cbpf="ok",
                           steering_path="ok", tracking_ebpf="no", tracking_sock_diag="ok", keepalive="no")
        if BUILT_WITH_BPF:
            self.assert_advice(found, "steering_ebpf", "outside of a user namespace", "CAP_BPF")
            self.assert_advice(found, "tracking_ebpf", "outside of a user namespace", "CAP_PERFMON")
            self.assert_advice(found, "keepalive", "outside of a user namespace", "CAP_NET_ADMIN")

    @unittest.skipUnless(can_unshare("-Urn"), "cannot make a network namespace here")
    def test_without_loopback_it_says_that(self):
        found = self.examine(wrapper=("unshare", "-Urn"))
        self.assert_states(found, steering_cbpf="no", steering_path="ok", tracking_sock_diag="no")
        self.assertEqual(found["missing"], ["tracking"])
        for name in ("steering_cbpf", "tracking_sock_diag"):
            self.assert_advice(found, name, "loopback")

    @unittest.skipUnless(SYS_SECCOMP, "no number of seccomp(2) for this machine")
    def test_capture_inside_a_notifier_is_impossible(self):
        found = self.examine(preexec=install_notifier)
        self.assert_states(found, capture="no", no_new_privs="limited", steering_cbpf="ok", tracking_sock_diag="ok")
        self.assertEqual(found["missing"], ["capture"])
        self.assertIn("captured by seccomp here already", found["findings"]["capture"]["detail"])
        self.assert_advice(found, "capture", "outside")

    def test_few_files_are_said_and_enough(self):
        found = self.examine(preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512)))
        self.assert_states(found, open_files="limited", capture="ok")
        self.assertIn("512 for gapless itself; workers begin with 256", found["findings"]["open_files"]["detail"])
        self.assert_advice(found, "open_files", "LimitNOFILE")

    def test_paths_are_tried_in_the_directory_for_temporary_files(self):
        found = self.examine(env={"TMPDIR": self.dir})
        self.assert_states(found, steering_path="ok")
        self.assertIn(str(self.dir), found["findings"]["steering_path"]["detail"])
        self.assertEqual(os.listdir(self.dir), [])
        found = self.examine(env={"TMPDIR": self.dir / "gone"})
        self.assert_states(found, steering_path="no")
        self.assert_advice(found, "steering_path", "TMPDIR")
        self.assertTrue(found["works"])

    def test_it_is_soon_done_and_leaves_no_process(self):
        for _ in range(10):
            start = time.monotonic()
            self.run_doctor()
            if not harness.SANITIZED:
                self.assertLess(time.monotonic() - start, 5)
            self.assertEqual(harness.children_of(os.getpid()), [])

    def test_usage(self):
        for arguments, words in ((["--jsno"], ["--jsno", "--json"]), (["surplus"], ["surplus"])):
            done = self.run_doctor(*arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            for word in words:
                self.assertIn(word, done.stderr)
        done = self.run_doctor("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("usage: gapless doctor", done.stdout)
        self.assertIn("  doctor ", harness.run_gapless("--help").stdout)

    @unittest.skipUnless(ROOT and BUILT_WITH_BPF, "the page shows a build with BPF without its rights")
    def test_page_shows_what_it_prints(self):
        shown = self.run_doctor(wrapper=WITHOUT_BPF).stdout.splitlines()
        page = CLI_PAGE.read_text().splitlines()
        for line in shown:
            if not line[9:].startswith(("kernel ", "open_files ", "steering_path ")):  # of this host
                self.assertIn(line, page)


if __name__ == "__main__":
    harness.main()
