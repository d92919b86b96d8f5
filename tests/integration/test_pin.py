#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a generation runs is what it began with, although files were replaced and links switched: a worker that is started again
is the old version, in the old directory. Where that can't be it is said, and what is there runs."""

import os
import pathlib
import platform
import shutil
import signal
import sys
import unittest

import capturing
import harness

NAMED = tuple(map(int, platform.release().split(".")[:2])) >= (6, 14)  # what is executed by descriptor has its file's name
PYTHON = str(pathlib.Path(sys.executable).resolve())
HOME = f"PYTHONHOME={sys.base_prefix}"  # a copy of it doesn't find its own


class TestCase(capturing.TestCase):
    def replaced_worker(self, gapless, generation=1):
        """Kills the only worker; the pid of the one in its place, which serves."""
        killed = gapless.worker_pids(generation=generation)[0]
        os.kill(killed, signal.SIGKILL)
        harness.wait_until(lambda: gapless.worker_pids(generation=generation) not in ([], [killed], [None], [0]),
                           "a worker in place of the killed one")
        gapless.wait_serving(generation)
        return gapless.worker_pids()[0]

    def binary(self, version, source=PYTHON, name="server"):
        """A copy of a binary that differs from others in its last bytes, by rename; its path."""
        fresh = self.dir / (name + ".new")
        shutil.copyfile(source, fresh)
        with open(fresh, "ab") as file:
            file.write(f" version {version}".encode())
        fresh.chmod(0o755)
        fresh.rename(self.dir / name)
        return str(self.dir / name)

    @staticmethod
    def version_of(pid):
        return pathlib.Path(f"/proc/{pid}/exe").read_bytes()[-20:].rpartition(b" ")[2].decode()

    def said(self, gapless, level="warning"):
        return [line for line in gapless.log.lines() if line.level == level and "file" in line.fields]


class BinaryTest(TestCase):
    """A binary that is a server by itself, as far as its file goes: the rest of it is worker.py."""

    def serving(self, *flags):
        return self.serve(*flags, "--env", HOME, "--", self.binary("one"), harness.WORKER, "--dump",
                          self.dir / "dump")

    def assert_old(self, pid):
        self.assertEqual(self.version_of(pid), "one")
        self.assertEqual(harness.command_line(pid)[0], str(self.dir / "server"))

    def test_replaced_by_rename_the_old_one_comes_back_and_an_upgrade_takes_the_new_one(self):
        gapless = self.serving()
        before = harness.settled(lambda: self.held(gapless))
        self.assertEqual(pathlib.Path(f"/proc/{gapless.worker_pids()[0]}/comm").read_text(), "server\n")
        self.binary("two")
        for _ in range(2):
            pid = self.replaced_worker(gapless)
            self.assert_old(pid)
        if NAMED:
            self.assertEqual(pathlib.Path(f"/proc/{pid}/comm").read_text(), "server\n")
        self.assertEqual(len(self.said(gapless, "info")), 1, gapless.log.text())
        self.assertEqual(self.said(gapless), [])
        gapless.upgrade_by_hup()
        self.assertEqual(self.version_of(gapless.worker_pids()[0]), "two")
        self.assertEqual(self.version_of(self.replaced_worker(gapless, 2)), "two")
        self.assert_holds_no_more(gapless, before, 2)  # the pin that a rollback goes back to

    def test_untouched_it_comes_back_without_a_word(self):
        gapless = self.serving()
        self.assert_old(self.replaced_worker(gapless))
        self.assertEqual(self.said(gapless) + self.said(gapless, "info"), [])

    def test_no_descriptor_of_it_is_in_the_worker(self):
        gapless = self.serving()
        os.unlink(self.dir / "server")
        first = self.dump()["descriptors"]
        (self.dir / "dump.1.0").unlink()
        self.replaced_worker(gapless)
        self.assertEqual(self.dump()["descriptors"].keys(), first.keys())

    def test_many_descriptors_of_the_worker_are_not_in_its_way(self):
        def configuration(listeners):
            return self.write("gapless.yaml", f"""
services:
  web:
    command: [{self.binary("one")}, {harness.WORKER}]
    env: {{PYTHONHOME: {sys.base_prefix}}}
    steering: shared
    observe: {{window: 0}}
    listen: [{", ".join(f"unix:{self.dir}/{number}.sock" for number in range(listeners))}]
""")
        gapless = self.serve("-c", configuration(1))
        configuration(100)
        gapless.upgrade_by_hup()
        gapless.upgrade_by_hup()  # its pin has low numbers, which the first one has left
        self.binary("two")
        self.assert_old(self.replaced_worker(gapless, 3))

    def test_unlinked_the_old_one_comes_back_and_an_upgrade_fails(self):
        gapless = self.serving()
        os.unlink(self.dir / "server")
        self.assert_old(self.replaced_worker(gapless))
        gapless.hup()
        self.assert_upgrade_fails(gapless, 2, "no such file")
        self.assert_old(self.replaced_worker(gapless))

    def test_broken_new_one_fails_the_upgrade_and_the_old_one_comes_back(self):
        gapless = self.serving()
        self.write("server", "\x7fELF, but not really", 0o755)
        gapless.hup()
        self.assert_upgrade_fails(gapless, 2, "exec format|not a program")
        self.assert_old(self.replaced_worker(gapless))

    def test_found_in_path_the_old_one_comes_back(self):
        self.binary("one")
        gapless = self.serve("--env", HOME, "--env", f"PATH=/no/such:{self.dir}", "--", "server", harness.WORKER)
        self.binary("two")
        pid = self.replaced_worker(gapless)
        self.assertEqual(self.version_of(pid), "one")
        self.assertEqual(harness.command_line(pid)[0], "server")

    def test_scaled_up_the_new_worker_is_of_the_old_version(self):
        gapless = self.serving()
        self.binary("two")
        gapless.signal(signal.SIGTTIN)
        harness.wait_until(lambda: (self.dir / "dump.1.1").exists(), "a second worker")
        self.assertEqual(self.version_of(self.dump(1, 1)["pid"]), "one")

    def test_the_next_master_starts_the_old_one_again(self):
        gapless = self.serving()
        self.binary("two")
        self.kill_master(gapless)
        self.assert_old(self.replaced_worker(gapless))
        before = harness.settled(lambda: self.held(gapless))
        self.kill_master(gapless)
        self.assert_old(self.replaced_worker(gapless))
        self.assertEqual(len(self.said(gapless, "info")), 1, gapless.log.text())
        self.assert_holds_no_more(gapless, before)
        gapless.upgrade_by_hup()
        self.assertEqual(self.version_of(gapless.worker_pids()[0]), "two")

    def test_settings_of_the_process_hold(self):
        inner = self.dir / "inner"
        inner.mkdir()
        gapless = self.serving("--cwd", inner, "--umask", "027", "--nice", "7", "--rlimit", "core=0")
        first = self.dump()
        (self.dir / "dump.1.0").unlink()
        self.binary("two")
        self.assert_old(self.replaced_worker(gapless))
        second = self.dump()
        for key in ("cwd", "umask", "nice", "rlimits", "argv"):
            self.assertEqual(second[key], first[key], key)
        self.assertEqual((second["cwd"], second["umask"], second["nice"]), (str(inner), 0o027, 7))


class ReleaseTest(TestCase):
    """Releases beside each other, of which the link `current` names one."""

    def setUp(self):
        super().setUp()
        for version in ("one", "two"):
            (self.dir / version).mkdir()
            self.hello(version, f"{version}/server")
        self.switch("one")

    def switch(self, version):
        (self.dir / "fresh").symlink_to(version)
        (self.dir / "fresh").rename(self.dir / "current")

    def assert_release(self, pid, version):
        self.assertEqual(harness.version_at(("127.0.0.1", self.port))[0], version)
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), str(self.dir / version))

    def check(self, command, between=lambda gapless: None):
        gapless = self.serve("-l", self.listen, "--cwd", self.dir / "current", "--", command)
        self.assert_release(gapless.worker_pids()[0], "one")
        self.switch("two")
        between(gapless)
        self.assert_release(self.replaced_worker(gapless), "one")
        self.assertEqual(self.said(gapless), [])
        gapless.upgrade_by_hup()
        self.assert_release(gapless.worker_pids()[0], "two")
        self.assert_release(self.replaced_worker(gapless, 2), "two")

    def test_relative_script_stays_in_its_release(self):
        self.check("./server")

    def test_script_by_way_of_the_link_stays_in_its_release(self):
        self.check(str(self.dir / "current" / "server"))

    def test_the_next_master_stays_in_the_release(self):
        self.check("./server", self.kill_master)

    def test_removed_release_is_said_and_the_current_one_runs(self):
        gapless = self.serve("-l", self.listen, "--cwd", self.dir / "current", "--", self.dir / "current" / "server")
        self.switch("two")
        shutil.rmtree(self.dir / "one")
        self.assert_release(self.replaced_worker(gapless), "two")
        self.assertEqual(len(self.said(gapless)), 2, gapless.log.text())


class ScriptTest(TestCase):
    def setUp(self):
        super().setUp()
        self.gapless = self.serve("-l", self.listen, "--", self.hello("one"))

    def version(self):
        return harness.version_at(("127.0.0.1", self.port))[0]

    def test_overwritten_in_place_it_is_said_once_and_the_new_contents_run(self):
        path = self.dir / "server"
        path.write_text(path.read_text().replace("one", "two"))
        for _ in range(2):
            self.replaced_worker(self.gapless)
            self.assertEqual(self.version(), "two")
        self.gapless.log.wait("can't be started again.*overwritten in place", file=path)
        self.kill_master(self.gapless)
        self.replaced_worker(self.gapless)
        self.assertEqual(len(self.said(self.gapless)), 1, self.gapless.log.text())
        path.write_text(path.read_text().replace("two", "three"))
        self.replaced_worker(self.gapless)
        harness.wait_until(lambda: len(self.said(self.gapless)) == 2, "the second change to be said")

    def test_replaced_by_rename_it_is_said_and_the_new_contents_run(self):
        self.hello("two")
        self.replaced_worker(self.gapless)
        self.assertEqual(self.version(), "two")
        self.gapless.log.wait("can't be started again.*replaced", file=self.dir / "server")

    def test_same_contents_are_not_worth_a_word(self):
        self.hello("one")
        self.replaced_worker(self.gapless)
        self.hello("two")
        self.replaced_worker(self.gapless)
        self.gapless.log.wait("replaced", file=self.dir / "server")
        self.assertEqual(len(self.said(self.gapless)), 1)

    def test_file_that_an_argument_names_is_said(self):
        application = self.write("app.py", "one")
        gapless = self.serve("--", harness.WORKER, application)
        self.write("app.py", "two")
        self.replaced_worker(gapless)
        gapless.log.wait("can't be started again.*replaced", file=application)


class CaptureTest(TestCase):
    def test_static_binary_with_its_own_addresses_comes_back_as_the_old_one(self):
        program = self.binary("one", harness.program("GAPLESS_BINDER"))
        command = [program, *self.binder()[1:]]
        gapless = self.bound("--capture", "on", command=command)
        self.binary("two", harness.program("GAPLESS_BINDER"))
        pid = self.replaced_worker(gapless)
        self.assertEqual(self.version_of(pid), "one")
        self.assertTrue(capturing.listening(self.port))
        gapless.upgrade_by_hup()
        self.assertEqual(self.version_of(gapless.worker_pids()[0]), "two")


@unittest.skipUnless(os.getuid() == 0, "needs root")
class UserTest(TestCase):
    """A descriptor that root opened gives its user nothing that a path wouldn't."""

    def command(self, *flags):
        return (*flags, "--user", "nobody", "--env", HOME, "--", self.dir / "server", harness.WORKER)

    def assert_refused(self, code, word, *flags):
        gapless = self.start(*self.command(*flags))
        self.assertEqual(gapless.wait_exit(), code, gapless.log.text())
        self.assertIn(word, gapless.log.text())

    def refused_worker(self, gapless):
        mark = gapless.log.mark()
        os.kill(gapless.worker_pids()[0], signal.SIGKILL)
        gapless.log.wait("worker failed.*permission denied", after=mark)

    def test_binary_for_root_alone(self):
        os.chmod(self.binary("one"), 0o700)
        self.assert_refused(126, "permission denied")

    def test_directory_of_the_binary_for_root_alone(self):
        self.binary("one")
        self.dir.chmod(0o700)
        self.assert_refused(126, "permission denied")

    def test_working_directory_for_root_alone(self):
        self.binary("one")
        (self.dir / "closed" / "inner").mkdir(parents=True)
        (self.dir / "closed").chmod(0o700)
        self.assert_refused(1, "cannot enter the directory", "--cwd", self.dir / "closed" / "inner")

    def test_replaced_binary_comes_back(self):
        self.binary("one")
        gapless = self.serve(*self.command())
        self.binary("two")
        self.assertEqual(self.version_of(self.replaced_worker(gapless)), "one")

    def test_replaced_binary_that_was_taken_from_the_user(self):
        self.binary("one")
        gapless = self.serve(*self.command())
        (self.dir / "server").rename(self.dir / "old")
        self.binary("two")
        (self.dir / "old").chmod(0o700)
        self.refused_worker(gapless)

    def test_replaced_binary_whose_directory_was_taken_from_the_user(self):
        (self.dir / "bin").mkdir()
        self.binary("one", name="bin/server")
        (self.dir / "server").symlink_to("bin/server")
        gapless = self.serve(*self.command())
        self.binary("two")
        (self.dir / "bin").chmod(0o700)
        self.refused_worker(gapless)


if __name__ == "__main__":
    harness.main(at_a_time=3)
