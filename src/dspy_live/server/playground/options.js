// The options of a run beside its inputs.

import { byId } from "./dom.js";
import { Problem } from "./problem.js";

/** The LM options as an object, or null. Marks what is no JSON object, and throws. */
export function readOptions({ fresh = true, anew = false } = {}) {
  const text = byId("config").value.trim();
  byId("config-error").textContent = "";
  byId("config").removeAttribute("aria-invalid");
  let options = null;
  try {
    if (text) options = JSON.parse(text);
    if (options !== null && options.constructor !== Object) throw new Error("give an object");
  } catch (error) {
    refuseOption(`This must be a JSON object: ${error.message}`);
    throw new Problem(error.message, byId("config"));
  }
  if (fresh && (anew || byId("fresh").checked)) options = { rollout_id: Math.floor(Math.random() * 2 ** 31), ...options };
  return options;
}

/** Say what is wrong with the options. */
export function refuseOption(message) {
  byId("options").open = true;
  byId("config-error").textContent = message;
  byId("config").setAttribute("aria-invalid", "true");
  byId("config").focus();
}

export function writeOptions(options) {
  byId("config").value = options ? JSON.stringify(options) : "";
  if (options) byId("options").open = true;
}
