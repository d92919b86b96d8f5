#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a worker runs as: user, group, directory, environment, mask, limits, priority, capabilities."""

import grp
import os
import pwd
import unittest

import harness

CAP_NET_BIND_SERVICE = 10
CAP_KILL = 5


class ProcessTest(harness.TestCase):
    def started_with(self, *flags, **keywords):
        self.serve(*flags, *self.worker(), **keywords)
        return self.dump()

    def readable_by_all(self):
        """The worker writes its facts as somebody else."""
        self.dir.chmod(0o777)

    @unittest.skipUnless(os.getuid() == 0, "needs root")
    def test_user_brings_its_groups(self):
        self.readable_by_all()
        nobody = pwd.getpwnam("nobody")
        worker = self.started_with("--user", "nobody")
        self.assertEqual(worker["uid"], [nobody.pw_uid] * 3)
        self.assertEqual(worker["gid"], [nobody.pw_gid] * 3)
        self.assertEqual(set(worker["groups"]), set(os.getgrouplist("nobody", nobody.pw_gid)))
        self.assertEqual(worker["capabilities"]["CapEff"], 0)
        self.assertEqual(worker["capabilities"]["CapPrm"], 0)

    @unittest.skipUnless(os.getuid() == 0, "needs root")
    def test_group_goes_before_the_user_s_own(self):
        self.readable_by_all()
        worker = self.started_with("--user", "nobody", "--group", "daemon")
        self.assertEqual(worker["uid"], [pwd.getpwnam("nobody").pw_uid] * 3)
        self.assertEqual(worker["gid"], [grp.getgrnam("daemon").gr_gid] * 3)

    def test_cwd_is_the_directory_it_starts_in(self):
        inner = self.dir / "inner"
        inner.mkdir()
        self.assertEqual(self.started_with("--cwd", inner)["cwd"], str(inner))

    def test_env_is_added_to_the_master_s(self):
        worker = self.started_with("--env", "ADDED=new", "--env", "BOTH=service's", env={"BOTH": "master's", "KEPT": "1"})
        self.assertEqual((worker["env"]["ADDED"], worker["env"]["BOTH"], worker["env"]["KEPT"]), ("new", "service's", "1"))

    def test_umask_is_set(self):
        self.assertEqual(self.started_with("--umask", "027")["umask"], 0o027)

    def test_nice_is_set(self):
        self.assertEqual(self.started_with("--nice", "7")["nice"], 7)

    def test_rlimits_are_set_soft_and_hard(self):
        worker = self.started_with("--rlimit", "nofile=512:1024", "--rlimit", "core=0")
        self.assertEqual(worker["rlimits"]["RLIMIT_NOFILE"], [512, 1024])
        self.assertEqual(worker["rlimits"]["RLIMIT_CORE"], [0, 0])

    @unittest.skipUnless(os.getuid() == 0, "needs root")
    def test_capabilities_are_exactly_those_named(self):
        self.readable_by_all()
        for user in ("nobody", "root"):
            with self.subTest(user=user):
                (self.dir / "dump.1.0").unlink(missing_ok=True)
                kept = self.started_with("--user", user, "--capabilities", "net_bind_service")["capabilities"]
                mask = 1 << CAP_NET_BIND_SERVICE
                self.assertEqual((kept["CapEff"], kept["CapPrm"]), (mask, mask))
                self.assertEqual(kept["CapBnd"] & ~mask, 0)


if __name__ == "__main__":
    harness.main()
