// A page that can't start says why, and what to do.

import { button, byId } from "./dom.js";

const BY_STATUS = {
  401: ["This server asks for an API key.", "Ask whoever runs it for one; it was started with --api-key, or with keys in its configuration."],
  403: ["The server refuses this page.", "Whoever runs the server can allow it; its message names what to change."],
  404: ["This is not the address of a dspy-live server.", "Is it behind a proxy that gives it a path of its own? Then the proxy must pass on all that is below."],
  502: ["The proxy in front reaches no server.", "See that dspy-live runs, and that the proxy has the right port."],
  503: ["The server takes nothing now.", "It is starting, full, or shutting down; try again in a moment."],
};

/** Show why in place of the page. `again` is called by a button. */
export function showStartProblem(error, again) {
  const [title, advice] = explain(error);
  byId("start-title").textContent = title;
  byId("start-message").textContent = error.status ? error.message : "";
  byId("start-advice").textContent = advice;
  const retry = button(error.status === 401 ? "Enter a key" : "Try again", again, { class: "primary" });
  byId("start-actions").replaceChildren(retry);
  byId("start").hidden = false;
  showPage(false);
  retry.focus();
}

export function hideStartProblem() {
  byId("start").hidden = true;
  showPage(true);
}

function showPage(yes) {
  for (const id of ["page", "strip"]) byId(id)?.toggleAttribute("hidden", !yes);
}

function explain(error) {
  if (BY_STATUS[error.status]) return BY_STATUS[error.status];
  if (error.status) return [`The server answered ${error.status}.`, "Its log says more."];
  if (error instanceof SyntaxError) return ["What answers here is no dspy-live server.", "See that the address and its port are right."];
  return [`The server at ${location.host} does not answer.`, "Has it been stopped? Start it again: dspy-live serve …"];
}
