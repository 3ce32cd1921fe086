// The form of a program: one control per input field, chosen by its type.

import { el } from "./dom.js";

const FILES = {
  "dspy.Image": { accept: "image/*", build: (data) => ({ url: data.url }) },
  "dspy.Audio": { accept: "audio/*", build: (data) => ({ data: data.base64, audio_format: data.format }) },
  "dspy.File": { accept: "*/*", build: (data) => ({ file_data: data.url, filename: data.name }) },
};

/** Show the controls of `fields` in `place`; returns {read, problem, focus}. */
export function buildForm(place, fields) {
  const controls = fields.map(control);
  place.replaceChildren(...controls.map((c) => c.node));
  return {
    /** The inputs as JSON; throws after marking what is wrong. */
    async read() {
      const values = {};
      let bad = null;
      for (const c of controls) {
        c.mark("");
        try {
          const value = await c.read();
          if (value !== undefined) values[c.field.name] = value;
        } catch (error) {
          c.mark(error.message);
          bad ??= c;
        }
      }
      if (bad) {
        bad.focus();
        throw new Error("some inputs do not fit");
      }
      return values;
    },
    /** Show the server's word on one field; false when there is no such field here. */
    problem(name, message) {
      const c = controls.find((each) => each.field.name === name);
      c?.mark(message);
      return Boolean(c);
    },
    focus: () => controls[0]?.focus(),
  };
}

function control(field) {
  const id = `in-${field.name}`;
  const problem = el("p", { class: "problem", id: `${id}-problem`, role: "alert" });
  const { input, read } = widget(field, id);
  const described = [field.description ? `${id}-hint` : "", `${id}-problem`].filter(Boolean).join(" ");
  input.setAttribute("aria-describedby", described);
  if (field.required) input.setAttribute("aria-required", "true");
  const label = el("label", { for: id }, field.name, el("span", { class: "type" }, field.type));
  if (!field.required) label.append(el("span", { class: "optional" }, "optional"));
  const hint = field.description ? el("p", { class: "hint", id: `${id}-hint` }, field.description) : "";
  return {
    field,
    node: el("div", { class: "field" }, label, hint, input, problem),
    read,
    focus: () => input.focus(),
    mark(message) {
      problem.textContent = message;
      input.setAttribute("aria-invalid", message ? "true" : "false");
    },
  };
}

function widget(field, id) {
  const schema = field.schema ?? {};
  if (schema.enum) return choice(field, id, schema.enum);
  if (schema.type === "boolean") return checkbox(field, id);
  if (schema.type === "integer" || schema.type === "number") return number(field, id, schema.type === "integer");
  if (FILES[field.type]) return file(field, id, FILES[field.type]);
  if (field.type === "str" || isText(schema)) return text(field, id);
  return json(field, id);
}

// Text, or nothing: an empty control leaves it out.
function isText(schema) {
  const kinds = schema.anyOf ?? [schema];
  return kinds.some((each) => each.type === "string") && kinds.every((each) => ["string", "null"].includes(each.type));
}

function text(field, id) {
  const input = el("textarea", { id, rows: "3" });
  input.value = field.default ?? "";
  return { input, read: () => (input.value === "" && !field.required ? undefined : need(field, input.value)) };
}

function json(field, id) {
  const input = el("textarea", { id, rows: "3", spellcheck: "false", "data-json": "" });
  input.value = field.default === undefined ? "" : JSON.stringify(field.default, null, 2);
  input.placeholder = field.schema?.type === "array" ? "[…]" : "{…}";
  const read = () => {
    if (input.value.trim() === "" && !field.required) return undefined;
    need(field, input.value.trim());
    try {
      return JSON.parse(input.value);
    } catch (error) {
      throw new Error(`This must be JSON: ${error.message}`);
    }
  };
  return { input, read };
}

function number(field, id, whole) {
  const input = el("input", { id, type: "number", step: whole ? "1" : "any" });
  if (field.default !== undefined) input.value = field.default;
  const read = () => {
    if (input.validity.badInput) throw new Error("This must be a number.");
    if (input.value === "") return field.required ? need(field, "") : undefined;
    const value = Number(input.value);
    if (whole && !Number.isInteger(value)) throw new Error("This must be a whole number.");
    return value;
  };
  return { input, read };
}

function checkbox(field, id) {
  const input = el("input", { id, type: "checkbox" });
  input.checked = field.default === true;
  return { input, read: () => input.checked };
}

function choice(field, id, values) {
  const input = el("select", { id }, ...values.map((v, i) => el("option", { value: i }, String(v))));
  const at = values.indexOf(field.default);
  if (at >= 0) input.selectedIndex = at;
  return { input, read: () => values[input.selectedIndex] };
}

function file(field, id, { accept, build }) {
  const input = el("input", { id, type: "file", accept });
  const read = async () => {
    const chosen = input.files[0];
    if (!chosen) return field.required ? need(field, "") : undefined;
    const url = await dataUrl(chosen);
    const format = chosen.name.split(".").pop().toLowerCase();
    return build({ url, base64: url.slice(url.indexOf(",") + 1), format, name: chosen.name });
  };
  return { input, read };
}

function dataUrl(chosen) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The file can't be read."));
    reader.readAsDataURL(chosen);
  });
}

function need(field, value) {
  if (value === "") throw new Error(`${field.name} is needed.`);
  return value;
}
