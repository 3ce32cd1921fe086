// What stays in view: the outputs beside a long form, and the end of a chat that grows.

const MARGIN = 18; // pixels from the window's edge

/** Keep a sticky node in view: its beginning, or its end where it is taller than the window. */
export function keepInView(node, footer) {
  const place = () => {
    node.style.top = `${Math.min(MARGIN, innerHeight - node.offsetHeight - footer.offsetHeight - MARGIN)}px`;
  };
  new ResizeObserver(place).observe(node);
  addEventListener("resize", place);
}

/** Go to a node of which little is seen: on a phone the outputs stand below the form. */
export function bringIntoView(node) {
  if (node.getBoundingClientRect().top > innerHeight * 0.7) node.scrollIntoView({ block: "start" });
}

/**
 * While `wanted()`, keep the end of `node` above `below`, which stands at the window's edge, unless the reader has
 * scrolled up. Returns a function that goes there and follows again.
 */
export function followEnd(node, below, wanted) {
  let follows = true;
  let before = scrollY;
  const hidden = () => node.getBoundingClientRect().bottom + MARGIN - Math.min(innerHeight, below.getBoundingClientRect().top);
  const toEnd = () => wanted() && follows && hidden() > 0 && scrollBy(0, hidden());
  // Only a way up is the reader's: when the event of our own scrolling comes, the text may have grown again.
  const scrolled = () => {
    if (hidden() < 80) follows = true;
    else if (scrollY < before) follows = false;
    before = scrollY;
  };
  addEventListener("scroll", scrolled, { passive: true });
  new ResizeObserver(toEnd).observe(node);
  return () => {
    follows = true;
    toEnd();
  };
}
