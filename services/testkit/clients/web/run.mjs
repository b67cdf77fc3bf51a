// Serves the page, opens it in a headless Chromium, and passes lines between it and our own input and output.
//
// The first line printed is the page's origin: the gateway has to be told which origins browsers may call from.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { dirname, extname, join, normalize } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const types = { ".html": "text/html", ".js": "text/javascript", ".json": "application/json" };
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const server = createServer(async (request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
  const file = path === "/descriptors" ? process.env.FULCRUM_DESCRIPTORS : join(here, path === "/" ? "index.html" : path);
  try {
    const body = await readFile(file);
    response.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream" }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${server.address().port}`;
console.log(JSON.stringify({ origin }));

// Chromium's own sandbox does not work for root, nor in most containers; the page is our own.
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});
try {
  const page = await browser.newPage();
  const ended = new Promise((resolve, reject) => {
    page.on("pageerror", reject);
    page.on("crash", () => reject(new Error("the page crashed")));
    page.on("console", (message) => message.type() === "error" && console.error(message.text()));
    page.exposeFunction("failed", (text) => reject(new Error(text)));
    page.exposeFunction("heard", async () => JSON.parse((await lines.next()).value));
    page.exposeFunction("say", (line) => {
      console.log(JSON.stringify(line));
      if (line.done) resolve();
    });
  });
  ended.catch(() => {});
  await page.goto(origin);
  await ended;
} finally {
  await browser.close();
  server.close();
}
process.exit(0);
