// Elements of the page. Whatever zmsvc tells becomes a text node or an attribute here, and never HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Return an element with attributes and children; a child that is not a node becomes text. An attribute of null or
 * false is left out, one of true is empty. `on` has listeners by the names of their events.
 */
export function element(name, attributes = {}, ...children) {
    return filled(document.createElement(name), attributes, children);
}

/** Return an element of SVG, as `element` does. */
export function svg(name, attributes = {}, ...children) {
    return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
    const { on = {}, ...others } = attributes;
    for (const [name, value] of Object.entries(others)) setAttribute(made, name, value);
    for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
    made.append(...children.filter(each => each !== null && each !== undefined));
    return made;
}

/** Set an attribute if it differs; null and false remove it. */
export function setAttribute(node, name, value) {
    if (value === null || value === undefined || value === false) {
        if (node.hasAttribute(name)) node.removeAttribute(name);
    } else {
        const text = value === true ? "" : String(value);
        if (node.getAttribute(name) !== text) node.setAttribute(name, text);
    }
}

/** Set the text of an element if it differs, so that the browser draws only what changes. */
export function setText(node, text) {
    if (node.textContent !== text) node.textContent = text;
}

/** Make the children of `parent` those of `wanted` in this order. Those that are there already are not moved. */
export function setChildren(parent, wanted) {
    const kept = new Set(wanted);
    for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
    let here = parent.firstElementChild;
    for (const child of wanted) {
        if (child === here) here = here.nextElementSibling;
        else parent.insertBefore(child, here);
    }
}

/** Return the element of the page with this ID. */
export function byId(id) {
    return document.getElementById(id);
}
