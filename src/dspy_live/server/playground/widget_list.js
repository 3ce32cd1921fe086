// Rows: lists of anything, dictionaries, and tuples.

import { button, changed, el } from "./dom.js";
import { unfit } from "./problem.js";
import { nameOf, shapeOf } from "./shape.js";

/** A list: one row per item, with buttons to add and to remove. Nothing is sent for an empty one that may be left out. */
export function listWidget(shape, about, make) {
  const item = shapeOf(shape.item, shape.root);
  const rows = new Rows(about, item.kind === "object" ? nameOf(item) : "item", (n, id) => {
    const widget = make(item, { id, name: `${about.name} ${n}`, required: true, row: true });
    widget.labelled?.setAttribute("aria-label", `${about.name}, item ${n}`);
    return { parts: [widget], read: (mode) => widget.read(mode), write: widget.write, focus: widget.focus };
  });
  return {
    node: rows.node,
    labelled: null,
    read(mode) {
      const values = rows.rows.map((row) => row.read(mode)).filter((value) => value !== undefined);
      return values.length || about.required ? values : undefined;
    },
    write: (value) => rows.write(Array.isArray(value) ? value : []),
    focus: () => rows.focus(),
  };
}

/** A dictionary with keys of text: a row has a key and a value. */
export function mapWidget(shape, about, make) {
  const item = shapeOf(shape.value, shape.root);
  const rows = new Rows(about, "entry", (n, id) => {
    const key = el("input", { id: `${id}-key`, "aria-label": `${about.name}, key ${n}`, placeholder: "key", class: "key" });
    const value = make(item, { id, name: `${about.name} ${n}`, required: true, row: true });
    value.labelled?.setAttribute("aria-label", `${about.name}, value ${n}`);
    return {
      parts: [{ node: key }, value],
      read: (mode) => [key.value || unfit(mode, `${about.name} ${n} needs a key.`, key), value.read(mode)],
      write: ([name, inner]) => ((key.value = name), value.write(inner)),
      focus: () => key.focus(),
    };
  });
  return {
    node: rows.node,
    labelled: null,
    read(mode) {
      const values = rows.rows.map((row) => row.read(mode)).filter(([key, value]) => key && value !== undefined);
      return values.length || about.required ? Object.fromEntries(values) : undefined;
    },
    write: (value) => rows.write(Object.entries(value ?? {})),
    focus: () => rows.focus(),
  };
}

/** A fixed number of values, each of its own type. */
export function tupleWidget(shape, about, make) {
  const parts = shape.items.map((schema, i) => {
    const widget = make(shapeOf(schema, shape.root), {
      id: `${about.id}-${i}`,
      name: `${about.name} ${i + 1}`,
      required: about.required,
      row: true,
    });
    widget.labelled?.setAttribute("aria-label", `${about.name}, part ${i + 1}`);
    return widget;
  });
  const read = (mode) => {
    const values = parts.map((part) => part.read(mode));
    if (values.every((value) => value === undefined)) return undefined;
    const missing = values.indexOf(undefined);
    return missing < 0 ? values : unfit(mode, `${about.name} ${missing + 1} is needed.`, parts[missing].labelled);
  };
  return {
    node: el("div", { class: "tuple" }, ...parts.map((part) => part.node)),
    labelled: null,
    read,
    write: (value) => parts.forEach((part, i) => part.write(value?.[i])),
    focus: () => parts[0]?.focus(),
  };
}

class Rows {
  constructor({ id, name }, noun, makeRow) {
    Object.assign(this, { id, name, makeRow, made: 0, rows: [] });
    this.list = el("ol", { class: "rows" });
    this.adder = button(`Add ${noun}`, () => (this.add().focus(), changed(this.node)), { class: "small", id }, `to ${name}`);
    this.node = el("div", { class: "list" }, this.list, this.adder);
  }

  add() {
    const row = this.makeRow(this.rows.length + 1, `${this.id}-${(this.made += 1)}`);
    const remove = button("×", () => this.remove(row), { class: "remove" });
    row.node = el("li", {}, el("div", { class: "cell" }, ...row.parts.map((part) => part.node)), remove);
    row.remove = remove;
    this.rows.push(row);
    this.list.append(row.node);
    this.number();
    return row;
  }

  remove(row) {
    const at = this.rows.indexOf(row);
    this.rows.splice(at, 1);
    row.node.remove();
    this.number();
    (this.rows[Math.min(at, this.rows.length - 1)]?.remove ?? this.adder).focus();
    changed(this.node);
  }

  number() {
    this.rows.forEach((row, i) => row.remove.setAttribute("aria-label", `Remove item ${i + 1} of ${this.name}`));
  }

  write(values) {
    this.rows = [];
    this.list.replaceChildren();
    for (const value of values) this.add().write(value);
  }

  focus() {
    (this.rows[0] ?? this.adder).focus();
  }
}
