// Light, dark, or as the system has it.

import { byId, el } from "./dom.js";

const KEY = "dspy-live-theme";
const ORDER = ["system", "light", "dark"];
const SIGNS = { system: ["◐", "System"], light: ["☀", "Light"], dark: ["☾", "Dark"] };

export function setUpTheme() {
  let theme = localStorage.getItem(KEY) ?? "system";
  const button = byId("theme");
  const show = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const [sign, name] = SIGNS[theme];
    button.replaceChildren(sign, el("span", { class: "sign-name" }, ` ${name}`));
    button.setAttribute("aria-label", `Colour theme: ${theme}. Change it`);
  };
  button.addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    localStorage.setItem(KEY, theme);
    show();
  });
  show();
}
