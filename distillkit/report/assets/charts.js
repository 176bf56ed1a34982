"use strict";
// Draws the charts of the section "curves" with uPlot, from the data beside it. Texts go into the page as text only.
(() => {
  const holder = document.getElementById("data-curves");
  if (!holder || !window.uPlot) return;
  const { runs, steps, charts } = JSON.parse(holder.textContent);
  const ALL = "all", dashes = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const labels = [...new Set(charts.flatMap((chart) => chart.curves.map((curve) => curve.label)))].filter((l) => l !== ALL);
  const slots = new Map();  // a route has the same colour in every chart; what is in one chart only begins anew there
  const shared = labels.filter((l) => charts.filter((chart) => chart.curves.some((curve) => curve.label === l)).length > 1);
  shared.forEach((label, at) => slots.set(label, at));
  const colour = (slot) => style(`--curve-${(slot % 7) + 1}`);
  const look = (chart, curve) => {
    const own = chart.curves.map((each) => each.label).filter((l, at, all) => l !== ALL && all.indexOf(l) === at);
    const slot = slots.has(curve.label) ? slots.get(curve.label) : own.indexOf(curve.label);
    if (runs.length > 1) {
      const order = [ALL, ...own].filter((l) => chart.curves.some((each) => each.label === l));
      return { stroke: colour(curve.run), dash: dashes[order.indexOf(curve.label) % dashes.length] };
    }
    return curve.label === ALL ? { stroke: style("--text"), dash: [] } : { stroke: colour(slot), dash: dashes[Math.floor(slot / 7) % 4] };
  };
  const digits = (value) => {
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(2);
    if (size !== 0 && size < 0.01) return value.toLocaleString("en", { maximumSignificantDigits: 3 });
    return value.toLocaleString("en", { maximumFractionDigits: size < 1 ? 3 : size < 10 ? 2 : size < 100 ? 1 : 0 });
  };
  const text = (kind, value) => value == null ? "–" : kind === "share" ? `${digits(100 * value)}%` : digits(value);
  const named = (curve) => runs.length > 1 ? (curve.label === ALL ? runs[curve.run] : `${runs[curve.run]} · ${curve.label}`) : curve.label;
  const smoothed = (values, weight) => {
    let sum = 0, norm = 0;
    return weight ? values.map((v) => { if (v == null) return v; sum = weight * sum + (1 - weight) * v; norm = weight * norm + 1 - weight; return sum / norm; }) : values;
  };
  const element = (name, content = "") => { const made = document.createElement(name); made.textContent = content; return made; };

  let plots = [], smoothing = 0, printing = false;
  const draw = (figure, chart) => {
    const at = figure.querySelector(".plot"), legend = figure.querySelector(".legend");
    at.replaceChildren();
    const width = Math.max(220, printing ? 330 : at.clientWidth);
    const tables = chart.curves.map((curve) => [steps[curve.x], smoothed(curve.y, smoothing)]);
    const data = tables.length > 1 ? uPlot.join(tables) : tables[0];
    const points = Math.max(...chart.curves.map((curve) => curve.y.length));
    const series = chart.curves.map((curve) => {
      const { stroke, dash } = look(chart, curve);
      return { label: named(curve), stroke, dash, width: curve.label === ALL ? 2 : 1.5, spanGaps: true,
        points: { show: points <= 60, size: points <= 25 ? 5 : 3, fill: stroke } };
    });
    const axis = { stroke: style("--muted"), grid: { stroke: style("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const range = (u, low, high) => {
      if (low == null) return [0, 1];
      if (low === high) return low === 0 ? [0, 1] : [Math.min(0, low), Math.max(0, high) * 1.1 || 1];
      const pad = (high - low) * 0.08, from = low >= 0 && low < (high - low) ? 0 : low - pad;
      return [from, high + pad];
    };
    const plot = new uPlot({
      width, height: Math.round(Math.min(230, Math.max(170, width * 0.52))), legend: { show: false }, padding: [8, 10, 0, 0],
      cursor: { sync: { key: "steps" }, focus: { prox: 24 }, points: { size: 7 } }, scales: { x: { time: false }, y: { range } },
      series: [{}, ...series],
      axes: [{ ...axis, values: (u, ticks) => ticks.map((t) => Number.isInteger(t) ? t.toLocaleString("en") : "") , size: 28, gap: 4 },
        { ...axis, size: 52, gap: 4, values: (u, ticks) => ticks.map((t) => text(chart.kind, t)) }],
      hooks: { setCursor: [(u) => values(u.cursor.idx)] },
    }, data, at);
    const shown = chart.curves.map((curve, i) => {
      const item = element("span"), key = element("i"), value = element("b");
      item.className = "key";
      key.style.borderTopColor = series[i].stroke;
      key.style.borderTopStyle = series[i].dash.length ? (series[i].dash[0] < 5 ? "dotted" : "dashed") : "solid";
      if (chart.curves.length > 1 || curve.label !== ALL) item.append(key, element("span", named(curve)), value);
      else item.append(value);
      return { item, value };
    });
    legend.replaceChildren(...shown.map(({ item }) => item), element("span"));
    const step = legend.lastChild;
    step.className = "at";
    const values = (idx) => {
      shown.forEach(({ value }, i) => { value.textContent = idx == null ? "" : text(chart.kind, data[i + 1][idx]); });
      step.textContent = idx == null ? "" : `step ${data[0][idx].toLocaleString("en")}`;
    };
    return { plot, at };
  };

  const table = (figure, chart) => {
    const into = figure.querySelector(".numbers .scroll");
    if (into.firstChild) return;
    const made = element("table"), head = element("thead"), body = element("tbody"), row = element("tr");
    const thinned = chart.curves.some((curve) => !curve.whole);
    made.append(element("caption", `${chart.title}${chart.unit ? `, ${chart.unit}` : ""}${thinned ? "; the smallest and largest of each part, all are in metrics.jsonl" : ""}`), head, body);
    head.append(row);
    for (const name of ["step", ...chart.curves.map(named)]) { const cell = element("th", name); cell.scope = "col"; row.append(cell); }
    const all = chart.curves.map((curve) => [steps[curve.x], curve.y]);
    const [at, ...columns] = all.length > 1 ? uPlot.join(all) : all[0];
    at.forEach((step, i) => {
      const line = element("tr"), first = element("th", step.toLocaleString("en"));
      first.scope = "row";
      line.append(first, ...columns.map((values) => element("td", text(chart.kind, values[i]))));
      body.append(line);
    });
    into.append(made);
  };

  const figures = charts.map((chart) => [document.getElementById(`chart-${chart.id}`), chart]).filter(([figure]) => figure);
  const visible = ([figure]) => figure.querySelector(".plot").clientWidth > 0;
  const redraw = () => {
    plots.forEach((each) => each.plot.destroy());
    plots = figures.filter((each) => printing || visible(each)).map(([figure, chart]) => draw(figure, chart));
  };
  figures.forEach(([figure, chart]) => figure.querySelector(".numbers").addEventListener("toggle", () => table(figure, chart)));
  document.querySelectorAll("details.chart-group").forEach((each) => each.addEventListener("toggle", () => { if (!printing) redraw(); }));
  document.addEventListener("themechange", redraw);
  let width = innerWidth, waits = 0;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; clearTimeout(waits); waits = setTimeout(redraw, 120); } });
  addEventListener("beforeprint", () => { printing = true; document.documentElement.classList.add("printing"); redraw(); });
  addEventListener("afterprint", () => { printing = false; document.documentElement.classList.remove("printing"); redraw(); });
  const controls = document.querySelector(".charts-controls"), slider = document.getElementById("smoothing");
  if (controls) { controls.hidden = false; slider.addEventListener("input", () => { smoothing = Number(slider.value); redraw(); }); }
  redraw();
})();
