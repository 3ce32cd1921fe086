// Asking for the API key, where the server wants one.

import { key } from "./api.js";
import { byId } from "./dom.js";

/** Ask for a key, and say what was wrong with the last one; resolves to true when one was given. */
export function askKey(problem = "") {
  const dialog = byId("key-dialog");
  byId("key-problem").textContent = problem;
  byId("key").value = key.get();
  byId("key-button").hidden = false;
  dialog.showModal();
  byId("key").select();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const given = dialog.returnValue === "save";
        if (given) key.set(byId("key").value.trim());
        resolve(given);
      },
      { once: true },
    );
  });
}

/** Call `load`; as long as the server refuses the key, ask for another. */
export async function withKey(load) {
  for (;;) {
    try {
      return await load();
    } catch (error) {
      if (error.status !== 401 || !(await askKey(key.get() && error.message))) throw error;
    }
  }
}
