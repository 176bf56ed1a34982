"use strict";
// The inspector: a list of completions to filter, sort and search, and beside it one of them with its tokens in colour.
(() => {
  const root = document.getElementById("inspector");
  if (!root) return;
  const { load, alone, printable, number, signed } = inspectorData;
  const { view, legend, modesOf, shade } = inspectorTokens;
  const PAGE = 25;
  const data = load("data-tokens");
  const all = data.completions;
  const modes = modesOf(all);
  const state = { search: "", route: "", run: "", when: "", finish: "", sort: "", page: 0, open: null, mode: modes[0] };
  const SORTS = {
    "": ["as recorded", null],
    lowest: ["token pushed down most", (c) => c.lowest],
    sum: ["gap in all: lowest first", (c) => c.sum],
    "-sum": ["gap in all: highest first", (c) => -c.sum],
    mean: ["gap a token: lowest first", (c) => c.mean],
    "-mean": ["gap a token: highest first", (c) => -c.mean],
    "-length": ["longest first", (c) => -c.length],
    length: ["shortest first", (c) => c.length],
  };
  let found = all;
  let views = [];

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in element && name !== "list") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function choice(name, label, options) {
    const select = make("select", { id: `inspector-${name}` });
    for (const [value, text] of options) select.append(make("option", { value, textContent: text }));
    select.addEventListener("change", () => { state[name] = select.value; refresh(); });
    return make("label", { className: "field" }, make("span", { textContent: label }), select);
  }

  function controls() {
    const form = make("form", { className: "inspector-controls", role: "search", "aria-label": "Completions" });
    form.addEventListener("submit", (event) => event.preventDefault());
    const search = make("input", { type: "search", id: "inspector-search", autocomplete: "off", spellcheck: false });
    search.addEventListener("input", () => { state.search = search.value; refresh(); });
    form.append(make("label", { className: "field wide" }, make("span", { textContent: "search in text" }), search));
    if (data.runs.length > 1) form.append(choice("run", "run", [["", "all runs"], ...data.runs.map((name, at) => [at, printable(name)])]));
    if (data.routes.length > 1) form.append(choice("route", "route", [["", "all routes"], ...data.routes.map((name, at) => [at, printable(name)])]));
    form.append(choice("when", "written", whens()), choice("finish", "ended", [["", "either way"], ["stop", "by itself"], ["length", "cut at the limit"]]));
    form.append(choice("sort", "order", Object.entries(SORTS).map(([value, [text]]) => [value, text])));
    return form;
  }

  function whens() {
    const stages = new Set(all.map((each) => each.stage));
    const steps = [...new Set(all.filter((each) => each.stage === "train" || each.stage === "during").map((each) => each.when))];
    const order = (text) => Number(text.match(/\d+/)) + (text.startsWith("e") ? 0.5 : 0);
    const named = { train: "in training", before: "before training", during: "evaluations during it", after: "after training" };
    return [["", "at any time"], ...Object.entries(named).filter(([stage]) => stages.has(stage)),
      ...(steps.length > 1 ? steps.sort((a, b) => order(a) - order(b)).map((text) => [text, text]) : [])];
  }

  function matches(each) {
    return (state.route === "" || each.route === Number(state.route)) && (state.run === "" || each.run === Number(state.run))
      && (state.when === "" || each.stage === state.when || each.when === state.when)
      && (state.finish === "" || each.cut === (state.finish === "length"))
      && (state.search === "" || each.searched.includes(state.search.toLowerCase()));
  }

  function refresh() {
    found = all.filter(matches);
    const [, by] = SORTS[state.sort];
    if (by) found = found.map((each) => [by(each), each]).sort((a, b) => a[0] - b[0] || a[1].index - b[1].index).map(([, each]) => each);
    state.page = 0;
    list();
  }

  const count = make("p", { className: "note count", role: "status" });
  const rows = make("ol", { className: "completion-list" });
  const pager = make("nav", { className: "pager", "aria-label": "Pages of completions" });

  function list() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const first = state.page * PAGE;
    const counted = found.length === all.length ? `${all.length.toLocaleString("en")} completions` : `${found.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} completions`;
    count.textContent = all.length === 1 ? "1 completion" : counted;
    rows.start = first + 1;
    rows.replaceChildren(...found.slice(first, first + PAGE).map(row));
    pager.replaceChildren();
    if (pages === 1) return;
    const turn = (text, to, off) => {
      const button = make("button", { type: "button", textContent: text, disabled: off });
      button.addEventListener("click", () => { state.page = to; list(); pager.querySelectorAll("button")[text.startsWith("N") ? 1 : 0].focus(); });
      return button;
    };
    pager.append(turn("Previous", state.page - 1, state.page === 0), make("span", { textContent: `${state.page + 1} of ${pages.toLocaleString("en")}` }), turn("Next", state.page + 1, state.page === pages - 1));
  }

  function row(each) {
    const gap = make("span", { className: `mean ${shade(each.mean, { steps: [0.02, 0.1, 0.3, 1], sides: 2 })}`, textContent: signed(each.mean), title: "mean gap, nats a token" });
    const tags = make("span", { className: "tags" }, gap, make("span", { textContent: each.when }));
    if (data.routes.length > 1) tags.append(make("span", { className: "route", dir: "auto", textContent: printable(data.routes[each.route]) }));
    if (data.runs.length > 1) tags.append(make("span", { dir: "auto", textContent: printable(data.runs[each.run]) }));
    tags.append(make("span", { textContent: `${each.length.toLocaleString("en")} tokens` }));
    if (each.cut) tags.append(make("span", { className: "cut", textContent: "cut" }));
    const text = make("span", { className: "snippet", dir: "auto", textContent: printable(each.tokens.slice(0, 40).join("").replace(/\s+/g, " ").trim()) });
    const button = make("button", { type: "button", className: "completion" }, tags, text);
    button.dataset.index = each.index;
    if (each.index === state.open) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => open(each.index));
    return make("li", {}, button);
  }

  const detail = make("div", { className: "detail", id: "inspector-detail", role: "region", "aria-label": "One completion", tabIndex: -1 });
  const readout = make("div", { className: "readout", role: "region", "aria-label": "The token pointed at" });

  /** The same row's completions at other times, first and last evaluation: what changed. */
  function partners(each) {
    if (each.stage === "train") return [each];
    const same = all.filter((other) => other.key === each.key);
    const order = { before: 0, during: 1, after: 2 };
    same.sort((a, b) => order[a.stage] - order[b.stage] || a.step - b.step);
    const ends = [same[0], same[same.length - 1]];
    return [...new Set(each === same[0] || each === same[same.length - 1] ? ends : [same[0], each])];
  }

  function open(index, position = null) {
    const each = all[index];
    state.open = index;
    mark(each);
    const shown = partners(each);
    views = shown.map((one) => [one, view(one, state.mode, `Tokens, ${one.when}`, tell)]);
    const sides = make("div", { className: shown.length > 1 ? "sides two" : "sides" }, ...views.map(([one, made]) => side(one, made)));
    const question = make("p", { className: "question", dir: "auto", textContent: printable(each.question.length > 300 ? `${each.question.slice(0, 300)} …` : each.question) });
    const about = make("p", { className: "note", dir: "auto", textContent: printable(`row ${data.rows[each.row]}, route ${data.routes[each.route]}`) });
    detail.replaceChildren(question, about, colours(), sides, readout, inspectorPrompts.view(each));
    const [one, made] = views.find(([other]) => other === each);
    if (position !== null) made.focus(position);
    else tell(one, one.lowestAt);
  }

  /** In the list, which is turned to the page where it stands. */
  function mark(each) {
    const place = found.indexOf(each);
    if (place >= 0 && Math.floor(place / PAGE) !== state.page) {
      state.page = Math.floor(place / PAGE);
      list();
    }
    for (const button of rows.querySelectorAll("button")) button.removeAttribute("aria-current");
    const button = rows.querySelector(`[data-index="${each.index}"]`);
    if (!button) return;
    button.setAttribute("aria-current", "true");
    const [top, bottom] = [button.offsetTop - rows.offsetTop, button.offsetTop - rows.offsetTop + button.offsetHeight];
    if (top < rows.scrollTop || bottom > rows.scrollTop + rows.clientHeight) rows.scrollTop = top;
  }

  function side(one, made) {
    const facts = `${one.length.toLocaleString("en")} tokens, ${one.cut ? "cut at the limit" : "ended by itself"}; gap ${signed(one.mean)} nats a token, ${signed(one.sum)} in all`;
    return make("div", { className: "side" }, make("h4", { textContent: one.when }), make("p", { className: "note", textContent: facts }), made.box);
  }

  function colours() {
    const key = make("div", {}, legend(state.mode));
    const select = make("select", { id: "inspector-colour" });
    for (const mode of modes) select.append(make("option", { value: mode.id, textContent: mode.label, selected: mode === state.mode }));
    select.addEventListener("change", () => {
      state.mode = modes.find((mode) => mode.id === select.value);
      key.replaceChildren(legend(state.mode));
      for (const [, made] of views) made.recolour(state.mode);
    });
    return make("div", { className: "colours" }, make("label", { className: "field" }, make("span", { textContent: "coloured by" }), select), key);
  }

  /** All that is known of one token. */
  function tell(one, at) {
    const facts = make("dl", { className: "token-facts" });
    const add = (name, value, className = "") => facts.append(make("div", { className }, make("dt", { textContent: name }), make("dd", { textContent: value })));
    const chance = (value) => `${number(value)} (${number(100 * Math.exp(value), 1)}%)`;
    add("student", chance(one.array("u")[at]));
    add(one.has("o") ? "teachers' mixture" : "teacher", chance(one.array("v")[at]));
    for (const [name, values] of one.each) add(printable(name), chance(values[at]));
    add("gap", `${signed(one.gap[at])} nats`, shade(one.gap[at], modes.find((mode) => mode.id === "gap")));
    if (one.has("a")) add("advantage", signed(one.array("a")[at]));
    if (one.has("g")) add("weight", String(Number(one.array("g")[at].toPrecision(4))));
    if (one.has("e")) add("entropy", `${number(one.array("e")[at])} nats`);
    if (one.has("h")) add("teacher's rank", one.array("h")[at] === 0 ? "not in its top-K" : String(one.array("h")[at]));
    const tables = one.topkAt(at).map(([name, top]) => make("table", { className: "topk" }, make("caption", { textContent: `${printable(name)}: most probable` }),
      make("tbody", {}, ...top.map(([token, value]) => make("tr", { className: token === one.tokens[at] ? "sampled" : "" }, make("th", { scope: "row" }, make("code", { textContent: alone(token) })), make("td", { textContent: `${number(100 * Math.exp(value), 1)}%` }))))));
    const kind = one.special.has(at) ? ", special" : "";
    const title = make("p", { className: "readout-title" }, make("code", { dir: "auto", textContent: alone(one.tokens[at]) }), ` token ${at + 1} of ${one.length}${kind}, ${one.when}`);
    readout.replaceChildren(title, facts, ...tables);
  }

  /** Links of the tables above, and of anyone who sends one: #completion-NUMBER-TOKEN. */
  function follow() {
    const [, index, position] = location.hash.match(/^#completion-(\d+)-(\d+)$/) ?? [];
    if (index === undefined || !all[index]) return;
    open(Number(index), Math.min(Number(position), all[index].length - 1));
    detail.scrollIntoView({ block: "nearest" });
  }

  const help = make("p", { className: "note keys", textContent: "In the tokens: arrows, Home, End; n and p go to the next token that is pushed down or up by 1.5 or more." });
  root.append(controls(), make("div", { className: "inspector-panes" }, make("div", { className: "pane" }, count, rows, pager), make("div", { className: "pane" }, detail, help)));
  refresh();
  const start = all.findIndex((each) => each.stage === "after");
  open(start < 0 ? 0 : start);
  window.addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => { if (event.target.closest?.(`a[href="${location.hash}"]`)) follow(); });
  follow();
})();
