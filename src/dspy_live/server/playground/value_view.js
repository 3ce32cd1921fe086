// A value for people: text as Markdown, equal objects as a table, the rest as a tree that can be folded.

import { el } from "./dom.js";
import { codeBlock } from "./code_block.js";
import { markdown } from "./markdown.js";

const MOST_ROWS = 200;
const OPEN_DEPTH = 2;

/** Return the node of a JSON value. */
export function valueView(value) {
  if (typeof value === "string") return el("div", { class: "md" }, ...markdown(value));
  if (value === null || typeof value !== "object") return el("p", { class: "scalar" }, String(value));
  const special = specialView(value);
  if (special) return special;
  if (Array.isArray(value)) return arrayView(value);
  return el("div", { class: "tree" }, treeOf(value, 0));
}

function arrayView(values) {
  if (!values.length) return el("p", { class: "dim" }, "an empty list");
  if (values.every((each) => typeof each === "string")) {
    return el("ul", { class: "md values" }, ...shown(values).map((each) => el("li", {}, ...markdown(each))), more(values, "li"));
  }
  const columns = columnsOf(values);
  if (columns) return tableView(values, columns);
  return el("div", { class: "tree" }, treeOf(values, 0));
}

// The columns of objects that are alike and flat enough to be read across.
function columnsOf(values) {
  if (!values.every((each) => each?.constructor === Object)) return null;
  const columns = [...new Set(values.flatMap(Object.keys))];
  const cells = values.flatMap((row) => columns.map((name) => row[name]));
  const alike = values.every((row) => Object.keys(row).length >= columns.length / 2);
  return alike && columns.length && columns.length <= 8 && cells.every(isFlat) ? columns : null;
}

const isFlat = (value) => value === null || typeof value !== "object" || (Array.isArray(value) && value.every((each) => typeof each !== "object"));

function tableView(rows, columns) {
  const head = el("tr", {}, ...columns.map((name) => el("th", { scope: "col" }, name)));
  const body = shown(rows).map((row) => el("tr", {}, ...columns.map((name) => el("td", { "data-type": typeof row[name] }, cell(row[name])))));
  const table = el("table", {}, el("thead", {}, head), el("tbody", {}, ...body));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": `Table of ${rows.length} rows` }, table, more(rows, "p"));
}

const cell = (value) => (value == null ? "–" : Array.isArray(value) ? value.join(", ") : String(value));
const shown = (values) => values.slice(0, MOST_ROWS);
const more = (values, tag) => (values.length > MOST_ROWS ? el(tag, { class: "dim" }, `and ${values.length - MOST_ROWS} more`) : null);

/** A tree of a JSON value: names and values, deeper parts folded. */
export function treeOf(value, depth) {
  const entries = Array.isArray(value) ? shown(value).map((each, i) => [i, each]) : Object.entries(value);
  if (!entries.length) return el("span", { class: "dim" }, Array.isArray(value) ? "an empty list" : "an empty object");
  const list = el("ul", {}, ...entries.map(([key, each]) => el("li", {}, ...branch(key, each, depth))));
  if (Array.isArray(value) && value.length > MOST_ROWS) list.append(more(value, "li"));
  return list;
}

function branch(key, value, depth) {
  const name = el("span", { class: "key" }, String(key));
  if (value === null || typeof value !== "object") return [name, ": ", leaf(value)];
  const size = Array.isArray(value) ? `[${value.length}]` : `{${Object.keys(value).length}}`;
  const summary = el("summary", {}, name, " ", el("span", { class: "dim" }, size));
  const node = el("details", { open: depth < OPEN_DEPTH }, summary);
  const fill = () => node.childElementCount === 1 && node.append(treeOf(value, depth + 1));
  if (depth < OPEN_DEPTH) fill();
  else node.addEventListener("toggle", fill); // deep parts are made when somebody looks
  return [node];
}

const leaf = (value) => el("span", { class: "leaf", "data-type": value === null ? "null" : typeof value }, value === null ? "null" : String(value));

// DSPy's own types among the outputs.
function specialView(value) {
  const keys = Object.keys(value).sort().join();
  if (keys === "url" && /^data:image\//.test(value.url)) return el("img", { src: value.url, alt: "The image that was made", class: "made" });
  if (keys === "code" && typeof value.code === "string") return codeBlock(value.code);
  if (keys === "audio_format,data") {
    return el("audio", { controls: true, src: `data:audio/${value.audio_format};base64,${value.data}`, "aria-label": "The sound that was made" });
  }
  return null;
}

/** The value as text, for the clipboard and for those who want to see it as it is. */
export function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
