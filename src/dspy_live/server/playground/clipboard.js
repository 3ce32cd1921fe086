// Copying, also where the browser gives no clipboard: a page that came over plain HTTP from another machine.

/** Copy a text; false where the browser does not let us. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Select what a node shows, for Ctrl C. */
export function select(node) {
  const range = document.createRange();
  range.selectNodeContents(node);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
}
