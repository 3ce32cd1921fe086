// The API's documentation, drawn from /openapi.json.

import { getJson } from "./api.js";
import { byId, el } from "./dom.js";
import { askKey, withKey } from "./key.js";
import { setUpTheme } from "./theme.js";

function resolve(doc, schema) {
  while (schema?.$ref) schema = doc.components.schemas[schema.$ref.split("/").pop()];
  return schema ?? {};
}

function typeName(doc, schema) {
  if (schema?.$ref) return schema.$ref.split("/").pop();
  if (schema?.enum) return schema.enum.map((v) => JSON.stringify(v)).join(" | ");
  if (schema?.type === "array") return `${typeName(doc, schema.items)}[]`;
  if (schema?.anyOf) return schema.anyOf.map((s) => typeName(doc, s)).join(" | ");
  return [schema?.type ?? "any"].flat().join(" | ");
}

function fields(doc, schema) {
  const { properties = {}, required = [] } = resolve(doc, schema);
  const rows = Object.entries(properties).map(([name, each]) =>
    el(
      "tr",
      {},
      el("td", {}, name, required.includes(name) ? " *" : ""),
      el("td", {}, el("code", {}, typeName(doc, each))),
      el("td", { class: "dim" }, each.description ?? resolve(doc, each).description ?? ""),
    ),
  );
  return rows.length ? el("table", {}, ...rows) : "";
}

function curl(doc, method, path, body) {
  const base = new URL(doc.servers?.[0]?.url ?? "/", location.origin).href.replace(/\/$/, "");
  const lines = [`curl -X ${method.toUpperCase()} ${base}${path}`];
  if (doc.security) lines.push('-H "Authorization: Bearer $KEY"');
  if (body) lines.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(body).replaceAll("'", `'\\''`)}'`);
  return lines.join(" \\\n  ");
}

function operation(doc, method, path, op) {
  const inside = el("div", { class: "inside" });
  const add = (title, ...nodes) => inside.append(el("h3", {}, title), ...nodes);
  const media = op.requestBody?.content?.["application/json"];
  if (op.description) add("What it does", el("p", {}, op.description));
  if (op.parameters?.length) {
    const rows = op.parameters.map((p) =>
      el("tr", {}, el("td", {}, p.name), el("td", {}, p.in), el("td", { class: "dim" }, p.description ?? "")),
    );
    add("Parameters", el("table", {}, ...rows));
  }
  if (media && resolve(doc, media.schema).properties) add("Body", fields(doc, media.schema));
  for (const [code, reply] of Object.entries(op.responses)) {
    const schema = reply.content?.["application/json"]?.schema;
    if (code.startsWith("2")) add(`Reply ${code}`, el("p", {}, reply.description), schema ? fields(doc, schema) : "");
  }
  const errors = Object.entries(op.responses).filter(([code]) => !code.startsWith("2"));
  if (errors.length) {
    const rows = errors.map(([code, reply]) => el("tr", {}, el("td", {}, code), el("td", {}, reply.description)));
    add("Errors", el("table", {}, ...rows));
  }
  add("Example", el("pre", {}, curl(doc, method, path, media?.example)));
  const summary = el(
    "summary",
    {},
    el("span", { class: "method", "data-method": method }, method.toUpperCase()),
    el("span", { class: "path" }, path),
    el("span", { class: "dim" }, op.summary),
  );
  return el("details", { class: "operation" }, summary, inside);
}

function draw(doc) {
  document.title = byId("title").textContent = `${doc.info.title} API`;
  byId("about").textContent = doc.info.description ?? "";
  const groups = new Map();
  for (const [path, methods] of Object.entries(doc.paths)) {
    for (const [method, op] of Object.entries(methods)) {
      const tag = op.tags?.[0] ?? "";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(doc, method, path, op));
    }
  }
  const sections = [...groups].map(([tag, ops]) => el("section", {}, el("h2", {}, tag), ...ops));
  byId("operations").replaceChildren(...sections);
  document.querySelector("details.operation")?.setAttribute("open", "");
}

setUpTheme();
byId("key-button").addEventListener("click", () => askKey());
withKey(() => getJson("openapi.json")).then(draw, (error) => {
  byId("failure").textContent = error.message;
  byId("failure").hidden = false;
});
