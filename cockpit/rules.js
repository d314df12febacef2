// The rules of a context by the words with which events name them. Pure.
import { base } from "./states.js";

/** Return a Map from `SOURCE:WORDS` to the IDs of rules. An event `rule` has SOURCE in `source` and WORDS in `rule`.
 * Rules that differ in the ends they are about alone have the same words. */
export function ruleIndex(rules) {
    const found = new Map();
    for (const rule of rules) {
        const tail = rule.only ? `:${rule.only}` : "";
        const key = tail && rule.id.endsWith(tail) ? rule.id.slice(0, -tail.length) : rule.id;
        found.set(key, [...(found.get(key) ?? []), rule.id]);
    }
    return found;
}

/** Return the IDs of the rules that an event tells of; none for an event of another kind. */
export function firedRules(index, event) {
    if (event.event !== "rule" && event.event !== "rule-refused") return [];
    const { source = "", rule = "" } = event.detail ?? {};
    // TRIGGER:ACTION:TARGET with conditions behind a blank; the target may be a replica.
    const words = String(rule).replace(/^([^:]*:[^:]*:[^: ]*?)@\d+(?= |$)/, "$1");
    return index.get(`${base(String(source))}:${words}`) ?? index.get(`:${words}`) ?? [];
}

/** Return a rule as a sentence: `on_fail: restart api (when watchdog, after 3 in 60s)`. */
export function ruleText(rule) {
    const conditions = [
        ...(rule.only ? [rule.only] : []),
        ...(rule.when ? [`when ${rule.when}`] : []),
        ...(rule.after ? [`after ${rule.after}`] : []),
    ];
    return `${rule.trigger}: ${rule.action} ${rule.target}${conditions.length ? ` (${conditions.join(", ")})` : ""}`;
}
