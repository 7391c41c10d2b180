// What @stomp/stompjs offers for odd sockets: node options.cjs OPTION PORT
// OPTION: split (frames in several WebSocket messages), binary (frames in binary messages), append (a NUL is added to
// what comes without one), native (a socket that cuts the last NUL off both ways, as that of React Native does).
'use strict';
const assert = require('node:assert');
const { Waiting } = require('./waiting.cjs');
const { Client } = require('@stomp/stompjs');
const WebSocket = require('ws');

const [option, port] = process.argv.slice(2);
const url = `ws://127.0.0.1:${port}/ws`;
globalThis.WebSocket = WebSocket;
const sizes = { text: 0, binary: 0, largest: 0, beats: 0 };

// A socket that counts what it is given, and cuts NULs off where it plays React Native's.
class Socket extends WebSocket {
  send(data) {
    const native = option === 'native' && typeof data === 'string';
    const cut = native && data.endsWith('\0') ? data.slice(0, -1) : data;
    sizes[typeof cut === 'string' ? 'text' : 'binary']++;
    sizes.largest = Math.max(sizes.largest, cut.length);
    super.send(cut);
  }
  set onmessage(handler) {
    super.onmessage = (event) => {
      sizes.beats += event.data === '\n';
      const cut = option === 'native' && typeof event.data === 'string' && event.data.endsWith('\0');
      handler({ data: cut ? event.data.slice(0, -1) : event.data });
    };
  }
}

const options = {
  split: { splitLargeFrames: true, maxWebSocketChunkSize: 1000 },
  binary: { forceBinaryWSFrames: true },
  append: { appendMissingNULLonIncoming: true },
  native: { appendMissingNULLonIncoming: true },
};

function fail(error) {
  console.error(error);
  process.exit(1);
}

function join(login, config) {
  const messages = new Waiting();
  return new Promise((resolve) => {
    const client = new Client({
      connectHeaders: { login },
      reconnectDelay: 0,
      heartbeatIncoming: 1000,
      heartbeatOutgoing: 1000,
      onStompError: (frame) => fail(new Error(frame.headers.message)),
      onWebSocketClose: (event) => fail(new Error(`closed: ${event.code} ${event.reason}`)),
      onConnect: () => {
        client.watchForReceipt('subscribed', () => resolve({ client, messages }));
        client.subscribe('/user/queue/x', (message) => messages.emit(message), { receipt: 'subscribed' });
      },
      ...config,
    });
    client.activate();
  });
}

async function main() {
  const [ann, ben] = [`ann-${option}`, `ben-${option}`];
  const own = { webSocketFactory: () => new Socket(url, ['v12.stomp']), ...options[option] };
  const a = await join(ann, own);
  const b = await join(ben, { brokerURL: url });

  const texts = ['', 'plain', 'Grüße, 世界 🚀', 'é世'.repeat(50000), 'x'.repeat(262144), 'ü'.repeat(131072)];
  for (const [number, body] of texts.entries()) {
    a.client.publish({ destination: `/user/${ben}/queue/x`, body, headers: { note: `a:b\n${number}` } });
    const there = await b.messages.next();
    assert.equal(there.body, body);
    assert.equal(there.headers.note, `a:b\n${number}`);
    b.client.publish({ destination: `/user/${ann}/queue/x`, body });
    assert.equal((await a.messages.next()).body, body);
  }

  // Many at once: each frame ends where it ends, however it was cut.
  for (let number = 0; number < 200; number++) {
    a.client.publish({ destination: `/user/${ben}/queue/x`, body: `${number}: ${'é'.repeat(number * 10)}` });
  }
  for (let number = 0; number < 200; number++) {
    assert.equal((await b.messages.next()).body, `${number}: ${'é'.repeat(number * 10)}`);
  }

  const bytes = Uint8Array.from({ length: 70000 }, (_, index) => (index * 7) % 256);
  b.client.publish({ destination: `/user/${ann}/queue/x`, binaryBody: bytes });
  assert.deepEqual(Buffer.from((await a.messages.next()).binaryBody), Buffer.from(bytes));
  if (option !== 'native') {
    a.client.publish({ destination: `/user/${ben}/queue/x`, binaryBody: bytes });
    assert.deepEqual(Buffer.from((await b.messages.next()).binaryBody), Buffer.from(bytes));
  }

  // Heart-beats pass both ways meanwhile: neither side holds the other for dead.
  while (sizes.beats < 2) await new Promise((done) => setTimeout(done, 20));
  a.client.publish({ destination: `/user/${ben}/queue/x`, body: 'still here' });
  assert.equal((await b.messages.next()).body, 'still here');

  if (option === 'split') assert.ok(sizes.text > 500, 'frames went in several messages');
  if (option === 'binary') assert.ok(sizes.binary > 200, 'frames went in binary messages');
  if (option === 'binary') assert.ok(sizes.text <= sizes.beats + 3, 'nothing but heart-beats went as text');
  console.log('talked');
  process.exit(0);
}

main().catch(fail);
