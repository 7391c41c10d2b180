"use strict";
// The chat page: SockJS + STOMP to /chat-websocket, my messages at /user/topic/reply.

const el = (id) => document.getElementById(id);
const me = el("who").textContent;
const { pane, to: partner } = document.body.dataset; // one of two panes: its token, and whom it writes to
const seen = new Set(); // message ids: a redelivery is shown once
const awaiting = new Map(); // receipt id -> the line that it confirms
let subscribedAt = 0;
let receipts = 0;
let { avoid } = document.body.dataset; // a node to stay away from
let tries = 0;

function show(kind, text, meta) {
  const line = document.createElement("li");
  line.className = kind;
  line.append(document.createTextNode(text));
  const small = document.createElement("span");
  small.className = "meta";
  small.textContent = meta;
  line.append(small);
  el("log").append(line);
  el("empty").hidden = true;
  line.scrollIntoView({ block: "end" });
  return small;
}

function status(kind, text) {
  el("status").className = kind;
  el("status").textContent = text;
  el("connect").disabled = kind !== "offline";
  el("disconnect").disabled = kind === "offline";
  el("send").disabled = kind !== "online";
  el("node").hidden = kind !== "online";
}

// Which node answers is chance. To show another one than the last, a pane asks again, before it subscribes.
async function connected(frame) {
  const node = (frame.headers.server ?? "").replace("postroom/", "");
  if (avoid && node === avoid && ++tries < 4) {
    await client.deactivate();
    client.activate();
    status("waiting", "connecting …");
    return;
  }
  avoid = "";
  subscribedAt = Date.now();
  client.subscribe("/user/queue/errors", refused);
  client.subscribe("/user/topic/reply", received);
  el("node").textContent = node;
  el("node").dataset.number = node.match(/\d+$/)?.[0] % 4;
  status("online", "connected");
  if (pane) parent.postMessage({ node }, location.origin);
}

const time = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function received(message) {
  const id = message.headers["message-id"];
  if (seen.has(id)) return;
  seen.add(id);
  let text = message.body;
  try {
    text = JSON.parse(message.body).content ?? message.body;
  } catch {
    // Not JSON: shown as it is.
  }
  // A stored message's offset is the time of its storing, in microseconds.
  const storedAt = Number(message.headers.offset) / 1000;
  const waited = storedAt && storedAt < subscribedAt;
  let meta = time(storedAt || Date.now());
  if (waited) meta += " · waited for you in the mailbox";
  if (message.headers.redelivered === "true") meta += " · delivered again";
  if (message.headers.skipped) meta += ` · ${message.headers.skipped} older were dropped`;
  show(waited ? "mailbox" : "received", text, meta);
}

function refused(message) {
  let text = message.headers.message || message.body;
  const line = awaiting.get(message.headers["receipt-id"]);
  if (line) line.textContent = "not accepted";
  show("error", text, "refused by the server");
}

const client = new StompJs.Client({
  webSocketFactory: () => new SockJS("/chat-websocket"),
  reconnectDelay: 500,
  reconnectTimeMode: StompJs.ReconnectionTimeMode ? StompJs.ReconnectionTimeMode.EXPONENTIAL : undefined,
  maxReconnectDelay: 10000,
  heartbeatIncoming: 10000,
  heartbeatOutgoing: 10000,
  connectHeaders: pane ? { pane } : {},
  onConnect: connected,
  onStompError: (frame) => show("error", frame.headers.message, "the server ended the connection"),
  onWebSocketClose: () => {
    if (client.active) status("waiting", "connecting again …");
    else status("offline", "not connected");
  },
});
client.onUnhandledReceipt = (frame) => {
  const line = awaiting.get(frame.headers["receipt-id"]);
  if (line) line.textContent = line.dataset.meta + " · ✓ stored";
  awaiting.delete(frame.headers["receipt-id"]);
};

el("connect").addEventListener("click", () => {
  status("waiting", "connecting …");
  client.activate();
});
el("disconnect").addEventListener("click", async () => {
  if (pane) [avoid, tries] = [el("node").textContent, 0];
  await client.deactivate();
  status("offline", "not connected");
});
el("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const to = el("receiver").value.trim();
  const text = el("message").value;
  if (!client.connected || !to || !text) return;
  const receipt = `m-${++receipts}`;
  const line = show("sent", text, "");
  line.dataset.meta = `to ${to} · ${time(Date.now())}`;
  line.textContent = line.dataset.meta;
  awaiting.set(receipt, line);
  client.publish({
    destination: `/user/${encodeURIComponent(to)}/topic/reply`,
    headers: { "content-type": "application/json", receipt },
    body: JSON.stringify({ content: `${me} say: ${text}` }),
  });
  el("message").value = "";
  el("message").focus();
});

if (pane) {
  el("connect").textContent = "Come back";
  el("disconnect").textContent = "Go away";
  el("receiver").value = partner;
  el("message").placeholder = `Write to ${partner}`;
}
status("offline", "not connected");
el("connect").click();
