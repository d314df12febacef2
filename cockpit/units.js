// The contexts of the system that systemd knows, and their changes, over D-Bus as the user who is logged in. Only
// reading: any user may do that.

const SYSTEMD = "org.freedesktop.systemd1";
const PATH = "/org/freedesktop/systemd1";
const MANAGER = `${SYSTEMD}.Manager`;
const UNIT = /^zmsvc@(.+)\.service$/;
/** The directory of the context files of the system, where the unit looks for them. */
export const FILES = "/etc/zmsvc";
const FILE = /^Context-([A-Za-z0-9_][A-Za-z0-9_.:-]{0,63})\.xml$/;

/** Return the name of the context of a unit; null for any other unit. */
export function contextOf(unit) {
    return UNIT.exec(unit)?.[1] ?? null;
}

/** Return the name of the context of a file in FILES; null for any other file. */
export function contextOfFile(file) {
    return FILE.exec(file)?.[1] ?? null;
}

export class Units {
    #client = cockpit.dbus(SYSTEMD, { bus: "system" });
    #watched = new Set();
    #changed;

    /** `changed()` is called when a unit of a context has been started or stopped, or changes its state. */
    constructor(changed) {
        this.#changed = changed;
        this.#client.subscribe(
            { path: PATH, interface: MANAGER, member: "JobRemoved" },
            (_path, _interface, _member, [, , unit]) => contextOf(unit) && changed(),
        );
        // Without this call systemd sends no signals.
        this.#client.call(PATH, MANAGER, "Subscribe", []).catch(() => {});
    }

    /** Return the state of each unit of a context that systemd has loaded, by the name of the context. */
    async states() {
        const found = new Map();
        const [units] = await this.#client.call(PATH, MANAGER, "ListUnitsByPatterns", [[], ["zmsvc@*.service"]]);
        for (const [unit, , , state, sub, , path] of units) {
            const name = contextOf(unit);
            if (!name) continue;
            found.set(name, { state, sub });
            this.#watch(path);
        }
        return found;
    }

    #watch(path) {
        if (this.#watched.has(path)) return;
        this.#watched.add(path);
        this.#client.subscribe(
            { path, interface: "org.freedesktop.DBus.Properties", member: "PropertiesChanged" },
            (_path, _interface, _member, [, properties]) => "ActiveState" in properties && this.#changed(),
        );
    }
}

/** Return the names of the contexts with a file in FILES, as far as this user may see them. */
export function fileNames() {
    return new Promise(resolve => {
        const found = [];
        const channel = cockpit.channel({ payload: "fslist1", path: FILES, watch: false });
        channel.addEventListener("message", (_event, text) => {
            const { event, path } = JSON.parse(text);
            const name = event === "present" ? contextOfFile(String(path)) : null;
            if (name) found.push(name);
        });
        channel.addEventListener("close", () => resolve(found.sort()));
    });
}
