// Socket.IO 4 doing Postroom's transient work: rooms for topics and users, WebSocket transport only.
// node socketio_server.mjs PORT [redis|streams URL]: alone, or one of several with that adapter.
import http from 'node:http';
import { Server } from 'socket.io';

const port = Number(process.argv[2] ?? 9002);
const adapter = await adapterOf(process.argv[3], process.argv[4]);
const server = http.createServer((request, response) => response.end('ok\n'));
const io = new Server(server, {
  transports: ['websocket'],
  serveClient: false,
  perMessageDeflate: false,
  httpCompression: false,
  ...(adapter && { adapter }),
});

async function adapterOf(kind, url) {
  if (!kind) return undefined;
  const { createClient } = await import('redis');
  const client = createClient({ url });
  await client.connect();
  if (kind === 'streams') {
    const { createAdapter } = await import('@socket.io/redis-streams-adapter');
    return createAdapter(client);
  }
  const { createAdapter } = await import('@socket.io/redis-adapter');
  const subscriber = client.duplicate();
  await subscriber.connect();
  return createAdapter(client, subscriber);
}

io.on('connection', (socket) => {
  const { login } = socket.handshake.auth;
  // A user's queue is a room under the user's name; the name in a destination is percent-encoded.
  const roomOf = (destination) =>
    destination.startsWith('/user/queue/') ? `/user/${encodeURIComponent(login)}${destination.slice(5)}` : destination;
  socket.on('sub', (destination, done) => {
    socket.join(roomOf(destination));
    if (done) done();
  });
  socket.on('send', (destination, body, done) => {
    io.to(destination).emit('m', body);
    if (done) done();
  });
});

server.listen(port, '127.0.0.1', 16384);
