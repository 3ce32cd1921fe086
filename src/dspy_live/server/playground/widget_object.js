// Models within models, and values of one type out of several.

import { button, changed, el } from "./dom.js";
import { labelled } from "./field.js";
import { nameOf, shapeOf } from "./shape.js";

/** A model: its fields, each with its description. One that may be left out is made when it is asked for. */
export function objectWidget(shape, about, make) {
  return shape.optional || !about.required ? onDemand(shape, about, make) : whole(shape, about, make);
}

function whole(shape, about, make) {
  const fields = shape.fields.map((field) => {
    const inner = shapeOf(field.schema, shape.root);
    const id = `${about.id}-${field.name}`;
    const widget = make(inner, { id, name: field.name, required: field.required && !inner.optional, row: true });
    const usual = inner.schema.default ?? undefined;
    if (usual !== undefined) widget.write(usual);
    return { field, widget, usual, node: labelled(field, nameOf(inner), widget, id, field.required && !inner.optional) };
  });
  const node = el("div", { class: "object", role: "group", "aria-label": about.name }, ...fields.map((each) => each.node));
  return {
    node,
    labelled: null,
    read(mode) {
      const values = fields.map(({ field, widget }) => [field.name, widget.read(mode)]);
      return Object.fromEntries(values.filter(([, value]) => value !== undefined));
    },
    write: (value) => fields.forEach(({ field, widget, usual }) => widget.write(value?.[field.name] ?? usual)),
    focus: () => fields[0]?.widget.focus(),
  };
}

function onDemand(shape, about, make) {
  const node = el("div", { class: "on-demand" });
  const name = nameOf({ ...shape, optional: false });
  let inner = null;

  function open() {
    inner = whole(shape, about, make);
    const close = button("Remove", () => (shut(), node.firstChild.focus(), changed(node)), { class: "small" }, about.name);
    node.replaceChildren(inner.node, close);
    return inner;
  }

  function shut() {
    inner = null;
    const act = () => (open().focus(), changed(node));
    node.replaceChildren(button(`Add ${name}`, act, { class: "small", id: about.id }, `for ${about.name}`));
  }

  shut();
  return {
    node,
    labelled: null,
    read: (mode) => inner?.read(mode),
    write: (value) => (value == null ? shut() : (inner ?? open()).write(value)),
    focus: () => (inner ? inner.focus() : node.firstChild.focus()),
  };
}

/** One of several types: a choice of the type, and its control. */
export function unionWidget(shape, about, make) {
  const shapes = shape.variants.map((schema) => shapeOf(schema, shape.root));
  const options = shapes.map((each, i) => el("option", { value: i }, nameOf(each)));
  const pick = el("select", { id: about.id, class: "variant", "aria-label": `Type of ${about.name}` }, ...options);
  const place = el("div", { class: "variant-value" });
  let inner;

  function show(at) {
    pick.value = at;
    inner = make(shapes[at], { ...about, id: `${about.id}-${at}`, row: true, top: false });
    inner.labelled?.setAttribute("aria-label", `${about.name} as ${nameOf(shapes[at])}`);
    place.replaceChildren(inner.node);
  }

  pick.addEventListener("change", () => show(Number(pick.value)));
  show(0);
  return {
    node: el("div", { class: "union" }, pick, place),
    labelled: null,
    read: (mode) => inner.read(mode),
    write(value) {
      if (value === undefined) return show(0);
      show(Math.max(0, shapes.findIndex((each) => fits(each, value))));
      inner.write(value);
    },
    focus: () => inner.focus(),
  };
}

function fits({ kind, values, fields }, value) {
  if (kind === "choice") return values.includes(value);
  if (kind === "text" || kind.startsWith("date")) return typeof value === "string";
  if (kind === "integer") return Number.isInteger(value);
  if (kind === "number") return typeof value === "number";
  if (kind === "boolean") return typeof value === "boolean";
  if (kind === "list" || kind === "tuple") return Array.isArray(value);
  if (kind !== "object") return value !== null && typeof value === "object";
  return value?.constructor === Object && fields.every(({ name, required }) => !required || name in value);
}
