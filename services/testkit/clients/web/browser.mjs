// A directory served on a free port, and a page of it in a headless Chromium.
//
// The first line printed is the page's origin: the gateway has to be told which origins browsers may call from.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";

const types = { ".html": "text/html", ".js": "text/javascript", ".json": "application/json" };

/** Calls `use` with a page that is not open yet, its origin, and a promise that fails when the page does. */
export async function browse(directory, files, use) {
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname));
    const file = files[path] ?? join(directory, path === "/" ? "index.html" : path);
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
    const broken = new Promise((_, reject) => {
      page.on("pageerror", reject);
      page.on("crash", () => reject(new Error("the page crashed")));
      page.on("console", (message) => message.type() === "error" && console.error(message.text()));
    });
    broken.catch(() => {});
    await use(page, origin, broken);
  } finally {
    await browser.close();
    server.close();
  }
}
