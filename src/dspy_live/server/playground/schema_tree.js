// A JSON Schema for people: every member with its type, its description and what is allowed, nested as deep as it goes.

import { el } from "./dom.js";
import { inline } from "./markdown_inline.js";

const DEPTH = 8;

/** Return the nodes of a schema of the document. */
export function schemaTree(doc, schema, above = []) {
  const { found, names } = follow(doc, schema);
  if (names.some((name) => above.includes(name)) || above.length > DEPTH) return [];
  const inner = [...above, ...names];
  if (found.properties) return [members(doc, found, inner)];
  if (found.type === "array" && found.items) return schemaTree(doc, found.items, inner);
  if (found.additionalProperties?.constructor === Object) return schemaTree(doc, found.additionalProperties, inner);
  const several = (found.oneOf ?? found.anyOf ?? []).filter((each) => each.type !== "null");
  return several.flatMap((each) => variant(doc, each, inner, several.length > 1));
}

/** The name of a schema's type: "City", "list of int", "text or null". */
export function typeOf(doc, schema = {}) {
  if (schema.$ref) return namedOf(schema.$ref);
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  const several = schema.anyOf ?? schema.oneOf;
  if (several) return several.map((each) => typeOf(doc, each)).join(" or ");
  if (schema.allOf) return typeOf(doc, schema.allOf[0]);
  if (schema.type === "array") return `list of ${schema.prefixItems ? "fixed length" : typeOf(doc, schema.items)}`;
  return [schema.type ?? "any"].flat().join(" or ");
}

const namedOf = ($ref) => $ref.split("/").pop();

// The schema behind references, with the members of all that it is put together from, and the names that led there.
function follow(doc, schema) {
  const names = [];
  let found = schema ?? {};
  while (found.$ref && names.length < 20) {
    names.push(namedOf(found.$ref));
    found = doc.components.schemas[names.at(-1)] ?? {};
  }
  if (found.allOf) {
    const parts = found.allOf.map((part) => follow(doc, part).found);
    found = parts.reduce(merged, { ...found, allOf: undefined });
  }
  return { found, names };
}

function merged(a, b) {
  const both = { ...a, ...b };
  if (a.properties && b.properties) {
    both.properties = { ...a.properties };
    for (const [name, each] of Object.entries(b.properties)) {
      both.properties[name] = name in a.properties ? merged(a.properties[name], each) : each;
    }
  }
  both.required = [...new Set([...(a.required ?? []), ...(b.required ?? [])])];
  return both;
}

function members(doc, { properties, required = [], additionalProperties }, above) {
  const rows = Object.entries(properties).map(([name, schema]) => member(doc, name, schema, required.includes(name), above));
  if (additionalProperties === true) rows.push(el("li", { class: "dim" }, "and whatever else there is"));
  return el("ul", { class: "members" }, ...rows);
}

function member(doc, name, schema, required, above) {
  const { found } = follow(doc, schema);
  const text = schema.description ?? found.description;
  const head = el(
    "p",
    { class: "member" },
    el("code", { class: "member-name" }, name),
    el("span", { class: "type" }, typeOf(doc, schema)),
    required ? el("span", { class: "required" }, "required") : null,
    ...[...choices(schema, found), ...limits({ ...found, ...schema })].map((words) => el("span", { class: "limit" }, words)),
  );
  const about = text ? el("p", { class: "dim member-text" }, ...inline(text.split("\n\n")[0])) : null;
  return el("li", {}, head, about, ...schemaTree(doc, schema, above));
}

function variant(doc, schema, above, several) {
  const { found } = follow(doc, schema);
  const event = found.properties?.event?.const;
  if (event) return [eventOf(doc, event, found.properties.data, above)];
  const inside = schemaTree(doc, schema, above);
  if (!several) return inside;
  const title = found.properties?.type?.const ?? typeOf(doc, schema);
  const about = found.description ? [" ", ...inline(found.description)] : [];
  return inside.length ? [el("div", { class: "variant-of" }, el("p", { class: "variant-title" }, el("code", {}, title), ...about), ...inside)] : [];
}

// One event of a stream: its name, and the members of its data.
function eventOf(doc, name, data, above) {
  const { found } = follow(doc, data);
  const text = found.description ? [" ", ...inline(found.description)] : [];
  const summary = el("summary", { class: "variant-title" }, el("code", {}, name), el("span", { class: "dim" }, ...text));
  return el("details", { class: "variant-of" }, summary, ...schemaTree(doc, data, above));
}

// What a named type allows; an unnamed one says it in its type.
const choices = (schema, found) => (schema.$ref && found.enum ? [typeOf({}, found)] : []);

const LIMITS = {
  default: (value) => `by default ${JSON.stringify(value)}`,
  minimum: (value) => `at least ${value}`,
  maximum: (value) => `at most ${value}`,
  exclusiveMinimum: (value) => `more than ${value}`,
  exclusiveMaximum: (value) => `less than ${value}`,
  minLength: (value) => `at least ${value} ${value === 1 ? "character" : "characters"}`,
  maxLength: (value) => `at most ${value} ${value === 1 ? "character" : "characters"}`,
  minItems: (value) => `at least ${value} ${value === 1 ? "item" : "items"}`,
  maxItems: (value) => `at most ${value} ${value === 1 ? "item" : "items"}`,
  pattern: (value) => `matches ${value}`,
  format: (value) => value,
};

function limits(schema) {
  return Object.entries(LIMITS).flatMap(([key, say]) => (schema[key] === undefined ? [] : [say(schema[key])]));
}
