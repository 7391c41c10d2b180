// SockJS in a browser, forced to one transport after the other: node browser_transports.mjs CHROMIUM PORT TRANSPORT...
// TRANSPORT: a name of sockjs-client's, `@` and where the page comes from: `own` (the server's origin) or `other`
// (http://app.test), `@` and the client: 1.6 or 1.1. Prints one line for each.
import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(process.env.NODE_PATH + '/');
const { chromium } = require('playwright-core');

const [program, port, ...wanted] = process.argv.slice(2);
const server = `http://127.0.0.1:${port}`;
const file = (name) => readFileSync(`${process.env.NODE_PATH}/${name}`, 'utf-8');
const sockjs = { 1.6: file('sockjs-client/dist/sockjs.min.js'), 1.1: file('sockjs-client-1.1/dist/sockjs.min.js') };
const stomp = file('@stomp/stompjs/bundles/stomp.umd.min.js');

// Pages of app.test come from nowhere, so that the browser takes them for strangers to the loopback network.
const features = 'LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,PrivateNetworkAccessSendPreflights';
const args = ['--no-sandbox', '--disable-gpu', `--disable-features=${features}`];
const browser = await chromium.launch({ executablePath: program, args });
try {
  for (const each of wanted) await check(...each.split('@'));
} finally {
  await browser.close();
}

async function check(transport, from, version) {
  const page = await browser.newPage();
  const home = from === 'own' ? `${server}/page.html` : 'http://app.test/page.html';
  const script = { contentType: 'application/javascript', body: sockjs[version] };
  await page.route(home, (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html><body></body>' }));
  await page.route('http://client.test/sockjs.js', (route) => route.fulfill(script));
  await page.goto(home);
  await page.addScriptTag({ content: sockjs[version] });
  await page.addScriptTag({ content: stomp });
  const user = `${transport}-${from}-${version}`;
  const got = await page.evaluate(talk, { url: `${server}/chat-websocket`, transport, user });
  assert.deepEqual(got.bodies, got.sent);
  assert.equal(got.transport, transport);
  await page.close();
  console.log(`${transport}@${from}@${version}`);
}

// Runs in the page: subscribes, sends to itself one by one and all at once, and says what came.
async function talk({ url, transport, user }) {
  let socket;
  const bodies = [];
  const sent = [];
  let arrived = () => {};
  const until = (condition) =>
    new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${transport}: ${bodies.length} of ${sent.length} came`)), 20000);
      arrived = () => condition() && (clearTimeout(late), resolve());
      arrived();
    });
  const client = new StompJs.Client({
    connectHeaders: { login: user },
    reconnectDelay: 100,
    webSocketFactory: () => (socket = new SockJS(url, null, { transports: [transport] })),
  });
  // The client gives a transport as long as a few answers of `/info` took: too short where the machine is busy.
  const NOT_IN_TIME = 2000;
  await new Promise((resolve, reject) => {
    client.onConnect = resolve;
    client.onStompError = (frame) => reject(new Error(frame.headers.message));
    client.onWebSocketClose = (event) =>
      event.code === NOT_IN_TIME || reject(new Error(`${transport} closed: ${event.code} ${event.reason}`));
    client.activate();
  });
  client.subscribe('/user/queue/x', (message) => (bodies.push(message.body), arrived()));
  const say = (body) => (sent.push(body), client.publish({ destination: `/user/${user}/queue/x`, body }));
  for (let number = 0; number < 5; number++) {
    say(`one by one ${number}`);
    await until(() => bodies.length === sent.length);
  }
  for (let number = 0; number < 50; number++) say(`at once ${number} Grüße, 世界 🚀 </script> \u2028 "'`);
  say('x'.repeat(100000));
  await until(() => bodies.length === sent.length);
  const used = socket.transport;
  client.onWebSocketClose = () => {};
  await client.deactivate();
  return { bodies, sent, transport: used };
}
