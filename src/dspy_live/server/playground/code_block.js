// A block of code: coloured, scrolled by the keyboard, and copied by a button.

import { copy, select } from "./clipboard.js";
import { button, confirmOn, el } from "./dom.js";
import { highlighted } from "./highlight.js";

/** Return the node of a text in some language; no name means a plain text. */
export function codeBlock(text, language = "") {
  const label = language ? `Code, ${language}` : "Code";
  const code = el("code", {}, ...highlighted(text, language));
  const copier = button("Copy", () => take(text, code, copier), { class: "small copy-code" }, "the code");
  return el("div", { class: "code" }, el("pre", { tabindex: "0", role: "region", "aria-label": label }, code), copier);
}

async function take(text, code, copier) {
  if (await copy(text)) return confirmOn(copier, "Copied");
  select(code);
  confirmOn(copier, "Press Ctrl C");
}
