// An echo service of SockJS-node, without WebSockets, logging nothing.
import http from 'node:http';
import sockjs from 'sockjs';

const port = Number(process.argv[2] ?? 9003);
const echo = sockjs.createServer({ prefix: '/echo', websocket: false, log: () => {} });
echo.on('connection', (session) => {
  if (session) session.on('data', (message) => session.write(message));
});
const server = http.createServer((request, response) => response.end('ok\n'));
echo.installHandlers(server);
server.listen(port, '127.0.0.1');
