// Calls of zmsvcctl as the user who is logged in. Arguments are arrays, so no shell reads them; what begins with a
// dash without being an option stands behind `--` or `=`.
import { Lines } from "./lines.js";

/** An order or a question that zmsvcctl refuses. The message is its reason, `code` its exit status. */
export class Refused extends Error {
    constructor(message, code) {
        super(message);
        this.code = code;
    }
}

// SIGTERM at the end of the page is what ends a stream.
const OPTIONS = { err: "message" };

/**
 * Return the document that `zmsvcctl --json ARGUMENTS` prints. `fine` are the exit statuses of a good answer: that of
 * `status` is 3 if something is not active. Throws Refused.
 */
export function ask(args, fine = [0]) {
    return new Promise((resolve, reject) => {
        const settle = (text, error) => {
            let answer = null;
            try {
                answer = JSON.parse(text);
            } catch {
                // No answer, or a half one: the error says why.
            }
            const code = error ? error.exit_status : 0;
            if (answer && fine.includes(code) && answer.error === undefined) resolve(answer);
            else reject(new Refused(reason(error, answer), code));
        };
        cockpit.spawn(["zmsvcctl", "--json", ...args], OPTIONS).then(
            text => settle(text, null),
            (error, text) => settle(text ?? "", error),
        );
    });
}

/** Return why a call has failed: the words of zmsvcctl, or those of Cockpit if zmsvcctl said nothing. */
function reason(error, answer) {
    if (typeof answer?.error === "string") return answer.error;
    if (error?.problem === "not-found")
        return "cannot ask zmsvcctl: it is not installed, or not in the PATH of this session";
    const told = String(error?.message ?? "").trim();
    return told.replace(/^zmsvcctl: /, "") || "cannot understand zmsvcctl: its answer is not JSON";
}

/**
 * Follow the lines of JSON that `zmsvcctl --json ARGUMENTS` prints: `onDocuments` gets those of each chunk, `onEnd` the
 * reason of the end. Return a function that ends it, after which neither is called.
 */
export function follow(args, onDocuments, onEnd) {
    const lines = new Lines();
    const process = cockpit.spawn(["zmsvcctl", "--json", ...args], OPTIONS);
    let wanted = true;
    process.stream(chunk => {
        const documents = lines
            .push(chunk)
            .map(parsed)
            .filter(each => each !== null);
        if (wanted && documents.length) onDocuments(documents);
    });
    const ended = error => wanted && onEnd(error ? reason(error, null) : "");
    process.then(() => ended(null), ended);
    return () => {
        wanted = false;
        process.close("terminated");
    };
}

function parsed(line) {
    try {
        const found = JSON.parse(line);
        return typeof found === "object" ? found : null;
    } catch {
        return null;
    }
}

// --- the calls of the page

export const contexts = () => ask(["list"]);
export const status = name => ask(["-c", name, "status"], [0, 3]);
export const graph = what => ask(["graph", "--", what]);
export const check = file => ask(["check", "--", file], [0, 2]);
export const why = (name, transaction, task) =>
    ask(["-c", name, "why", `--transaction=${transaction}`, "--", task]);
export const events = (name, count, onEvents, onEnd) =>
    follow(["-c", name, "events", "-f", "-n", String(count)], onEvents, onEnd);

/** Return the last entries of the log of a task, as the journal has them. */
export function logs(name, transaction, task, count) {
    const found = [];
    return new Promise((resolve, reject) => {
        follow(
            ["-c", name, "logs", "-n", String(count), `--transaction=${transaction}`, "--", task],
            entries => found.push(...entries),
            error => (error && !found.length ? reject(new Refused(error, null)) : resolve(found)),
        );
    });
}

/** Give an order to a task, or to a whole transaction if `task` is null; to a new one if `transaction` is null, too. */
export function order(name, verb, transaction, task, more = []) {
    const whole = transaction === null ? [] : [`--transaction=${transaction}`];
    return ask(["-c", name, verb, ...whole, "--", ...more, ...(task === null ? [] : [task])]);
}
