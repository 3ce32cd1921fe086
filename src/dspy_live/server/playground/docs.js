// The API's documentation, drawn from openapi.json.

import { getJson } from "./api.js";
import { findAgain, setUpFind } from "./docs_find.js";
import { operationNode } from "./docs_operation.js";
import { trySocket } from "./docs_socket.js";
import { byId, el } from "./dom.js";
import { askKey, withKey } from "./key.js";
import { inline } from "./markdown_inline.js";
import { schemaTree } from "./schema_tree.js";
import { hideStartProblem, showStartProblem } from "./start_problem.js";
import { setUpTheme } from "./theme.js";

function draw(doc) {
  document.title = byId("title").textContent = `${doc.info.title} API`;
  const first = Object.values(Object.values(doc.paths)[0] ?? {})[0];
  byId("about").textContent = doc.info.description === first?.description ? "" : (doc.info.description ?? "");
  const groups = grouped(doc);
  byId("operations").replaceChildren(...groups.map(([tag, nodes]) => section(tag, nodes)), sockets(doc));
  byId("contents").replaceChildren(...groups.map(([tag, nodes]) => entry(tag, nodes)), el("li", {}, el("a", { href: "#websockets" }, "WebSockets")));
  findAgain();
  openAsked();
  if (!document.querySelector("details.operation[open]")) document.querySelector("details.operation").open = true;
}

function grouped(doc) {
  const groups = new Map();
  for (const [path, methods] of Object.entries(doc.paths)) {
    for (const [method, op] of Object.entries(methods)) {
      const tag = op.tags?.[0] ?? "";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operationNode(doc, method, path, op));
    }
  }
  return [...groups];
}

const text = (node, part) => node.querySelector(part).textContent;
const named = (node) => [el("span", { class: "verb" }, `${text(node, ".method")} `), el("span", {}, ...breakable(text(node, ".path")))];
// A long path breaks before a slash, and not within a word.
const breakable = (path) => path.split(/(?=\/)/).flatMap((part) => [el("wbr"), part]);
const slug = (tag) => `group-${tag.replace(/\W+/g, "-")}`;
const section = (tag, nodes) => el("section", { "aria-labelledby": slug(tag) }, el("h2", { id: slug(tag) }, tag), ...nodes);

function entry(tag, nodes) {
  const links = nodes.map((node) => el("li", {}, el("a", { href: `#${node.id}` }, ...named(node))));
  return el("li", {}, el("a", { href: `#${slug(tag)}`, class: "group-link" }, tag), el("ul", {}, ...links));
}

function sockets(doc) {
  const all = Object.entries(doc["x-websockets"] ?? {});
  const [, about] = all[0];
  const paths = all.flatMap(([path], i) => [i ? ", " : "", el("code", {}, path)]);
  const inside = el(
    "div",
    { class: "inside" },
    el("p", {}, ...inline(about.description)),
    el("h3", {}, "Try it"),
    trySocket(all),
    el("h3", {}, "What you send"),
    ...schemaTree(doc, about.receives),
    el("h3", {}, "What you get"),
    ...schemaTree(doc, about.sends),
  );
  return el("section", { "aria-labelledby": "websockets" }, el("h2", { id: "websockets" }, "WebSockets"), el("p", { class: "paths" }, ...paths), el("div", { class: "operation" }, inside));
}

// A link to an operation opens it.
function openAsked() {
  const node = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (node?.matches("details")) node.open = true;
  node?.scrollIntoView();
}

async function load() {
  let doc;
  try {
    doc = await withKey(() => getJson("openapi.json"));
  } catch (error) {
    showStartProblem(error, load);
    return;
  }
  hideStartProblem();
  draw(doc);
}

byId("start-late").remove();
setUpTheme();
setUpFind();
byId("key-button").addEventListener("click", () => askKey());
addEventListener("hashchange", openAsked);
load();
