// Cockpit's choice of a light or a dark style, which its shell keeps in the local storage of the browser and tells
// its own page by an event. The style sheet reads `data-style` of the root element.

const KEY = "shell:style";

export function followStyle() {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const apply = chosen => {
        const style = chosen || localStorage.getItem(KEY) || "auto";
        document.documentElement.dataset.style =
            style === "dark" || (style === "auto" && dark.matches) ? "dark" : "light";
    };
    addEventListener("storage", event => event.key === KEY && apply());
    addEventListener("cockpit-style", event => apply(event.detail?.style));
    dark.addEventListener("change", () => apply());
    apply();
}
