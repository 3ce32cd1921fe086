// The strip at the bottom: this server's statistics, every two seconds while the page is looked at.

import { getJson } from "./api.js";
import { byId, count, describe, money, seconds } from "./dom.js";

const EVERY = 2000;
const POINTS = 60;

/** Begin to watch; returns a function that looks at once. */
export function watchServer() {
  const rates = [];
  let before = null;
  let timer = 0;

  async function look() {
    clearTimeout(timer);
    if (!document.hidden) {
      try {
        const now = await getJson("stats");
        const rate = before ? Math.max(0, (now.tokens - before.tokens) / (now.uptime_s - before.uptime_s || 1)) : 0;
        before = now;
        rates.push(rate);
        if (rates.length > POINTS) rates.shift();
        show(now, rate);
        draw(rates);
      } catch (problem) {
        if (problem.status === 403) return; // this key may not see them: nothing to show, and nothing to ask again
        byId("strip").removeAttribute("data-none");
        describe(byId("live"), [["Server", "no answer"]]);
      }
    }
    clearTimeout(timer);
    timer = setTimeout(look, EVERY);
  }
  look();
  return look;
}

// Before the first run there is nothing to see.
function show(now, rate) {
  byId("strip").toggleAttribute("data-none", !now.started);
  describe(byId("live"), [
    ["Active", now.max_active ? `${now.active} of ${now.max_active}` : count(now.active)],
    ["Runs", count(now.started)],
    ["Failed", count(now.failed)],
    ["Cancelled", count(now.cancelled)],
    ["First token p50", seconds(now.first_token_ms?.p50)],
    ["Duration p50 / p95", now.duration_ms ? `${seconds(now.duration_ms.p50)} / ${seconds(now.duration_ms.p95)}` : "–"],
    ["Spent", money(now.cost)],
    ["Tokens/s", count(Math.round(rate))],
  ]);
}

function draw(rates) {
  const top = Math.max(1, ...rates);
  const points = rates.map((r, i) => `${(i * 120) / (POINTS - 1)},${(26 - (r / top) * 24).toFixed(1)}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  byId("spark").replaceChildren(line);
}
