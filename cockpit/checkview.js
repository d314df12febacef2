// The answer to `zmsvcctl check`: each fault and warning with the line of the file, and the text of that line.
import { element } from "./dom.js";

/** Draw the first file of an answer; `sources` is a Map from files to their lines, as far as they could be read. */
export function drawCheck(host, answer, sources) {
    const { ok, tasks, problems, wiring, access } = answer.files[0];
    const faults = problems.filter(each => each.severity === "error").length;
    const warnings = problems.length - faults;
    const summary = ok
        ? `No fault, ${counted(warnings, "warning")}; ${counted(tasks, "task")}.`
        : `${counted(faults, "fault")}, ${counted(warnings, "warning")}.`;
    host.replaceChildren(
        element("p", { class: ok ? "good" : "bad" }, summary),
        element("ul", { class: "plain-list problems" }, ...problems.map(each => problem(each, sources))),
        ...(wiring.length ? [element("h3", {}, "Messages"), list(wiring)] : []),
        ...(access.length ? [element("h3", {}, "Who may do what"), list(access)] : []),
    );
}

function counted(count, word) {
    return `${count} ${word}${count === 1 ? "" : "s"}`;
}

function list(texts) {
    return element("ul", { class: "plain-list" }, ...texts.map(each => element("li", {}, each)));
}

function problem({ severity, file, line, text }, sources) {
    const source = line ? sources.get(file)?.[line - 1] : undefined;
    return element(
        "li",
        { class: severity === "error" ? "bad" : "warn" },
        element("strong", {}, `${severity === "error" ? "Fault" : "Warning"}, ${line ? `line ${line}` : file}: `),
        text,
        source === undefined
            ? null
            : element("pre", { class: "source" }, element("span", { class: "time" }, `${line}  `), source),
    );
}
