// A client as the guides for Spring's broker write it: node spring.cjs LIBRARY PORT
// LIBRARY: stompjs-2 or webstomp over SockJS, or stompjs-7 with its compatible names.
'use strict';
const assert = require('node:assert');

const [library, port] = process.argv.slice(2);
const SockJS = require(library === 'stompjs-7' ? 'sockjs-client' : 'sockjs-client-1.1');
const open = () => new SockJS(`http://127.0.0.1:${port}/chat-websocket`);

const over = {
  'stompjs-2': () => require('stompjs').over(open()),
  webstomp: () => require('webstomp-client').over(open()),
  'stompjs-7': () => require('@stomp/stompjs').Stomp.over(open),
}[library];

const send = (client, destination, body) =>
  library === 'webstomp' ? client.send(destination, body, {}) : client.send(destination, {}, body);

function connect(login) {
  return new Promise((resolve, reject) => {
    const client = over();
    client.debug = () => {};
    client.connect({ login }, (frame) => resolve({ client, frame }), reject);
  });
}

const next = (client, destination, asked) =>
  new Promise((done) => {
    client.subscribe(destination, (message) => done(message));
    if (asked) asked();
  });

async function main() {
  const user = `spring-${library}`;
  const { client, frame } = await connect(user);
  assert.equal(frame.headers['user-name'], user);
  assert.equal(frame.headers['heart-beat'], '10000,10000');
  assert.ok(frame.headers.session);

  const greeting = await next(client, '/topic/greetings', () => send(client, '/app/hello', library));
  assert.deepEqual(JSON.parse(greeting.body), { content: `Hello, ${library}!` });
  assert.equal(greeting.headers.destination, '/topic/greetings');

  const quote = await next(client, '/app/quotes/ACME');
  assert.deepEqual(JSON.parse(quote.body), { stock: 'ACME', price: 12.5 });
  assert.equal(quote.headers.destination, '/app/quotes/ACME');

  const { client: tab } = await connect(user);
  let heard = 0;
  const everyTab = new Promise((done) => {
    tab.subscribe('/user/queue/reply', (message) => {
      heard++;
      done(message);
    });
  });
  await next(tab, '/app/text'); // its subscriptions are in force
  const reply = await next(client, '/user/queue/reply', () => send(client, '/app/ask', ''));
  assert.equal(reply.body, `only ${frame.headers.session}`);
  assert.equal(reply.headers.destination, '/user/queue/reply');
  send(client, '/app/tell-all', '');
  assert.equal((await everyTab).body, 'every tab');
  assert.equal(heard, 1);

  const error = await next(client, '/user/queue/errors', () => send(client, '/app/fail/refused', ''));
  assert.equal(JSON.parse(error.body).message, 'not on a Sunday');

  const price = await next(client, '/topic/price.*', () => send(client, '/topic/price.IBM', '1'));
  assert.equal(price.headers.destination, '/topic/price.IBM');
  console.log('talked');
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
