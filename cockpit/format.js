// Texts for people: times, sizes, ends of tasks, details of events. Pure.

const UNITS = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
];

/** Return a time span of so many seconds in its largest unit: `5 s`, `3 min`, `2 h`, `4 d`. */
export function span(seconds) {
    for (const [size, unit] of UNITS) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
    return "0 s";
}

/** Return the time since `at` (RFC 3339) as a span; empty if there is no time. `now` is in milliseconds. */
export function age(at, now) {
    const began = at ? Date.parse(at) : NaN;
    return Number.isNaN(began) ? "" : span(Math.max(0, now - began) / 1000);
}

/** Return the time of day in the zone of the reader: `14:03:07.250`, with the date if that is not today's. */
export function clock(at, now) {
    const moment = new Date(at);
    if (Number.isNaN(moment.getTime())) return "";
    const two = number => String(number).padStart(2, "0");
    const time = [moment.getHours(), moment.getMinutes(), moment.getSeconds()].map(two).join(":");
    const milliseconds = String(moment.getMilliseconds()).padStart(3, "0");
    const today = new Date(now).toDateString() === moment.toDateString();
    const date = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())} `;
    return `${today ? "" : date}${time}.${milliseconds}`;
}

/** Return a size: `812 B`, `1.6 MiB`; empty if it is unknown. */
export function bytes(count) {
    if (typeof count !== "number") return "";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = 0;
    while (count >= 1024 && power < units.length - 1) {
        count /= 1024;
        power += 1;
    }
    return `${power === 0 ? count : count.toFixed(1)} ${units[power]}`;
}

/** Return a share of one CPU: `3.2 %`; empty if it is unknown. */
export function percent(share) {
    return typeof share === "number" ? `${(share * 100).toFixed(1)} %` : "";
}

/** Return a state with its sub-state, which is left out if it says the same: `active (running)`, `failed`. */
export function stateText(state, sub) {
    return sub && sub !== state ? `${state} (${sub})` : String(state ?? "unknown");
}

/** Return the last end of a task: `signal, SIGKILL`, `exit-code, status 3`; empty before the first one. */
export function endText(exit) {
    if (!exit) return "";
    if (exit.signal) return `${exit.reason}, ${exit.signal}`;
    return typeof exit.code === "number" ? `${exit.reason}, status ${exit.code}` : String(exit.reason);
}

/** Return the details of an event as `zmsvcctl events` does: `reason=exited pid=12`, the cause in short form. */
export function detailText(detail) {
    if (!isObject(detail)) return "";
    const words = [];
    for (const [name, value] of Object.entries(detail))
        if (name !== "cause" && !isEmpty(value)) words.push(`${name}=${valueText(value)}`);
    const cause = isObject(detail.cause) ? detail.cause : {};
    for (const name of ["by", "uid"])
        if (cause[name] !== null && cause[name] !== undefined) words.push(`${name}=${cause[name]}`);
    const sources = Array.isArray(cause.sources) ? cause.sources.filter(isObject) : [];
    if (sources.length) words.push(`after=${sources.map(each => `${each.task}:${each.trigger}`).join(",")}`);
    return words.join(" ");
}

function isObject(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isEmpty(value) {
    return (
        value === false ||
        value === null ||
        value === undefined ||
        value === "" ||
        (Array.isArray(value) && !value.length) ||
        (isObject(value) && !Object.keys(value).length)
    );
}

function valueText(value) {
    if (value === true) return "yes";
    if (Array.isArray(value)) return value.map(valueText).join(",");
    if (!isObject(value)) return String(value);
    if ("pid" in value) {
        const end = value.signal || (value.code ?? "");
        return `${value.name}(${value.pid})${end === "" ? "" : `:${end}`}`;
    }
    return Object.entries(value)
        .map(([name, each]) => `${name}:${valueText(each)}`)
        .join(",");
}
