// Two users talk through an unmodified client library: node talk.cjs LIBRARY SOCKET PORT NODES [MOUNT [tls]]
// LIBRARY: stompjs-2, webstomp or stompjs-7. SOCKET: ws, sockjs-1.1 or sockjs-1.6, which may be followed by
// :TRANSPORT, the one that SockJS is to use.
'use strict';
const assert = require('node:assert');
const { Waiting } = require('./waiting.cjs');

const [library, way, port, nodes, mount = '', tls = ''] = process.argv.slice(2);
const secure = tls ? 's' : '';
const [socket, transport] = way.split(':');
const QUEUE = '/user/queue/x';

const sockjs = (name) => () =>
  new (require(name))(`http${secure}://127.0.0.1:${port}${mount}/chat-websocket`, null, transport ? { transports: [transport] } : {});
const open = {
  ws: () => new (require('ws'))(`ws${secure}://127.0.0.1:${port}${mount}/ws`),
  'sockjs-1.1': sockjs('sockjs-client-1.1'),
  'sockjs-1.6': sockjs('sockjs-client'),
}[socket];

// Each returns {subscribe(destination, callback), send(destination, headers, body), receipts, disconnect()}.
const connect = {
  'stompjs-2': (login, receipts) =>
    new Promise((resolve, reject) => {
      const client = require('stompjs').over(open());
      client.debug = null;
      client.onreceipt = (frame) => receipts.emit(frame.headers['receipt-id']);
      client.connect(
        { login },
        () =>
          resolve({
            subscribe: (destination, callback, headers) => client.subscribe(destination, callback, headers),
            send: (destination, headers, body) => client.send(destination, headers, body),
            disconnect: () => new Promise((done) => client.disconnect(done)),
          }),
        reject,
      );
    }),

  webstomp: (login, receipts) =>
    new Promise((resolve, reject) => {
      const client = require('webstomp-client').over(open(), { debug: false });
      client.onreceipt = (frame) => receipts.emit(frame.headers['receipt-id']);
      client.connect(
        { login },
        () =>
          resolve({
            subscribe: (destination, callback, headers) => client.subscribe(destination, callback, headers),
            send: (destination, headers, body) => client.send(destination, body, headers),
            disconnect: () => new Promise((done) => client.disconnect(done, { receipt: 'bye' })),
          }),
        reject,
      );
    }),

  'stompjs-7': (login, receipts) =>
    new Promise((resolve, reject) => {
      const { Client } = require('@stomp/stompjs');
      if (socket === 'ws') globalThis.WebSocket = require('ws');
      const client = new Client({
        connectHeaders: { login },
        reconnectDelay: 0,
        onConnect: () =>
          resolve({
            subscribe: (destination, callback, headers) => client.subscribe(destination, callback, headers),
            send: (destination, headers, body) =>
              typeof body === 'string'
                ? client.publish({ destination, headers, body })
                : client.publish({ destination, headers, binaryBody: body }),
            disconnect: () => client.deactivate(),
          }),
        onStompError: (frame) => reject(new Error(frame.headers.message)),
        onUnhandledReceipt: (frame) => receipts.emit(frame.headers['receipt-id']),
        ...(socket === 'ws' ? { brokerURL: `ws${secure}://127.0.0.1:${port}${mount}/ws` } : { webSocketFactory: open }),
      });
      client.activate();
    }),
}[library];

async function join(login) {
  const receipts = new Waiting();
  const messages = new Waiting();
  const client = await connect(login, receipts);
  client.subscribe(QUEUE, (message) => messages.emit(message), { receipt: 'subscribed' });
  assert.equal(await receipts.next(), 'subscribed');
  return { ...client, receipts, messages };
}

async function main() {
  const tag = `${library}-${way.replace(':', '-')}-${port}`;
  const [ann, ben] = [`ann-${tag}`, `ben-${tag}`];
  let [a, b] = await Promise.all([join(ann), join(ben)]);

  a.send(`/user/${ann}/queue/x`, { receipt: 'r1' }, 'to myself');
  assert.equal((await a.messages.next()).body, 'to myself');
  assert.equal(await a.receipts.next(), 'r1');

  // Only the newest library escapes headers (and takes the escaped backslash of `\\\\c` for that of `\\c`).
  const note = library === 'stompjs-7' ? 'a:b\nc' : 'plain';
  a.send(`/user/${ben}/queue/x`, { receipt: 'r2', note }, 'Grüße, 世界 🚀');
  const got = await b.messages.next();
  assert.equal(got.body, 'Grüße, 世界 🚀');
  assert.equal(got.headers.destination, QUEUE);
  assert.equal(got.headers.sender, ann);
  assert.equal(got.headers.note, note);
  assert.equal(await a.receipts.next(), 'r2');

  const big = 'é0123456789'.repeat(15000);
  b.send(`/user/${ann}/queue/x`, { receipt: 'r3' }, big);
  assert.equal((await a.messages.next()).body, big);
  assert.equal(await b.receipts.next(), 'r3');

  if (library === 'stompjs-7' && socket === 'ws') {
    const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
    a.send(`/user/${ben}/queue/x`, { receipt: 'r4', 'content-type': 'application/octet-stream' }, bytes);
    assert.deepEqual(Buffer.from((await b.messages.next()).binaryBody), Buffer.from(bytes));
    assert.equal(await a.receipts.next(), 'r4');
  }

  await b.disconnect();
  for (let number = 0; number < 20; number++) {
    a.send(`/user/${ben}/queue/x`, { receipt: `w${number}` }, `waits ${number}`);
  }
  for (let number = 0; number < 20; number++) assert.equal(await a.receipts.next(), `w${number}`);
  b = await join(ben);
  for (let number = 0; number < 20; number++) {
    let message = await b.messages.next();
    // What b had and had not proven when it left comes again, marked.
    while (message.headers.redelivered && !message.body.startsWith('waits')) message = await b.messages.next();
    assert.equal(message.body, `waits ${number}`);
    // With several nodes, what is stored in the moment in which a user leaves may be marked. So is, over HTTP, what
    // is stored before the server knows that a client has gone, which asks no more and says no goodbye.
    if (nodes === '1' && !transport) assert.equal(message.headers.redelivered, undefined);
  }
  await Promise.all([a.disconnect(), b.disconnect()]);
  console.log('talked');
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
