// The upper part of the page: the contexts, and of the chosen one its transactions, their orders and what is wrong.
import { byId, element, setAttribute, setChildren, setText } from "./dom.js";
import { age } from "./format.js";
import { ICONS } from "./graphview.js";
import { counts, isOpen } from "./states.js";
import { stateOf } from "./contexts.js";

/** Draw a button for each context; `open(name)` is called when a user presses it. */
export function drawContexts(all, chosen, open) {
    const host = byId("contexts");
    const old = new Map([...host.children].map(each => [each.getAttribute("data-context"), each]));
    const rows = [...all.values()].map(context => {
        const root = old.get(context.name) ?? pill(context.name, open);
        const [button] = root.children;
        const state = stateOf(context);
        setAttribute(button, "class", state);
        setAttribute(button, "aria-current", context.name === chosen ? "page" : null);
        setText(button.children[0], ICONS[state] ?? "?");
        setText(button.children[2], `, ${state}`);
        return root;
    });
    setChildren(host, rows);
}

function pill(name, open) {
    const icon = element("span", { class: "icon", "aria-hidden": "true" });
    const state = element("span", { class: "hidden" });
    const parts = [icon, " ", element("span", {}, name), state];
    return element(
        "li",
        { "data-context": name },
        element("button", { type: "button", on: { click: () => open(name) } }, ...parts),
    );
}

/** Draw the numbers of tasks and the transactions of a context; `order(verb)` is called when a button is pressed. */
export function drawOverview(context, busy, order, now) {
    const run = context.transactions.get(context.run);
    setText(byId("overview-title"), context.name);
    setChildren(
        byId("counts"),
        [...counts(run?.tasks ?? new Map())].map(([state, count]) => badge(state, count)),
    );
    const select = byId("transaction");
    const old = new Map([...select.options].map(each => [each.value, each]));
    const options = [...context.transactions.values()].reverse().map(each => {
        const option = old.get(each.id) ?? element("option", { value: each.id });
        setText(option, `${each.id} – ${each.state}${each.opened ? `, opened ${age(each.opened, now)} ago` : ""}`);
        return option;
    });
    setChildren(select, options);
    if (context.run && select.value !== context.run) select.value = context.run;
    setAttribute(byId("run"), "hidden", !context.runs);
    drawOrders(run, busy, order);
}

function badge(state, count) {
    const id = `count-${state}`;
    const found = byId(id) ?? element("li", { id, class: `badge ${state}` });
    setText(found, `${ICONS[state] ?? "?"} ${count} ${state}`);
    return found;
}

const SECOND = "A second copy of each task, beside the present one";

function drawOrders(run, busy, order) {
    const open = [
        ["stop", "Stop all"],
        ["restart", "Restart all"],
        ["new", "Start another transaction"],
    ];
    const stopped = [
        ["start", "Start again"],
        ["new", "Start a new transaction"],
    ];
    const wanted = !run ? [["new", "Start a transaction"]] : isOpen(run) ? open : stopped;
    const host = byId("run-buttons");
    const old = new Map([...host.children].map(each => [each.getAttribute("data-order"), each]));
    const buttons = wanted.map(([verb, title]) => {
        const made = () =>
            element("button", { type: "button", "data-order": verb, on: { click: () => order(verb) } });
        const button = old.get(verb) ?? made();
        setText(button, title);
        setAttribute(button, "title", verb === "new" && run && isOpen(run) ? SECOND : null);
        // An element that is disabled loses the focus.
        setAttribute(button, "aria-disabled", busy !== null ? "true" : null);
        return button;
    });
    setChildren(host, buttons);
}

/** Draw what a user should know of a context; `jump()` is called to show its unit. `known` is from the list. */
export function drawNotices(context, known, jump) {
    const host = byId("notices");
    const notices = noticesOf(context, known);
    const key = JSON.stringify(notices);
    if (host.getAttribute("data-key") === key) return;
    setAttribute(host, "data-key", key);
    const button = () =>
        element("button", { type: "button", class: "link", on: { click: jump } }, "Open it in Services");
    const rows = notices.map(([text, unit]) =>
        element("div", { class: "alert warn" }, element("span", {}, text), unit ? button() : null),
    );
    host.replaceChildren(...rows);
}

/** Return the notices: each a text, and true if it is about the unit. */
export function noticesOf(context, known) {
    const { name, status } = context;
    const notices = [];
    if (known && !known.listens) {
        const why = known.unit === "failed" ? ": its unit has failed" : "";
        notices.push([
            `${name} does not run${why}. An administrator starts its unit, zmsvc@${name}.service.`,
            true,
        ]);
    } else if (context.problem) notices.push([context.problem, false]);
    if (context.graphError && status) notices.push([`The rules are unknown: ${context.graphError}`, false]);
    if (status?.unsaved) notices.push([`The state cannot be saved: ${status.unsaved}`, false]);
    if (status?.need_reload) {
        const command = `zmsvcctl -c ${name} reload`;
        notices.push([
            `The context file has changed and is not reloaded (${command}, as root or the user of the daemon).`,
            false,
        ]);
    }
    if (status?.restart_needed)
        notices.push([
            `${status.version} is installed, and ${status.keeper_version} runs. A restart of the context renews it.`,
            false,
        ]);
    return notices;
}
