// The least that `ws` needs to do Postroom's transient work: STOMP's CONNECT, SUBSCRIBE, SEND, RECEIPT and
// MESSAGE, topics and users. Written for speed as a careful user would: no compression, a broadcast's text is
// built once per subscription id, one ws.send() a subscriber. No checks, no limits, no durability.
import http from 'node:http';
import { WebSocketServer } from 'ws';

const port = Number(process.argv[2] ?? 9001);
const server = http.createServer((request, response) => response.end('ok\n'));
const wss = new WebSocketServer({
  server,
  perMessageDeflate: false,
  clientTracking: false,
  handleProtocols: (protocols) => (protocols.has('v12.stomp') ? 'v12.stomp' : false),
});
const topics = new Map(); // destination -> subscription id -> set of sockets
const users = new Map(); // login + '\n' + destination -> subscription id -> set of sockets
let counter = 0;

wss.on('connection', (socket) => {
  socket.left = [];
  socket.on('message', (data) => {
    const text = data.toString();
    const end = text.indexOf('\n\n');
    const [command, ...headers] = text.slice(0, end).split('\n');
    if (command === 'SEND') return send(socket, headers, text.slice(end + 2, -1));
    const of = Object.fromEntries(headers.map(pair));
    if (command === 'CONNECT') {
      socket.login = of.login;
      socket.send(`CONNECTED\nversion:1.2\nheart-beat:0,0\nuser-name:${of.login}\n\n\0`);
    } else if (command === 'SUBSCRIBE') {
      subscribe(socket, of.destination, of.id);
      if (of.receipt) socket.send(`RECEIPT\nreceipt-id:${of.receipt}\n\n\0`);
    }
  });
  socket.on('close', () => socket.left.forEach((leave) => leave()));
  socket.on('error', () => socket.terminate());
});

function pair(header) {
  const colon = header.indexOf(':');
  return [header.slice(0, colon), header.slice(colon + 1)];
}

function subscribe(socket, destination, id) {
  const own = destination.startsWith('/user/');
  const registry = own ? users : topics;
  const key = own ? `${socket.login}\n${destination.slice(5)}` : destination;
  let ids = registry.get(key);
  if (!ids) registry.set(key, (ids = new Map()));
  let sockets = ids.get(id);
  if (!sockets) ids.set(id, (sockets = new Set()));
  sockets.add(socket);
  socket.left.push(() => {
    sockets.delete(socket);
    if (sockets.size === 0) ids.delete(id);
    if (ids.size === 0) registry.delete(key);
  });
}

function send(socket, headers, body) {
  let destination;
  let receipt;
  for (const header of headers) {
    if (header.startsWith('destination:')) destination = header.slice(12);
    else if (header.startsWith('receipt:')) receipt = header.slice(8);
  }
  let ids;
  let shown = destination;
  if (destination.startsWith('/user/')) {
    const slash = destination.indexOf('/', 6);
    const rest = destination.slice(slash);
    ids = users.get(`${decodeURIComponent(destination.slice(6, slash))}\n${rest}`);
    shown = `/user${rest}`;
  } else {
    ids = topics.get(destination);
  }
  if (ids) {
    const message = ++counter;
    for (const [id, sockets] of ids) {
      const frame =
        `MESSAGE\ndestination:${shown}\nsubscription:${id}\nmessage-id:${message}\n` +
        `content-type:text/plain\ncontent-length:${Buffer.byteLength(body)}\n\n${body}\0`;
      for (const other of sockets) other.send(frame);
    }
  }
  if (receipt) socket.send(`RECEIPT\nreceipt-id:${receipt}\n\n\0`);
}

server.listen(port, '127.0.0.1', 16384);
