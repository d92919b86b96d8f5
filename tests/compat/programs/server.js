// SPDX-License-Identifier: BSD-2-Clause
// node's http module as its documentation shows it. It knows nothing of gapless.
require('http')
  .createServer((request, response) => response.end(process.env.GAPLESS_GENERATION + '\n'))
  .listen(Number(process.argv[2]), '127.0.0.1');
