// Opens the example for browsers, and prints what it shows. Reads one line: what stands behind the # of its address.

import { createInterface } from "node:readline";
import { browse } from "./browser.mjs";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

await browse(process.argv[2], {}, async (page, origin, broken) => {
  const ended = new Promise((resolve) => page.exposeFunction("ended", resolve));
  await page.exposeFunction("shown", (line) => process.stdout.write(line));
  await page.addInitScript(() => {
    const look = (changes) => {
      for (const change of changes) {
        for (const node of change.addedNodes) {
          if (change.target.id === "happened") shown(node.textContent);
          if (change.target.nodeName === "TITLE" && ["done", "failed"].includes(document.title)) ended(document.title);
        }
      }
    };
    new MutationObserver(look).observe(document, { childList: true, subtree: true });
  });
  await page.goto(`${origin}/#${(await lines.next()).value}`);
  process.exitCode = (await Promise.race([ended, broken])) === "done" ? 0 : 1;
});
process.exit();
