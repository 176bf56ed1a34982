"use strict";
// Above a report that is served: asks whether the run's files have changed. Whoever has begun to read is not interrupted.
(() => {
  const SECONDS = 3;
  const { version } = JSON.parse(document.getElementById("data-live").textContent);
  const state = document.getElementById("live-state");
  const button = document.getElementById("live-show");
  let reading = location.hash.length > 1;
  for (const kind of ["pointerdown", "keydown", "input"]) document.addEventListener(kind, () => { reading = true; }, { capture: true });
  button.addEventListener("click", () => location.reload());

  async function poll() {
    try {
      const response = await fetch("version.json", { cache: "no-store" });
      if (!response.ok) throw new Error(String(response.status));
      const changed = (await response.json()).version !== version;
      state.textContent = changed ? "The run has gone on." : "Up to date; this page follows the run.";
      button.hidden = !changed;
      if (changed && !reading) { location.reload(); return; }
    } catch {
      state.textContent = "`distillkit view` does not answer any more.";
    }
    setTimeout(poll, 1000 * SECONDS);
  }
  setTimeout(poll, 1000);
})();
