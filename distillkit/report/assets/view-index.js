"use strict";
// The list of runs: drawn from what the page holds, then every two seconds from what the server says.
(() => {
  const SECONDS = 2;
  const list = document.getElementById("view-runs");
  const state = document.getElementById("view-state");
  const said = state.textContent;
  const SVG = "http://www.w3.org/2000/svg";

  function curve(points) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 160 36");
    svg.setAttribute("role", "img");
    if (points.length < 2) {
      svg.setAttribute("aria-label", "reverse KL: not yet");
      return svg;
    }
    const [first, last] = [points[0], points[points.length - 1]];
    svg.setAttribute("aria-label", `reverse KL, nats a token: ${first[1].toFixed(3)} at step ${first[0]}, ${last[1].toFixed(3)} at step ${last[0]}`);
    const values = points.map(([, value]) => value);
    const [low, high] = [Math.min(0, ...values), Math.max(...values, 1e-9)];
    const x = (step) => 2 + 156 * (step - first[0]) / (last[0] - first[0] || 1);
    const y = (value) => 34 - 32 * (value - low) / (high - low || 1);
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" "));
    svg.append(line);
    return svg;
  }

  function card(run) {
    const item = document.createElement("li");
    const link = Object.assign(document.createElement("a"), { href: `run/${run.key}/`, textContent: run.name, dir: "auto" });
    const status = Object.assign(document.createElement("span"), { className: `status ${run.status}`, textContent: run.status });
    const heading = document.createElement("h3");
    heading.append(link);
    const value = run.curve.length ? `reverse KL ${run.curve[run.curve.length - 1][1].toFixed(3)}` : "";
    const facts = [run.path === run.name ? "" : run.path, `${run.step.toLocaleString("en")} ${run.step === 1 ? "step" : "steps"}`, value, new Date(1000 * run.changed).toLocaleString()];
    const about = Object.assign(document.createElement("p"), { className: "note", textContent: facts.filter(Boolean).join(" · "), dir: "auto" });
    const verdict = Object.assign(document.createElement("p"), { textContent: run.verdict || (run.status === "running" ? "Still training." : "No verdict: the run has not come to its end.") });
    const text = document.createElement("div");
    text.append(heading, status, about, verdict);
    item.append(text, curve(run.curve));
    return item;
  }

  let drawn = "";
  function draw(runs) {
    const now = JSON.stringify(runs);
    if (now === drawn) return;
    drawn = now;
    const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    list.replaceChildren(...runs.map(card));
    if (focused) list.querySelector(`a[href="${focused}"]`)?.focus();
    state.textContent = runs.length ? said : "No runs in this folder yet; they appear here when they begin.";
  }

  async function poll() {
    try {
      const response = await fetch("runs.json", { cache: "no-store" });
      if (!response.ok) throw new Error(String(response.status));
      draw((await response.json()).runs);
    } catch {
      state.textContent = "`distillkit view` does not answer any more: what stands here is what it said last.";
      drawn = "";
    }
    setTimeout(poll, 1000 * SECONDS);
  }
  draw(JSON.parse(document.getElementById("data-runs").textContent).runs);
  setTimeout(poll, 1000 * SECONDS);
})();
