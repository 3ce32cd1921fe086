// The dialog that shows a run as code.

import { key } from "./api.js";
import { copy, select } from "./clipboard.js";
import { byId, confirmOn } from "./dom.js";
import { SNIPPETS } from "./snippets.js";

let request = null;

/** Show the snippets of a request; `left` names the inputs whose files are left out. */
export function showSnippets(asked, left) {
  request = { ...asked, base: new URL(".", location.href).href.replace(/\/$/, ""), keyed: key.get() !== "" };
  byId("snippet-left").textContent = left.length
    ? `Files are left out: put the data of ${left.join(", ")} where the … stands.`
    : "";
  show();
  byId("snippet-dialog").showModal();
}

function show() {
  const language = document.querySelector("#snippet-languages input:checked").value;
  byId("snippet").textContent = SNIPPETS[language](request);
}

/** Connect the dialog's controls; once. */
export function setUpSnippets() {
  byId("snippet-languages").addEventListener("change", show);
  byId("snippet-copy").addEventListener("click", async () => {
    if (await copy(byId("snippet").textContent)) return confirmOn(byId("snippet-copy"), "Copied");
    select(byId("snippet"));
    confirmOn(byId("snippet-copy"), "Press Ctrl C");
  });
}
