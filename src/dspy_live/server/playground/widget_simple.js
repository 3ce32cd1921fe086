// One control for one value: text, numbers, yes or no, a choice, a date.

import { el } from "./dom.js";
import { unfit } from "./problem.js";

function simple(input, read, write) {
  return { node: input, labelled: input, read, write, focus: () => input.focus() };
}

export function textWidget(shape, { id, name, required, row }) {
  const input = el("textarea", { id, rows: row ? 1 : 3 });
  const read = (mode) => {
    if (input.value !== "") return input.value;
    if (mode === "snippet" && required) return "…"; // code without it would be refused
    return required ? unfit(mode, `${name} is needed.`, input) : undefined;
  };
  return simple(input, read, (value) => (input.value = typeof value === "string" ? value : (JSON.stringify(value) ?? "")));
}

export function numberWidget(shape, { id, name, required }) {
  const whole = shape.kind === "integer";
  const { minimum, maximum } = shape.schema;
  const input = el("input", { id, type: "number", step: whole ? "1" : "any", min: minimum, max: maximum });
  const read = (mode) => {
    if (input.validity.badInput) return unfit(mode, `${name} must be a number.`, input);
    if (input.value === "") return required ? unfit(mode, `${name} is needed.`, input) : undefined;
    const value = Number(input.value);
    if (whole && !Number.isInteger(value)) return unfit(mode, `${name} must be a whole number.`, input);
    return value;
  };
  return simple(input, read, (value) => (input.value = value ?? ""));
}

/** A box to tick; where nothing may be said, a choice of three. */
export function flagWidget(shape, about) {
  if (shape.optional) return choiceWidget({ ...shape, values: [true, false] }, about);
  const input = el("input", { id: about.id, type: "checkbox" });
  return simple(input, () => input.checked, (value) => (input.checked = value === true));
}

export function choiceWidget(shape, { id, required }) {
  const { values } = shape;
  const open = shape.optional || !required;
  const options = values.map((value, i) => el("option", { value: i }, String(value)));
  const input = el("select", { id }, ...(open ? [el("option", { value: "" }, "–")] : []), ...options);
  const read = () => (input.value === "" ? undefined : values[Number(input.value)]);
  return simple(input, read, (value) => {
    const at = values.indexOf(value);
    input.value = at >= 0 ? at : open ? "" : 0;
  });
}

export function dateWidget(shape, { id, name, required }) {
  const input = el("input", { id, type: shape.kind, step: shape.kind === "time" ? 1 : null });
  const read = (mode) => input.value || (required ? unfit(mode, `${name} is needed.`, input) : undefined);
  return simple(input, read, (value) => (input.value = value ?? ""));
}
