// The dialog with a link to the program and its inputs.

import { copy } from "./clipboard.js";
import { byId, confirmOn } from "./dom.js";
import { linkTo } from "./share.js";

const LONG = 8000; // characters; what carries links, such as chats, cuts longer ones

export function showLink({ program, inputs, config }) {
  const link = linkTo(program, inputs, config);
  byId("share-link").value = link;
  byId("share-note").textContent =
    link.length > LONG
      ? `This link has ${link.length.toLocaleString("en")} characters; some programs cut it.`
      : "Whoever opens it can read the inputs: they are in the link itself. Files are left out.";
  byId("share-dialog").showModal();
  byId("share-link").select();
}

export function setUpSharing() {
  byId("share-copy").addEventListener("click", async () => {
    if (await copy(byId("share-link").value)) return confirmOn(byId("share-copy"), "Copied");
    byId("share-link").select();
    confirmOn(byId("share-copy"), "Press Ctrl C");
  });
}
