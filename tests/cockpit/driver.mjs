// Runs steps in a headless Chromium for tests/cockpit/browser.py. Each line of the input is {"code", "args"}: the body
// of an asynchronous function of `browser`, `session`, `page`, `frame` and `args`. Each line of the output is
// {"value"} or {"error"}. The last line of the input closes the browser.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(new URL("../../cockpit/", import.meta.url));
const { chromium } = require("playwright-core");
const [executablePath] = process.argv.slice(2);
// Chromium's own sandbox does not work for root.
const browser = await chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const sessions = new Map();

/** Return the page of a session; its errors are kept for the test. */
async function pageOf(name) {
    if (!sessions.has(name)) {
        const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
        const page = await context.newPage();
        const errors = [];
        page.on("pageerror", error => errors.push(String(error)));
        page.on("console", message => {
            // Pages of Cockpit itself lack a font.
            const ours = message.location().url.includes("/zmsvc/");
            if (message.type() === "error" && ours) errors.push(`${message.text()} ${message.location().url}`);
        });
        sessions.set(name, { page, errors });
    }
    return sessions.get(name);
}

const AsyncFunction = (async () => {}).constructor;
process.stdout.write(`${JSON.stringify({ value: browser.version() })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
    const { session, code, args } = JSON.parse(line);
    let answer;
    try {
        const { page, errors } = await pageOf(session);
        const frame = page.frames().find(each => each.url().includes("/zmsvc/index.html")) ?? null;
        const value = await new AsyncFunction("page", "frame", "errors", "args", code)(page, frame, errors, args);
        answer = { value: value ?? null };
    } catch (error) {
        answer = { error: String(error.stack ?? error) };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
