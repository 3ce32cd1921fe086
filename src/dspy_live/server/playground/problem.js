// What is wrong with one input, and the element to look at.

export class Problem extends Error {
  constructor(message, element) {
    super(message);
    this.element = element;
  }
}

/** Throw in the mode "send"; leave the value out in the others. */
export function unfit(mode, message, element) {
  if (mode === "send") throw new Problem(message, element);
  return undefined;
}
