// A label, a description and a place for problems around a control.

import { el } from "./dom.js";

/** Return the node of one field. The label points at the control, or names the group where there are several. */
export function labelled(field, type, widget, id, required) {
  const problem = el("p", { class: "problem", id: `${id}-problem`, role: "alert" });
  const hint = field.description ? el("p", { class: "hint", id: `${id}-hint` }, field.description) : null;
  const marks = [
    el("span", { class: "name" }, field.name),
    el("span", { class: "type" }, type),
    required ? null : el("span", { class: "optional" }, "optional"),
  ];
  const described = [hint?.id, problem.id].filter(Boolean).join(" ");
  const control = widget.labelled;
  if (control) {
    control.setAttribute("aria-describedby", described);
    if (required && control.type !== "checkbox") control.setAttribute("aria-required", "true");
    const label = el("label", { for: control.id }, ...marks);
    const flag = control.type === "checkbox";
    return el("div", { class: flag ? "field flag" : "field" }, label, hint, widget.node, problem);
  }
  const name = el("p", { class: "label", id: `${id}-label` }, ...marks, widget.extra);
  const group = { class: "field", role: "group", "aria-labelledby": name.id, "aria-describedby": described };
  return el("div", group, name, hint, widget.node, problem);
}
