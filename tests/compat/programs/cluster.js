// SPDX-License-Identifier: BSD-2-Clause
// node's cluster module: the primary process listens and deals connections out. It knows nothing of gapless.
const cluster = require('cluster');

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
} else {
  require('http')
    .createServer((request, response) => response.end(process.env.GAPLESS_GENERATION + '\n'))
    .listen(Number(process.argv[2]), '127.0.0.1');
}
