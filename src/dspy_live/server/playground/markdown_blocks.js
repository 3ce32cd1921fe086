// Markdown's blocks: from lines to a list of plain objects. Knows nothing of the page.

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(?:\s+|$)(.*)$/;
const QUOTE = /^ {0,3}>\s?(.*)$/;
const DELIMITER = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const DEPTH = 12; // lists in quotes in lists: deeper ones are text

/** Return the blocks of a text, each with `end`, the number of the line after it. */
export function blocks(lines, depth = 0) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const block = read(lines, at, depth);
    found.push(block);
    at = block.end;
  }
  return found;
}

function read(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return fence(lines, at);
  const heading = HEADING.exec(line);
  if (heading) return { kind: "heading", level: heading[1].length, text: heading[2], end: at + 1 };
  if (RULE.test(line)) return { kind: "rule", end: at + 1 };
  if (depth < DEPTH && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEPTH && ITEM.test(line)) return list(lines, at, depth);
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at);
}

function fence(lines, at) {
  const [, marks, info] = FENCE.exec(lines[at]);
  const isEnd = (line) => line.trim().startsWith(marks) && /^\s{0,3}(`+|~+)\s*$/.test(line);
  let end = at + 1;
  while (end < lines.length && !isEnd(lines[end])) end += 1;
  const closed = end < lines.length;
  return { kind: "code", language: info.trim(), text: lines.slice(at + 1, end).join("\n"), end: closed ? end + 1 : end, open: !closed };
}

function quote(lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inside = lines.slice(at, end).map((line) => QUOTE.exec(line)[1]);
  return { kind: "quote", blocks: blocks(inside, depth + 1), end };
}

function list(lines, at, depth) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (!item || item[1].length > indent.length + 3 || item[1].length < indent.length || /\d/.test(item[2]) !== ordered) break;
    const [inside, next] = itemLines(lines, end, item);
    const task = /^\[([ xX])\]\s+/.exec(inside[0]);
    if (task) inside[0] = inside[0].slice(task[0].length);
    items.push({ blocks: blocks(inside, depth + 1), done: task ? task[1] !== " " : null });
    end = next;
  }
  return { kind: "list", ordered, start: ordered ? parseInt(mark, 10) : 1, items, end };
}

// An item goes on while its lines are indented; a blank line ends it unless what follows is indented too.
function itemLines(lines, at, [, indent, mark, first]) {
  const inside = [first];
  const least = indent.length + 2;
  const spaces = (line) => line.length - line.trimStart().length;
  let end = at + 1;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    if (!line.trim()) {
      const next = lines.slice(end).find((each) => each.trim());
      if (next === undefined) break;
      if (spaces(next) >= least) inside.push("");
      else if (ITEM.test(next)) continue;
      else break;
    } else if (spaces(line) >= least) {
      inside.push(line.slice(Math.min(spaces(line), indent.length + mark.length + 1)));
    } else if (startsBlock(line) || !lines[end - 1].trim()) {
      break;
    } else {
      inside.push(line.trim());
    }
  }
  return [inside, end];
}

const startsBlock = (line) => [ITEM, FENCE, HEADING, RULE, QUOTE].some((each) => each.test(line));

const isTable = (lines, at) => lines[at].includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && DELIMITER.test(lines[at + 1]);

function table(lines, at) {
  const head = cells(lines[at]);
  const align = cells(lines[at + 1]).map((cell) => (/^:.*:$/.test(cell) ? "center" : cell.endsWith(":") ? "right" : "left"));
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  return { kind: "table", head, align, rows: lines.slice(at + 2, end).map(cells), end };
}

const cells = (line) =>
  line
    .trim()
    .replace(/^\||(?<!\\)\|$/g, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));

function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !startsBlock(lines[end]) && !isTable(lines, end)) end += 1;
  return { kind: "text", text: lines.slice(at, end).map((line) => line.trimStart()).join("\n"), end };
}
