// Finding an operation: a line to filter by, and a mark in the contents at the one that is read.

import { byId } from "./dom.js";

/** Filter the contents and the operations by what is written in the line; `/` goes there, Enter to the first one found. */
export function setUpFind() {
  const line = byId("find");
  line.addEventListener("input", () => filter(line.value));
  line.addEventListener("keydown", (event) => {
    if (event.key === "Escape") clear(line);
    if (event.key !== "Enter") return;
    event.preventDefault(); // or the same press would close what it opens, where the focus has gone
    openFirst(line);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, textarea, select")) return;
    event.preventDefault();
    line.focus();
  });
  addEventListener("scroll", () => requestAnimationFrame(mark), { passive: true });
}

/** Show what fits the words again after the page was drawn. */
export function findAgain() {
  filter(byId("find").value);
  mark();
}

function filter(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const node of document.querySelectorAll("details.operation")) {
    node.hidden = !words.every((word) => node.dataset.words.includes(word));
    count += !node.hidden;
    const link = document.querySelector(`#contents a[href="#${CSS.escape(node.id)}"]`);
    link.parentElement.hidden = node.hidden;
  }
  for (const section of document.querySelectorAll("#operations > section")) section.hidden = words.length > 0 && !section.querySelector("details.operation:not([hidden])");
  for (const group of document.querySelectorAll("#contents > li")) group.hidden = words.length > 0 && !group.querySelector("li:not([hidden])");
  const none = words.length > 0 && count === 0;
  byId("none-found").hidden = !none;
  byId("said").textContent = words.length ? `${count} operations` : "";
}

function clear(line) {
  line.value = "";
  filter("");
}

// The filter is over when it has led somewhere.
function openFirst(line) {
  const found = document.querySelector("details.operation:not([hidden])");
  if (!found) return;
  clear(line);
  found.open = true;
  found.scrollIntoView();
  found.firstChild.focus();
}

function mark() {
  const read = [...document.querySelectorAll("details.operation:not([hidden])")].filter((node) => node.getBoundingClientRect().top < 30).pop();
  for (const link of document.querySelectorAll("#contents a[aria-current]")) link.removeAttribute("aria-current");
  const link = read && document.querySelector(`#contents a[href="#${CSS.escape(read.id)}"]`);
  link?.setAttribute("aria-current", "true");
}
