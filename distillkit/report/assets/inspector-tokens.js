"use strict";
// One completion's tokens in colour: one stop of the tab key, arrows move between tokens, and what is known of one is told.
const inspectorTokens = (() => {
  const { inText, alone, number, signed } = inspectorData;
  const AT_ONCE = 5000;
  const PUSHES = [0.1, 0.5, 1.5, 4];

  /** Ways to colour: what is coloured, its steps, and whether it has two sides. */
  function modesOf(completions) {
    const has = (key) => completions.some((each) => each.has(key));
    const steps = (key, round) => {
      const largest = Math.max(...completions.filter((c) => c.has(key)).slice(0, 200).flatMap((c) => c.array(key)).filter(Number.isFinite).map(Math.abs).concat(1e-9));
      return [0.25, 0.5, 0.75, 1].map((part) => Number((part * largest).toPrecision(round)));
    };
    const modes = [{ id: "gap", label: has("a") ? "gap of the logprobs" : "advantage (the gap of the logprobs)", unit: "nats", of: (c) => c.gap, steps: PUSHES, sides: 2 }];
    if (has("a")) modes.push({ id: "a", label: "advantage", unit: "", of: (c) => (c.stage === "train" ? c.push : c.gap.map(() => NaN)), steps: advantageSteps(completions), sides: 2 });
    if (has("g")) modes.push({ id: "g", label: "weight", unit: "", of: (c) => c.array("g"), steps: steps("g", 2), sides: 1 });
    if (has("e")) modes.push({ id: "e", label: "student's entropy", unit: "nats", of: (c) => c.array("e"), steps: [0.1, 0.5, 1, 2], sides: 1 });
    if (has("h")) modes.push({ id: "h", label: "teacher's rank of the token", unit: "", of: (c) => c.array("h").map((rank) => (rank === 0 ? 99 : rank)), steps: [2, 3, 5, 99], sides: 1, rank: true });
    return modes;
  }

  function advantageSteps(completions) {
    const all = completions.filter((c) => c.has("a")).slice(0, 200).flatMap((c) => c.push).filter(Number.isFinite).map(Math.abs).sort((a, b) => a - b);
    const high = all[Math.floor(all.length * 0.98)] || 1;
    return [high / 40, high / 8, high / 2.7, high].map((x) => Number(x.toPrecision(1)));
  }

  /** The class of a value: u1 to u4 above 0, d1 to d4 below, s1 to s4 on a scale of one side. */
  function shade(value, mode) {
    if (!Number.isFinite(value)) return "unknown";
    const level = mode.steps.filter((step) => Math.abs(value) >= step * 0.999).length;
    return level ? `${mode.sides === 1 ? "s" : value > 0 ? "u" : "d"}${level}` : "";
  }

  function legend(mode) {
    const box = document.createElement("div");
    box.className = "token-legend";
    const add = (text, shadeOf) => {
      const item = document.createElement("span");
      item.className = `shade ${shadeOf}`;
      item.textContent = text;
      box.append(item);
    };
    const text = (step) => (mode.rank ? (step === 99 ? "not in its top-K" : `${step}th or later`) : String(step));
    if (mode.sides === 2) [...mode.steps].reverse().forEach((step, at) => add(`≤ −${step}`, `d${4 - at}`));
    add(mode.rank ? "1st" : mode.sides === 2 ? "about 0" : `< ${mode.steps[0]}`, "");
    mode.steps.forEach((step, at) => add(mode.rank ? { 2: "2nd", 3: "3rd, 4th", 5: "5th or later" }[step] ?? text(step) : `≥ ${mode.sides === 2 ? "+" : ""}${step}`, `${mode.sides === 2 ? "u" : "s"}${at + 1}`));
    const said = document.createElement("span");
    said.className = "legend-words";
    said.textContent = mode.sides === 2 ? `${mode.unit || "advantage"}; orange, dotted: pushed down; blue, underlined: pushed up` : mode.unit;
    box.append(said);
    return box;
  }

  const spoken = (completion, at) => `${alone(completion.tokens[at])}: push ${signed(completion.push[at])}, student ${number(completion.array("u")[at])}, teacher ${number(completion.array("v")[at])}`;

  function tokenElement(completion, at, mode) {
    const element = document.createElement("span");
    const token = completion.tokens[at];
    element.className = `token ${shade(mode.of(completion)[at], mode)}`;
    if (completion.special.has(at)) element.classList.add("special");
    element.textContent = token === "" ? "·" : inText(token);
    if (token === "") element.classList.add("part");
    element.setAttribute("role", "option");
    element.setAttribute("aria-selected", "false");
    element.tabIndex = -1;
    element.dataset.at = at;
    return element;
  }

  /** Masked turns folded: a button in the place of the tokens that the policy did not sample. */
  function fold(completion, low, high) {
    const details = document.createElement("details");
    details.className = "masked";
    const summary = document.createElement("summary");
    summary.textContent = `${high - low} tokens that the student did not write`;
    const text = document.createElement("div");
    text.textContent = completion.tokens.slice(low, high).map(inText).join("");
    details.append(summary, text);
    return details;
  }

  function group(label) {
    const box = document.createElement("div");
    box.className = "tokens";
    box.dir = "auto";
    box.setAttribute("role", "listbox");
    box.setAttribute("aria-label", label);
    return box;
  }

  /** The element of a completion's tokens. `tell(completion, position)` is called for what is pointed at or focused. */
  function view(completion, mode, label, tell) {
    const box = document.createElement("div");
    box.className = "token-view";
    const elements = new Map();
    const folds = completion.masked;
    let next = 0;

    function more(until) {
      let list = null;
      for (; next < completion.tokens.length && next < until; ) {
        const folded = folds.find(([low]) => low === next);
        if (folded) {
          box.append(fold(completion, ...folded));
          [next, list] = [folded[1], null];
          continue;
        }
        if (!list) box.append((list = group(label)));
        const element = tokenElement(completion, next, mode);
        elements.set(next, element);
        list.append(element);
        next += 1;
      }
      if (next < completion.tokens.length) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "more";
        button.textContent = `Show ${Math.min(AT_ONCE, completion.tokens.length - next)} more of ${completion.tokens.length} tokens`;
        button.addEventListener("click", () => { button.remove(); const from = next; more(next + AT_ONCE); focus(from); });
        box.append(button);
      }
    }

    let current = null;
    function select(at) {
      if (current !== null) { elements.get(current).tabIndex = -1; elements.get(current).setAttribute("aria-selected", "false"); }
      current = at;
      const element = elements.get(at);
      element.tabIndex = 0;
      element.setAttribute("aria-selected", "true");
      element.setAttribute("aria-label", spoken(completion, at));
      tell(completion, at);
    }
    function focus(at) {
      if (at >= next && at < completion.tokens.length) { box.querySelector(".more")?.remove(); more(at + AT_ONCE); }
      if (!elements.has(at)) return;
      select(at);
      elements.get(at).focus();
      elements.get(at).scrollIntoView({ block: "nearest" });
    }
    const at = (event) => { const found = event.target.closest?.(".token"); return found ? Number(found.dataset.at) : null; };
    const beside = (from, step) => { let to = from + step; while (to >= 0 && to < completion.tokens.length && !elements.has(to)) to += step; return elements.has(to) ? to : from; };
    /** The token of the line above or below that is nearest. */
    function line(from, step) {
      const here = elements.get(from).getBoundingClientRect();
      let [best, distance, top] = [from, Infinity, null];
      for (let to = beside(from, step), last = from; to !== last; [last, to] = [to, beside(to, step)]) {
        const there = elements.get(to).getBoundingClientRect();
        if (Math.abs(there.top - here.top) < 4) continue;
        if (top !== null && Math.abs(there.top - top) > 4) break;
        top = there.top;
        if (Math.abs(there.left - here.left) < distance) [best, distance] = [to, Math.abs(there.left - here.left)];
      }
      return best;
    }
    box.addEventListener("keydown", (event) => {
      const from = at(event);
      if (from === null || event.ctrlKey || event.metaKey || event.altKey) return;
      const keys = [...elements.keys()];
      const moves = { ArrowRight: () => beside(from, 1), ArrowLeft: () => beside(from, -1), ArrowDown: () => line(from, 1), ArrowUp: () => line(from, -1), Home: () => keys[0], End: () => keys[keys.length - 1], n: () => hardest(from, -1), p: () => hardest(from, 1) };
      if (!moves[event.key]) return;
      event.preventDefault();
      focus(moves[event.key]());
    });
    /** The next token behind `from` that is pushed strongly down (-1) or up (1), from the start again at the end. */
    function hardest(from, sign) {
      const keys = [...elements.keys()];
      const order = [...keys.filter((to) => to > from), ...keys.filter((to) => to <= from)];
      return order.find((to) => sign * completion.push[to] >= PUSHES[2]) ?? from;
    }
    box.addEventListener("focusin", (event) => { const found = at(event); if (found !== null && found !== current) select(found); else if (found !== null) tell(completion, found); });
    box.addEventListener("pointerover", (event) => { const found = at(event); if (found !== null) tell(completion, found); });
    box.addEventListener("click", (event) => { const found = at(event); if (found !== null) focus(found); });
    more(AT_ONCE);
    const first = elements.keys().next();
    if (!first.done) { const element = elements.get(first.value); element.tabIndex = 0; current = first.value; element.setAttribute("aria-label", spoken(completion, first.value)); }
    return { box, focus, recolour: (other) => elements.forEach((element, place) => {
      element.className = element.className.replace(/\b(?:[uds][1-4]|unknown)\b/g, "").trim();
      const name = shade(other.of(completion)[place], other);
      if (name) element.classList.add(name);
    }) };
  }
  return { view, legend, modesOf, shade };
})();
