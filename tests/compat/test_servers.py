#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What tools/test runs of the suite of real servers: one upgrade of a few of them, and that docs/servers.md and the suite fit together."""

import re
import unittest

import compat
import harness
import servers

EVERY = {server.name: server for server in servers.every()}


class RecipeTest(unittest.TestCase):
    """One upgrade under load, and no new connection fails."""

    def follow(self, name, way):
        recipe = next(recipe for recipe in compat.recipes() if (recipe.server, recipe.way) == (name, way))
        if missing := EVERY[name].missing():
            self.skipTest(missing)
        result = compat.run(EVERY[name], recipe, 1)
        self.assertEqual(result.wrong, "")
        harness.note(f"{result.fresh.attempted} new connections, 0 failed, longest gap {result.fresh.gap_ms:.1f} ms; "
                     f"{result.kept.attempted} requests on kept ones, {result.kept} failed")

    def test_nothing_fails_with_nginx(self):
        self.follow("nginx", "NGINX=")

    def test_nothing_fails_with_gunicorn(self):
        self.follow("gunicorn", "LISTEN_FDS")

    def test_nothing_fails_with_python_captured(self):
        self.follow("python3 -m http.server", "captured, no listener named")


class DocsTest(unittest.TestCase):
    def test_each_server_has_a_recipe_and_each_recipe_a_server(self):
        named = [recipe.server for recipe in compat.recipes()]
        self.assertEqual(list(dict.fromkeys(named)), list(EVERY))

    def test_each_block_is_a_recipe(self):
        blocks = re.findall(r"^```\w", compat.DOCS.read_text(), re.M)
        self.assertEqual(len(blocks), len(compat.recipes()))

    def test_each_recipe_has_a_result(self):
        results = re.search(r"<!-- results: begin -->\n(.*)<!-- results: end -->", compat.DOCS.read_text(), re.S)[1]
        rows = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in results.splitlines()[2:]]
        self.assertEqual(rows, [(recipe.server, recipe.way) for recipe in compat.recipes()])


if __name__ == "__main__":
    harness.main()
