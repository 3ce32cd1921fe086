// What differs between two texts, word by word: the longest common subsequence of their words.

const MOST = 1500; // words of each; longer texts are shown side by side without marks

/** Return [[kind, text], …] of each side: kind is "same" or "other". */
export function difference(left, right) {
  const [a, b] = [words(left), words(right)];
  if (a.length > MOST || b.length > MOST) return [[["same", left]], [["same", right]]];
  const lengths = table(a, b);
  const [mine, theirs] = [[], []];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add(mine, "same", a[i++]);
      add(theirs, "same", b[j++]);
    } else if (j >= b.length || (i < a.length && lengths[i + 1][j] >= lengths[i][j + 1])) {
      add(mine, "other", a[i++]);
    } else {
      add(theirs, "other", b[j++]);
    }
  }
  return [mine, theirs];
}

const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

function table(a, b) {
  const lengths = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      lengths[i][j] = a[i] === b[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  return lengths;
}

function add(side, kind, text) {
  const last = side.at(-1);
  if (last?.[0] === kind) last[1] += text;
  else side.push([kind, text]);
}
