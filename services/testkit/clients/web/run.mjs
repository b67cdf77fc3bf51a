// Opens the page of the day, and passes lines between it and our own input and output.

import { dirname } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { browse } from "./browser.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

await browse(here, { "/descriptors": process.env.FULCRUM_DESCRIPTORS }, async (page, origin, broken) => {
  const ended = new Promise((resolve, reject) => {
    page.exposeFunction("failed", (text) => reject(new Error(text)));
    page.exposeFunction("heard", async () => JSON.parse((await lines.next()).value));
    page.exposeFunction("say", (line) => {
      console.log(JSON.stringify(line));
      if (line.done) resolve();
    });
  });
  ended.catch(() => {});
  await page.goto(origin);
  await Promise.race([ended, broken]);
});
process.exit(0);
