// Preloaded into NNI's manager by NODE_OPTIONS (see shield.py). NNI 3.0 has no setting for the address that it listens
// on, no password, and starts TensorBoard with --bind_all. Any page in a browser could send it requests, too.
//
// 1. Servers without an address listen on NNI_PROXYLESS_HOST, or else on 127.0.0.1. The manager's own clients use
//    "localhost", so with another address the servers listen on 127.0.0.1 as well.
// 2. Requests of pages of another origin are refused. Unless NNI_PROXYLESS_HOST opens the port to other machines, which
//    may know this one by any name, so are requests whose Host header is the name of another machine (DNS rebinding),
//    and on Linux those of other users of this machine.
// 3. TensorBoard listens on the same address, and ends with the manager.
// 4. The tuner may take longer than 10 seconds to connect (see patience.cjs).
// 5. The manager stops when its parent is gone, if NNI_PROXYLESS_WITH_PARENT is the number of that process.
'use strict';
const childProcess = require('child_process');
const fs = require('fs');
const http = require('http');
const net = require('net');
const os = require('os');

// Other programs of Node.js that inherit NODE_OPTIONS are left alone.
if (/[\\/]nni_node[\\/]main\.js$/.test(process.argv[1] || '')) {
  require('./patience.cjs');
  const LOOPBACK = '127.0.0.1';
  const HOST = process.env.NNI_PROXYLESS_HOST || LOOPBACK;
  const ALL = ['0.0.0.0', '::'];
  const OPEN = !/^(127\.\d+\.\d+\.\d+|::1)$/.test(HOST);
  const OF_THIS_MACHINE = ['localhost', os.hostname().toLowerCase(), HOST.toLowerCase()];

  const listen = net.Server.prototype.listen;
  net.Server.prototype.listen = function (...words) {
    const options = typeof words[0] === 'object' ? words[0] : null;
    const port = options ? options.port : words[0];
    const named = options ? options.host : typeof words[1] === 'string';
    if (port === undefined || port === null || named || !/^\d+$/.test(String(port))) {
      return listen.apply(this, words); // a socket of the file system, or a server that names its address
    }
    const first = ALL.includes(HOST) ? HOST : LOOPBACK;
    if (first !== HOST) {
      const other = net.createServer((socket) => this.emit('connection', socket));
      other.unref();
      other.on('error', (error) => this.emit('error', error));
      this.once('listening', () => listen.call(other, this.address().port, HOST));
      this.once('close', () => other.close());
    }
    if (options) {
      return listen.call(this, { ...options, host: first }, ...words.slice(1));
    }
    // listen(port[, host][, backlog][, callback]): a missing host may be left out, or be undefined
    const rest = words.length > 1 && (words[1] === undefined || words[1] === null) ? words.slice(2) : words.slice(1);
    return listen.call(this, words[0], first, ...rest);
  };

  // Linux lists the user of each end of a connection within this machine. Addresses are in the order of bytes in memory.
  const LISTS = { '127.0.0.1': ['/proc/net/tcp', '0100007F'], '::1': ['/proc/net/tcp6', `${'0'.repeat(24)}01000000`] };
  const checked = new WeakMap();
  const isOfAnotherUser = (socket) => {
    if (!checked.has(socket)) {
      let user;
      try {
        const [list, address] = LISTS[socket.remoteAddress];
        const other = `${address}:${socket.remotePort.toString(16).toUpperCase().padStart(4, '0')}`;
        const rows = fs.readFileSync(list, 'latin1').split('\n').map((row) => row.trim().split(/\s+/));
        user = Number(rows.find((row) => row[1] === other)[7]);
      } catch {
        // another address or system
      }
      checked.set(socket, ![undefined, 0, process.getuid()].includes(user));
    }
    return checked.get(socket);
  };
  const refusal = (request) => {
    if (process.platform === 'linux' && net.isIP(HOST) && HOST in LISTS && isOfAnotherUser(request.socket)) {
      return 'it comes from another user of this machine';
    }
    const given = request.headers.host || '';
    const name = given.replace(/:\d+$/, '').replace(/^\[|\]$/g, '').toLowerCase();
    if (!OPEN && !net.isIP(name) && !OF_THIS_MACHINE.includes(name)) {
      return 'the Host header names another machine';
    }
    const origin = request.headers.origin;
    if (origin !== undefined && origin.replace(/^https?:\/\//, '').toLowerCase() !== given.toLowerCase()) {
      return 'the request comes from a page of another origin';
    }
    return null;
  };
  const emit = http.Server.prototype.emit;
  http.Server.prototype.emit = function (event, request, ...rest) {
    const reason = event === 'request' || event === 'upgrade' ? refusal(request) : null;
    if (reason === null) {
      return emit.call(this, event, request, ...rest);
    }
    const text = `refused: ${reason}\n`;
    if (event === 'request') {
      rest[0].writeHead(403, { 'Content-Type': 'text/plain', Connection: 'close' }).end(text);
    } else {
      rest[0].end(`HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: ${text.length}\r\n\r\n${text}`);
    }
    return true;
  };

  const spawn = childProcess.spawn;
  const python = process.argv[process.argv.indexOf('--python-interpreter') + 1];
  childProcess.spawn = function (command, words, ...rest) {
    if (command === 'tensorboard' && Array.isArray(words)) {
      const quoted = `'${python.replace(/'/g, "'\\''")}' -m nni_proxyless.nni_bridge.board`;
      return spawn.call(this, quoted, words.map((word) => word.replace(/^--bind_all\b/, `--host=${HOST}`)), ...rest);
    }
    return spawn.call(this, command, words, ...rest);
  };

  if (process.env.NNI_PROXYLESS_WITH_PARENT) {
    const parent = Number(process.env.NNI_PROXYLESS_WITH_PARENT);
    const watch = setInterval(() => {
      if (process.ppid !== parent) {
        clearInterval(watch);
        process.kill(process.pid, 'SIGTERM');
      }
    }, 1000);
    watch.unref();
  }
  // What the manager starts, such as the tuner and the trials, gets the environment of before.
  delete process.env.NNI_PROXYLESS_WITH_PARENT;
  const before = process.env.NNI_PROXYLESS_NODE_OPTIONS;
  delete process.env.NNI_PROXYLESS_NODE_OPTIONS;
  if (before) {
    process.env.NODE_OPTIONS = before;
  } else if (before !== undefined) {
    delete process.env.NODE_OPTIONS;
  }
}
