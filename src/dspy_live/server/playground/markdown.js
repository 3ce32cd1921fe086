// Markdown as nodes of the page, at once or while it arrives.

import { el } from "./dom.js";
import { blocks } from "./markdown_blocks.js";
import { codeBlock } from "./code_block.js";
import { inline } from "./markdown_inline.js";

/** Return the nodes of a Markdown text. */
export function markdown(text) {
  return blocks(bare(text.split("\n"))).map(render);
}

const bare = (lines) => lines.map((line) => (line.endsWith("\r") ? line.slice(0, -1) : line));

/** A place where a text grows: blocks that are complete stay as they are, only the last one is made anew. */
export class MarkdownStream {
  #place;
  #text = "";
  #from = 0; // where the first line of the open block begins
  #fixed = 0; // nodes that stay

  constructor(place) {
    this.#place = place;
  }

  get text() {
    return this.#text;
  }

  /** Show `text`, which begins with what was shown before; any other text is shown from its beginning. */
  show(text) {
    if (!text.startsWith(this.#text) || !this.#text) this.clear();
    this.#text = text;
    const lines = text.slice(this.#from).split("\n");
    const found = blocks(bare(lines));
    const nodes = found.map(render);
    while (this.#place.childNodes.length > this.#fixed) this.#place.lastChild.remove();
    this.#place.append(...nodes);
    if (found.length > 1) {
      const done = found[found.length - 2].end;
      this.#from += lines.slice(0, done).reduce((sum, line) => sum + line.length + 1, 0);
      this.#fixed += found.length - 1;
    }
  }

  clear() {
    this.#text = "";
    this.#from = this.#fixed = 0;
    this.#place.replaceChildren();
  }
}

function render(block) {
  switch (block.kind) {
    case "heading":
      return el("h4", { "data-level": block.level }, ...inline(block.text));
    case "rule":
      return el("hr");
    case "code":
      return codeBlock(block.text, block.language);
    case "quote":
      return el("blockquote", {}, ...block.blocks.map(render));
    case "list":
      return el(block.ordered ? "ol" : "ul", { start: block.start > 1 ? block.start : null }, ...block.items.map(item));
    case "table":
      return table(block);
    default:
      return el("p", {}, ...inline(block.text));
  }
}

function item({ blocks: inside, done }) {
  const mark = done === null ? null : el("span", { class: "task", role: "img", "aria-label": done ? "done" : "to do" }, done ? "☑ " : "☐ ");
  const [first, ...rest] = inside;
  if (first?.kind === "text") return el("li", {}, mark, ...inline(first.text), ...rest.map(render));
  return el("li", {}, mark, ...inside.map(render));
}

function table({ head, align, rows }) {
  const line = (cells, tag) => el("tr", {}, ...align.map((side, i) => el(tag, { "data-align": side }, ...inline(cells[i] ?? ""))));
  const body = el("table", {}, el("thead", {}, line(head, "th")), el("tbody", {}, ...rows.map((cells) => line(cells, "td"))));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, body);
}
