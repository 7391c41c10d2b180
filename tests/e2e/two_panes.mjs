// Two people side by side on the real page, in headless Chromium: each on a node of its own, one away and back.
//     node two_panes.mjs URL CHROMIUM [SCREENSHOT]
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";

const require = createRequire(fileURLToPath(new URL("../clients/package.json", import.meta.url)));
const { chromium } = require("playwright-core");
const [url, executablePath, screenshot] = process.argv.slice(2);

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const page = await (await browser.newContext({ viewport: { width: 1180, height: 640 } })).newPage();
page.on("pageerror", (error) => assert.fail(String(error)));
await page.goto(url);
await page.click("#both");
await page.waitForSelector("#right[src]");
const [left, right] = ["#left", "#right"].map((pane) => page.frameLocator(pane));
for (const pane of [left, right]) await pane.locator("#status.online").waitFor();
const node = (pane) => pane.locator("#node").textContent();
const texts = (pane, kind) => pane.locator(`#log .${kind}`).evaluateAll((lines) => lines.map((line) => line.firstChild.textContent));

async function send(pane, text) {
  const lines = pane.locator("#log .sent");
  const before = await lines.count();
  await pane.locator("#message").fill(text);
  await pane.locator("#send").click();
  await lines.nth(before).filter({ hasText: "stored" }).waitFor();
}

const first = [await node(left), await node(right)];
assert.deepEqual([...first].sort(), ["node-1", "node-2"]);
assert.ok(await page.locator("#alone").isHidden());

await send(left, "Hello from the other node!");
await right.locator("#log .received").waitFor();
await send(right, "It came across.");
await left.locator("#log .received").waitFor();

await right.locator("#disconnect").click();
await right.locator("#status.offline").waitFor();
await send(left, "This one waits for you.");
await right.locator("#connect").click();
await right.locator("#status.online").waitFor();
await right.locator("#log .mailbox").waitFor();
assert.notEqual(await node(right), first[1]);
assert.deepEqual(await texts(right, "received"), ["anna say: Hello from the other node!"]);
assert.deepEqual(await texts(right, "mailbox"), ["anna say: This one waits for you."]);
assert.deepEqual(await texts(left, "received"), ["ben say: It came across."]);

await left.locator("#disconnect").click();
await left.locator("#status.offline").waitFor();
await left.locator("#connect").click();
await left.locator("#status.online").waitFor();
assert.notEqual(await node(left), await node(right));
assert.ok(await page.locator("#alone").isHidden());
if (screenshot) await page.screenshot({ path: screenshot });

await page.setViewportSize({ width: 390, height: 780 });
const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
assert.ok(!wide, "the page is wider than a phone");
if (screenshot) await page.screenshot({ path: screenshot.replace(".png", "-phone.png") });
await browser.close();
console.log("ok");
