// Small helpers for the page.

/** An element with attributes and children; text is always text, never markup. An attribute that is false or null is left out. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null && child !== ""));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** A button that does `act` when it is pressed. `of` is what a screen reader adds to its label. */
export function button(label, act, attributes = {}, of = "") {
  const node = el("button", { type: "button", ...attributes }, label, of && el("span", { class: "visually-hidden" }, ` ${of}`));
  node.addEventListener("click", act);
  return node;
}

/** Tell the form around a control that its value has changed by other means than typing. */
export function changed(node) {
  node.dispatchEvent(new Event("input", { bubbles: true }));
}

/** Show [[label, text], …] as a description list. Rows that are there already keep their nodes, so that nothing jumps. */
export function describe(list, rows) {
  if (list.children.length !== rows.length) {
    list.replaceChildren(...rows.map(([label]) => el("div", {}, el("dt", {}, label), el("dd"))));
  }
  rows.forEach(([label, text], i) => {
    const [term, value] = list.children[i].children;
    list.children[i].toggleAttribute("data-none", text === "–");
    if (term.textContent !== label) term.textContent = label;
    if (value.textContent !== text) value.textContent = value.title = text;
  });
}

/** Say something to a screen reader and, for a moment, on a button. */
export function confirmOn(node, text) {
  const before = (node.dataset.label ??= node.firstChild.data);
  node.firstChild.data = byId("said").textContent = text;
  clearTimeout(node.confirmed);
  node.confirmed = setTimeout(() => (node.firstChild.data = before), 1500);
}

export function seconds(ms) {
  if (ms == null) return "–";
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

export function count(n) {
  return n == null ? "–" : n.toLocaleString("en");
}

export function money(dollars) {
  if (dollars === undefined) return "–";
  if (dollars === null) return "unknown";
  return dollars === 0 ? "$0" : `$${dollars < 0.01 ? Number(dollars.toPrecision(2)).toFixed(Math.max(4, 1 - Math.floor(Math.log10(dollars)))) : dollars.toFixed(4)}`;
}
