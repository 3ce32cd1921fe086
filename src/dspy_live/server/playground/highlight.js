// Colours for code: comments, strings, numbers and the words of the language, by one pattern for each family.

import { el } from "./dom.js";

const LONGEST = 20_000; // characters; what is longer stays plain, since it is drawn again while it grows

// A quote that is never closed opens no string, except at the end of a text that still grows.
const DOUBLE = String.raw`"""[^]*?(?:"""|$)|"(?:\\.|[^"\\\n])*(?:"|$)`;
const SINGLE = String.raw`'''[^]*?(?:'''|$)|'(?:\\.|[^'\\\n])*(?:'|$)`;
const BACKTICK = "`(?:\\\\.|[^`\\\\])*(?:`|$)";
const CHAR = String.raw`'(?:\\.|[^'\\\n])'`; // Rust's 'a' is a text, and its 'a a lifetime
const NUMBER = String.raw`\b\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?\b`;
const COMMENTS = { hash: "#.*", slash: String.raw`\/\/.*|\/\*[^]*?(?:\*\/|$)`, dash: "--.*", none: "(?!)" };

const WORDS = {
  python: "and as assert async await break class continue def del elif else except finally for from global if import in is lambda None nonlocal not or pass raise return True False try while with yield match case",
  script: "async await break case catch class const continue default delete do else export extends false finally for from function if import in instanceof interface let new null of return static super switch this throw true try type typeof undefined var void while yield",
  rust: "as async await break const continue crate dyn else enum false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while",
  c: "auto bool break case char class const continue default do double else enum extends false final float for func go if implements import int interface long new null package private public return short static struct switch this throw true try type var void while",
  shell: "case do done elif else esac export fi for function if in then while cd echo",
  sql: "select from where and or not in join left right inner on group by order limit insert into values update set delete create table as null is distinct having union",
  data: "true false null",
};

const FAMILIES = {
  python: ["python", "hash"], script: ["script", "slash"], rust: ["rust", "slash"], c: ["c", "slash"], shell: ["shell", "hash"],
  sql: ["sql", "dash"], json: ["data", "none"], data: ["data", "hash"],
};

const NAMES = {
  py: "python", python: "python", python3: "python", js: "script", jsx: "script", javascript: "script", ts: "script", tsx: "script",
  typescript: "script", rs: "rust", rust: "rust", c: "c", cpp: "c", "c++": "c", java: "c", go: "c", cs: "c", sh: "shell", bash: "shell",
  shell: "shell", zsh: "shell", console: "shell", sql: "sql", json: "json", yaml: "data", yml: "data", toml: "data",
};

const patterns = new Map();

/** Return the nodes and texts of a code; joined, they are the code as it was. */
export function highlighted(text, language) {
  const family = NAMES[language.split(/[\s{,]/)[0].toLowerCase()];
  if (!family || text.length > LONGEST) return [text];
  const found = [];
  let at = 0;
  for (const match of text.matchAll(patternOf(family))) {
    found.push(text.slice(at, match.index));
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    found.push(el("span", { class: `hl-${kind}` }, match[0]));
    at = match.index + match[0].length;
  }
  return [...found, text.slice(at)];
}

function patternOf(family) {
  if (!patterns.has(family)) {
    const [words, comment] = FAMILIES[family];
    const keyword = `\\b(?:${WORDS[words].split(" ").join("|")})\\b`;
    const quotes = family === "rust" ? [DOUBLE, CHAR] : [DOUBLE, SINGLE, BACKTICK];
    const source = `(?<string>${quotes.join("|")})|(?<comment>${COMMENTS[comment]})|(?<keyword>${keyword})|(?<number>${NUMBER})`;
    patterns.set(family, new RegExp(source, family === "sql" ? "gi" : "g"));
  }
  return patterns.get(family);
}
