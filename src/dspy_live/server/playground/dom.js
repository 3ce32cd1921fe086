// Small helpers for the page.

/** An element with attributes and children; text is always text, never markup. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Show [[label, text], …] as a description list. */
export function describe(list, rows) {
  list.replaceChildren(...rows.map(([label, text]) => el("div", {}, el("dt", {}, label), el("dd", { title: text }, text))));
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
  return dollars === 0 ? "$0" : `$${dollars.toFixed(dollars < 0.01 ? 6 : 4)}`;
}
