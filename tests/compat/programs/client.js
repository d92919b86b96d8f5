// SPDX-License-Identifier: BSD-2-Clause
// Busy clients of node's http.Agent on kept connections: client.js URL N. TERM ends them, each after its request; then one line of JSON says
// how many requests there were, how many failed and how, and who answered (the bodies' first lines). node sends nothing again by itself.
const http = require('http');

const [url, number] = [process.argv[2], Number(process.argv[3])];
const agent = new http.Agent({ keepAlive: true, maxSockets: number, maxFreeSockets: number });
const total = { attempted: 0, failed: {}, by: {} };
const kinds = { 'socket hang up': 'cut', ECONNRESET: 'reset', EPIPE: 'reset', ECONNREFUSED: 'refused' };
let stopping = false;

// One request: resolves to how it failed, '' if it didn't.
function ask() {
  return new Promise((resolve) => {
    let answer = null;
    const fail = (error) => resolve(answer ? 'cut_mid_answer' : kinds[error.message] || kinds[error.code] || error.code || error.message);
    const request = http.get(url, { agent, timeout: 30000 }, (response) => {
      let body = '';
      answer = response;
      response.setEncoding('utf8');
      response.on('data', (text) => (body += text));
      response.on('error', fail);
      response.on('end', () => {
        const good = response.complete && response.statusCode === 200;
        if (good) total.by[body.split('\n')[0]] = true;
        resolve(good ? '' : response.complete ? `status ${response.statusCode}` : 'cut_mid_answer');
      });
    });
    request.on('error', fail);
    request.on('timeout', () => request.destroy(new Error('timeout')));
  });
}

async function run() {
  while (!stopping) {
    const kind = await ask();
    total.attempted++;
    if (kind) {
      total.failed[kind] = (total.failed[kind] || 0) + 1;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

process.on('SIGTERM', () => (stopping = true));
const all = Array.from({ length: number }, run);
Promise.all(all).then(() => process.stdout.write(JSON.stringify(total) + '\n', () => process.exit()));
