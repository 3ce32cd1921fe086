// Markdown within a line: code, emphasis, links. Everything becomes a node or a text; there is no way to markup.

import { el } from "./dom.js";

// In this order at each place: an escape, code, a picture or a link, an address, strong, emphasised, struck out, a break.
const TOKEN = new RegExp(
  [
    /\\(?<escaped>[!-/:-@[-`{-~])/,
    /(?<ticks>`+)(?<code>[^`]|[^`][^]*?[^`])\k<ticks>(?!`)/,
    /!?\[(?<label>(?:[^[\]\\]|\\.|\[[^[\]]*\])*)\]\(\s*<?(?<target>[^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?:\s+"[^"]*")?\s*\)/,
    /<?(?<address>https?:\/\/[^\s<>"'`\])]*[^\s<>"'`\]).,:;!?*_~])>?/,
    /\*\*(?=\S)(?<strong>(?:[^*]|\*(?!\*)|\*\*(?=\s))+?[^\s]?)\*\*(?!\*)/,
    /(?<![\p{L}\p{N}])__(?=\S)(?<strong2>[^]+?\S|\S)__(?![\p{L}\p{N}])/,
    /\*(?=[^\s*])(?<em>(?:[^*]|\*\*[^*]*\*\*)*?[^\s*])\*(?!\*)/,
    /(?<![\p{L}\p{N}_])_(?=[^\s_])(?<em2>[^_]*?[^\s_]|[^\s_])_(?![\p{L}\p{N}_])/,
    /~~(?=\S)(?<struck>[^~]+)~~/,
    /(?<hard>(?: {2,}|\\)\n)/,
  ]
    .map((each) => each.source)
    .join("|"),
  "u",
);

const MOST = 20_000; // characters of one paragraph that are looked at; the rest is shown as it is
const DEPTH = 6;

/** Return the nodes of a line's text. */
export function inline(text, depth = 0) {
  if (depth > DEPTH || text.length > MOST) return [text];
  const nodes = [];
  let rest = text;
  for (let match = TOKEN.exec(rest); match; match = TOKEN.exec(rest)) {
    if (match.index) nodes.push(rest.slice(0, match.index));
    nodes.push(node(match, depth + 1));
    rest = rest.slice(match.index + match[0].length);
  }
  if (rest) nodes.push(rest);
  return nodes;
}

function node({ 0: all, groups: g }, depth) {
  if (g.escaped) return g.escaped;
  if (g.code !== undefined) return el("code", {}, g.code.replace(/^ (.+) $/, "$1"));
  if (g.target !== undefined) return link(g.target, g.label || g.target, all, depth);
  if (g.address) return link(g.address, g.address, all, DEPTH);
  if (g.strong ?? g.strong2) return el("strong", {}, ...inline(g.strong ?? g.strong2, depth));
  if (g.em ?? g.em2) return el("em", {}, ...inline(g.em ?? g.em2, depth));
  if (g.struck) return el("del", {}, ...inline(g.struck, depth));
  return el("br");
}

// What a model writes decides where a link leads: only addresses of the web and of mail become links, and a picture is a
// link too, since to load it would tell its server of the reader.
function link(target, label, all, depth) {
  if (!/^(https?:|mailto:)/i.test(target)) return all;
  const attributes = { href: target, rel: "noopener noreferrer nofollow", target: "_blank" };
  return el("a", attributes, ...(label === target ? [label] : inline(label, depth)));
}
