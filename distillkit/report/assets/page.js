"use strict";
// The theme: as the system has it, or light or dark as the reader chose. Others listen to `themechange`.
(() => {
  const root = document.documentElement, button = document.getElementById("theme"), key = "distillkit-theme";
  const names = { auto: "as the system", light: "light", dark: "dark" };
  let theme = "auto";
  try { theme = localStorage.getItem(key) || "auto"; } catch { /* no storage for files */ }
  const show = () => {
    if (!(theme in names)) theme = "auto";
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    if (button) button.querySelector("span").textContent = names[theme];
    document.dispatchEvent(new CustomEvent("themechange"));
  };
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const all = Object.keys(names);
      theme = all[(all.indexOf(theme) + 1) % all.length];
      try { localStorage.setItem(key, theme); } catch { /* it holds for this visit */ }
      show();
    });
  }
  show();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  // What is folded is opened for paper, and folded again behind it.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open]):not(.numbers):not(.chart-group)")];
    opened.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => { opened.forEach((each) => { each.open = false; }); });
  // The part of the page that is on the screen is marked in the table of contents.
  const links = new Map([...document.querySelectorAll("nav.contents a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      links.forEach((a) => a.removeAttribute("aria-current"));
      links.get(target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  document.querySelectorAll("main > section").forEach((section) => seen.observe(section));
})();
