# SPDX-License-Identifier: BSD-2-Clause
"""Servers that speak something else than HTTP."""

import os
import shutil

import clients
from compat import Server


def initdb(run):
    data = run.dir / "data"
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    run.dir.chmod(0o777)
    run.command("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "/usr/lib/postgresql/15/bin/initdb", "-A", "trust",
                "-N", "-D", "/srv/data")


def sshd(run):
    run.command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/srv/key")
    os.makedirs("/run/sshd", 0o755, exist_ok=True)


SERVERS = [
    Server("redis", ["/usr/bin/redis-server"], clients.Exact(clients.Redis(), 300), lambda version: {"redis.conf": """
bind 127.0.0.1
port 8080
save ""
appendonly no
"""}),
    Server("memcached", ["/usr/bin/memcached"], clients.Exact(clients.Memcached(), 300)),
    Server("PostgreSQL", ["/usr/lib/postgresql/15/bin/postgres"], clients.Exact(clients.Postgres(), 50), make=initdb,
           refused="before it was ready"),
    Server("sshd", ["/usr/sbin/sshd"], clients.Exact(clients.Ssh(), 20), lambda version: {"sshd_config": f"""
ListenAddress 127.0.0.1:8080
HostKey /srv/key
PidFile none
UsePAM no
MaxStartups 1000
VersionAddendum {version}
"""}, sshd),
    Server("dnsmasq", ["/usr/sbin/dnsmasq"], clients.Exact(clients.Dns(), 300), lambda version: {"dnsmasq.conf": f"""
port=8080
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
txt-record=version.test,{version}
"""}),
    Server("socat", ["/usr/bin/socat"], clients.Exact(clients.Echo(), 50)),
]
