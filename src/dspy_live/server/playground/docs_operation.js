// One operation of the documentation: what it takes, what it gives, how it fails, and a form to try it.

import { el } from "./dom.js";
import { tryIt } from "./docs_try.js";
import { inline } from "./markdown_inline.js";
import { schemaTree, typeOf } from "./schema_tree.js";

/** Return the node of an operation; its inside is made when it is opened. */
export function operationNode(doc, method, path, op) {
  const summary = el(
    "summary",
    {},
    el("span", { class: "method", "data-method": method }, method.toUpperCase()),
    el("span", { class: "path" }, path),
    el("span", { class: "dim" }, op.summary),
  );
  const words = [method, path, op.summary, op.description, ...(op.tags ?? [])].join(" ").toLowerCase();
  const node = el("details", { class: "operation", id: op.operationId, "data-words": words }, summary);
  node.addEventListener("toggle", () => {
    if (node.open && node.childElementCount === 1) node.append(inside(doc, method, path, op));
  });
  return node;
}

function inside(doc, method, path, op) {
  const place = el("div", { class: "inside" });
  const add = (title, ...nodes) => place.append(el("h3", {}, title), ...nodes);
  if (op.description) place.append(el("p", { class: "op-text" }, op.description));
  add("Try it", tryIt(method, path, op));
  const media = op.requestBody?.content?.["application/json"];
  if (media) add("Body", el("p", { class: "type" }, typeOf(doc, media.schema)), ...schemaTree(doc, media.schema));
  if (op.parameters?.length) add("Parameters", parameters(doc, op.parameters));
  const codes = Object.entries(op.responses);
  for (const [code, reply] of codes.filter(([code]) => code < "400")) add(`Reply ${code}`, ...replyNodes(doc, reply));
  const errors = codes.filter(([code]) => code >= "400");
  if (errors.length) add("Errors", errorTable(doc, errors));
  return place;
}

function parameters(doc, all) {
  const rows = all.map(({ name, in: where, schema, description, required }) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("code", {}, name)),
      el("td", {}, `${where}${required ? ", required" : ""}`),
      el("td", {}, typeOf(doc, schema)),
      el("td", { class: "dim" }, ...inline(description ?? "")),
    ),
  );
  return table(["Name", "Where", "Type", "What it is"], rows);
}

function replyNodes(doc, reply) {
  const nodes = [el("p", {}, ...inline(reply.description))];
  for (const [kind, media] of Object.entries(reply.content ?? {})) {
    const schema = media["x-item-schema"] ?? media.schema;
    const events = media["x-item-schema"] ? ", one of these at a time" : "";
    nodes.push(el("p", { class: "media" }, el("code", {}, kind), events), ...schemaTree(doc, schema));
  }
  const headers = Object.entries(reply.headers ?? {}).map(([name, { description }]) => el("li", {}, el("code", {}, name), ` ${description}`));
  if (headers.length) nodes.push(el("p", { class: "media" }, "Headers"), el("ul", {}, ...headers));
  return nodes;
}

// The types of error that a status may have stand in its schema.
function errorTable(doc, errors) {
  const rows = errors.map(([code, reply]) => {
    const schema = reply.content?.["application/json"]?.schema;
    const named = doc.components.schemas[schema?.$ref?.split("/").pop()];
    const types = named?.allOf?.[1]?.properties.error.properties.type.enum ?? [];
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, code),
      el("td", {}, ...inline(reply.description)),
      el("td", {}, ...types.flatMap((type, i) => [i ? ", " : "", el("code", {}, type)])),
    );
  });
  const shape = errors[0][1].content?.["application/json"]?.schema;
  const common = shape?.$ref?.endsWith("ChatError") || shape?.$ref?.endsWith("RpcError") ? shape : { $ref: "#/components/schemas/Error" };
  const body = el("details", { class: "shape" }, el("summary", {}, "The body of an error"), ...schemaTree(doc, common));
  return el("div", {}, table(["Status", "When", "error.type"], rows), body);
}

/** A table that can be scrolled by the keyboard where it is wider than the page. */
export function table(head, rows) {
  const titles = el("tr", {}, ...head.map((each) => el("th", { scope: "col" }, each)));
  const node = el("table", {}, el("thead", {}, titles), el("tbody", {}, ...rows));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": head.join(", ") }, node);
}
