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

/** While `wanted()`, go to the end of the page when `node` grows, unless the reader has scrolled up. */
export function followEnd(node, wanted) {
  let follows = true;
  const page = document.documentElement;
  addEventListener("scroll", () => (follows = page.scrollHeight - innerHeight - scrollY < 80), { passive: true });
  new ResizeObserver(() => wanted() && follows && scrollTo(0, page.scrollHeight)).observe(node);
}
