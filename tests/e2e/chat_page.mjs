// Two people on the real page, in headless Chromium: online, away and back, nothing twice.
//     node chat_page.mjs URL CHROMIUM [SCREENSHOT]
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

async function login(name) {
  const context = await browser.newContext({ viewport: { width: 900, height: 640 } });
  const page = await context.newPage();
  page.on("pageerror", (error) => assert.fail(`the page of ${name}: ${error}`));
  page.on("requestfailed", (request) => assert.fail(`${request.url()}: ${request.failure().errorText}`));
  page.on("request", (request) => assert.ok(request.url().startsWith(url) || request.url().startsWith("data:"), `asset from elsewhere: ${request.url()}`));
  await page.goto(url);
  await page.fill("#username", name);
  await page.click("#login");
  await page.waitForSelector("#status.online");
  return page;
}

async function send(page, to, text) {
  const before = await page.locator("#log .sent").count();
  await page.fill("#receiver", to);
  await page.fill("#message", text);
  await page.click("#send");
  await page.waitForFunction((n) => [...document.querySelectorAll("#log .sent .meta")][n]?.textContent.includes("stored"), before);
}

const texts = (page, kind) => page.locator(`#log .${kind}`).evaluateAll((lines) => lines.map((line) => line.firstChild.textContent));

const anna = await login("anna");
let ben = await login("ben");
await send(anna, "ben", "Hello Ben, are you there?");
await ben.waitForSelector("#log .received");
assert.deepEqual(await texts(ben, "received"), ["anna say: Hello Ben, are you there?"]);
await send(ben, "anna", "Yes! Give me a minute.");
await anna.waitForSelector("#log .received");
assert.deepEqual(await texts(anna, "received"), ["ben say: Yes! Give me a minute."]);

await ben.click("#disconnect");
await ben.waitForSelector("#status.offline");
await send(anna, "ben", "This one waits for you.");
await send(anna, "ben", "<b>and</b> so does this one & that’s all");
await ben.context().close();

ben = await login("ben");
await ben.waitForFunction(() => document.querySelectorAll("#log .mailbox").length >= 2);
await send(anna, "ben", "Welcome back!");
await ben.waitForSelector("#log .received");
assert.deepEqual(await texts(ben, "mailbox"), ["anna say: This one waits for you.", "anna say: <b>and</b> so does this one & that’s all"]);
assert.deepEqual(await texts(ben, "received"), ["anna say: Welcome back!"]);
if (screenshot) await ben.screenshot({ path: screenshot });

// Once more: everything was confirmed, nothing comes again.
await ben.waitForTimeout(300);
await ben.reload();
await ben.waitForSelector("#status.online");
await send(anna, "ben", "the last one");
await ben.waitForSelector("#log .received");
assert.deepEqual(await texts(ben, "mailbox"), []);
assert.deepEqual(await texts(ben, "received"), ["anna say: the last one"]);

const phone = await browser.newContext({ viewport: { width: 390, height: 780 } });
const small = await phone.newPage();
await small.goto(url);
await small.fill("#username", "carla");
await small.click("#login");
await small.waitForSelector("#status.online");
const wide = await small.evaluate(() => document.documentElement.scrollWidth > innerWidth);
assert.ok(!wide, "the page is wider than a phone");
if (screenshot) await small.screenshot({ path: screenshot.replace(".png", "-phone.png") });
await browser.close();
console.log("ok");
