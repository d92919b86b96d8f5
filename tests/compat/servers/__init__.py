# SPDX-License-Identifier: BSD-2-Clause
"""The servers of the suite, by family. `every()` gives them in the order of docs/servers.md."""

from . import applications, others, programs, web


def every():
    return [*web.SERVERS, *applications.SERVERS, *programs.SERVERS, *others.SERVERS]
