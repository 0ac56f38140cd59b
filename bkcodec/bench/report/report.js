"use strict";
let remember = () => {}; // puts the state into the address, once everything is there
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const fill = (select, options, chosen) => {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (chosen !== undefined) select.value = chosen;
};
const show = (value, metric) => value == null ? "–" : value.toFixed(metric.digits);

// Rate-distortion chart
const NS = "http://www.w3.org/2000/svg", hidden = new Set();
const dark = matchMedia("(prefers-color-scheme: dark)");
const SHAPES = ["M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0", "M-5-5h10v10h-10z", "M0-6L6 5H-6z", "M0-7L6 0 0 7-6 0z", "M0 6L6-5H-6z",
  "M-6-2h4v-4h4v4h4v4h-4v4h-4v-4h-4z", "M-5-5L0-2 5-5 2 0 5 5 0 2-5 5-2 0z"];
const make = (tag, attributes, text) => {
  const node = document.createElementNS(NS, tag);
  for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
  if (text !== undefined) node.textContent = text;
  return node;
};
const scaled = (metric, v) => metric.scale ? -10 * Math.log10(Math.max(1e-6, 1 - v)) : v;
const series = [...data.codecs.filter((c) => c.kind !== "ceiling").map((c) => ({ name: c.name })), ...data.overlays.map((o) => ({ name: o.name, overlay: o }))];
series.forEach((one, i) => { one.colour = () => (dark.matches ? data.colours.dark : data.colours.light)[i % data.colours.light.length]; one.shape = SHAPES[i % SHAPES.length]; });
function points(one, metric) {
  if (one.overlay) return (one.overlay.metrics[metric.name] ?? []).map((y, i) => ({ x: one.overlay.bpp[i], y }));
  return data.points.filter((p) => p.codec === one.name && p.rates[metric.name] && p.metrics[metric.name] != null)
    .map((p) => ({ x: p.rates[metric.name], y: p.metrics[metric.name], q: p.quality }));
}
function ticks(low, high, count) {
  const raw = (high - low) / count, base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * base).find((s) => s >= raw * 0.999);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(+v.toPrecision(6));
  return found;
}
function rateTicks(low, high) {
  const usual = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10].filter((v) => Math.log10(v) > low && Math.log10(v) < high);
  return usual.length > 1 ? usual : ticks(10 ** low, 10 ** high, 4).filter((v) => v > 0);
}
function draw() {
  const metric = data.metrics.find((m) => m.name === $("metric").value), chart = $("chart");
  const narrow = chart.clientWidth < 600, W = narrow ? 420 : 800, H = narrow ? 360 : 460;
  const visible = series.filter((one) => !hidden.has(one.name)).map((one) => ({ one, points: points(one, metric) })).filter((l) => l.points.length);
  chart.setAttribute("viewBox", `0 0 ${W} ${H}`);
  chart.replaceChildren();
  if (!visible.length) { chart.append(make("text", { x: W / 2, y: H / 2, "text-anchor": "middle" }, "Nothing to draw")); return; }
  const every = visible.flatMap((l) => l.points), xs = every.map((p) => Math.log10(p.x)), ys = every.map((p) => scaled(metric, p.y));
  const x0 = Math.min(...xs) - 0.05, x1 = Math.max(...xs) + 0.05, pad = (Math.max(...ys) - Math.min(...ys) || 1) * 0.06;
  const y0 = Math.min(...ys) - pad, y1 = Math.max(...ys) + pad;
  const X = (v) => 60 + (v - x0) / (x1 - x0) * (W - 80), Y = (v) => H - 50 - (v - y0) / (y1 - y0) * (H - 70);
  for (const v of ticks(y0, y1, 6)) chart.append(make("line", { class: "grid", x1: 60, x2: W - 20, y1: Y(v), y2: Y(v) }), make("text", { x: 52, y: Y(v) + 4, "text-anchor": "end" }, v));
  for (const v of rateTicks(x0, x1)) {
    const x = X(Math.log10(v));
    chart.append(make("line", { class: "grid", x1: x, x2: x, y1: 20, y2: H - 50 }), make("text", { x, y: H - 32, "text-anchor": "middle" }, v));
  }
  const unit = metric.scale ? ` as ${metric.scale}` : "";
  chart.append(make("text", { x: W / 2 + 20, y: H - 10, "text-anchor": "middle" }, "bits per pixel (bytes on disk)"), make("text", { x: 62, y: 14 }, metric.label + unit));
  for (const { one, points } of visible) {
    const at = points.map((p) => [X(Math.log10(p.x)), Y(scaled(metric, p.y))]), colour = one.colour();
    chart.append(make("polyline", { class: one.overlay ? "curve overlay" : "curve", stroke: colour, points: at.join(" ") }));
    points.forEach((p, i) => {
      const text = `${one.name}${p.q === undefined ? " (published)" : " q " + p.q}: ${p.x.toFixed(4)} bpp, ${metric.label} ${p.y.toFixed(metric.digits)}`;
      const mark = make("g", { class: "mark", transform: `translate(${at[i]})`, tabindex: 0, role: "img", "aria-label": text });
      mark.append(make("circle", { r: 14, fill: "transparent" }), make("path", { d: one.shape, fill: colour }));
      for (const event of ["mouseenter", "focus", "click"]) mark.addEventListener(event, () => { $("hover").textContent = text; });
      chart.append(mark);
    });
  }
}
for (const one of series) {
  const label = document.createElement("label"), box = document.createElement("input"), swatch = make("svg", { viewBox: "-9 -9 18 18", width: 18, height: 18, "aria-hidden": "true" });
  const path = make("path", { d: one.shape });
  one.paint = () => path.setAttribute("fill", one.colour());
  box.type = "checkbox"; box.checked = true;
  box.addEventListener("change", () => { box.checked ? hidden.delete(one.name) : hidden.add(one.name); draw(); });
  swatch.append(path); one.paint();
  label.append(box, swatch, one.name);
  $("legend").append(label);
}
fill($("metric"), data.metrics.map((m) => [m.name, m.label]));
$("metric").addEventListener("change", () => { draw(); remember(); });
window.addEventListener("resize", draw);
dark.addEventListener("change", () => { series.forEach((one) => one.paint()); draw(); });
draw();

// Sortable tables
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent; head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0];
      table.querySelectorAll("th").forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => {
        const cell = row.cells[column], text = cell ? cell.dataset.value ?? cell.textContent : "";
        return text === "" ? null : isNaN(text) ? text : Number(text);
      };
      const order = (a, b) => a === null ? 1 : b === null ? -1 : typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      const rows = [...body.rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => (a === null || b === null || rising ? 1 : -1) * order(a, b));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

// Pictures
function comparison() {
  const sides = ["left", "right"], tested = data.codecs.find((c) => c.kind === "bundle");
  const viewer = createViewer(() => remember());
  const image = () => data.images[$("image").value];
  const cells = (codec) => image().cells.filter((c) => c.codec === codec);
  const choices = () => [["", "original"], ...data.codecs.filter((c) => cells(c.name).length).map((c) => [c.name, c.name])];
  const has = (select, value) => [...select.options].some((o) => o.value === value);
  function chooseQuality(side, wanted) {
    const codec = $(side + "-codec").value, select = $(side + "-quality"), own = codec ? cells(codec) : [];
    select.disabled = own.length < 2;
    if (!own.some((c) => c.quality === wanted)) {
      const rate = Number($("rate").value), away = (c) => c.bpp ? Math.abs(Math.log(c.bpp / rate)) : 0;
      wanted = own.length ? own.reduce((a, b) => away(b) < away(a) ? b : a).quality : undefined;
    }
    fill(select, own.map((c) => [c.quality, c.bpp ? `${c.quality} (${c.bpp.toFixed(3)} bpp)` : "–"]), wanted);
  }
  function caption(side) {
    const codec = $(side + "-codec").value, quality = $(side + "-quality").value;
    if (!codec) return ["original", image().original];
    const cell = cells(codec).find((c) => c.quality === quality);
    const size = cell.bpp ? ` q ${quality}: ${cell.bpp.toFixed(4)} bpp, ${cell.bytes.toLocaleString("en")} bytes` : "";
    const figures = data.metrics.map((m) => `${m.label} ${show(cell.metrics[m.name], m)}`).join("; ");
    const trouble = cell.trouble ? `; FAILED: ${cell.trouble}` : "";
    return [`${codec}${size}; ${figures}${trouble}`, cell.picture];
  }
  function refresh() {
    const sources = {};
    for (const side of sides) {
      const [text, source] = caption(side);
      sources[side] = source;
      $(side + "-caption").textContent = text;
      $(side + "-picture").alt = `${image().name}, ${side}: ${text}`;
    }
    viewer.show({ ...sources, width: image().width, height: image().height, original: image().original });
    remember();
  }
  function chooseImage() {
    const rates = tested ? cells(tested.name).filter((c) => c.bpp) : [];
    const before = $("rate").selectedIndex;
    fill($("rate"), rates.map((c) => [c.bpp, `${tested.name} q ${c.quality} (${c.bpp.toFixed(3)} bpp)`]));
    $("rate").selectedIndex = Math.min(rates.length - 1, before < 0 ? Math.floor((rates.length - 1) / 2) : before);
    for (const side of sides) {
      const select = $(side + "-codec"), chosen = select.value;
      fill(select, choices());
      select.value = has(select, chosen) ? chosen : "";
      chooseQuality(side);
    }
  }
  fill($("image"), data.images.map((one, i) => [i, one.name]), 0);
  chooseImage();
  const second = data.codecs.filter((c) => c.kind !== "ceiling" && c.name !== tested?.name && cells(c.name).length).map((c) => c.name);
  fill($("left-codec"), choices(), tested && cells(tested.name).length ? tested.name : "");
  fill($("right-codec"), choices(), second.includes("avif") ? "avif" : second[0] ?? "");
  sides.forEach((side) => chooseQuality(side));
  refresh();
  $("image").addEventListener("change", () => { chooseImage(); refresh(); });
  $("rate").addEventListener("change", () => { sides.forEach((side) => chooseQuality(side)); refresh(); });
  for (const side of sides) {
    $(side + "-codec").addEventListener("change", () => { chooseQuality(side); refresh(); });
    $(side + "-quality").addEventListener("change", refresh);
  }
  return {
    state: () => ({
      picture: image().name,
      ...Object.fromEntries(sides.flatMap((side) => [[side, $(side + "-codec").value], [side + "-quality", $(side + "-quality").value]])),
      ...viewer.state(),
    }),
    restore(state) {
      const place = data.images.findIndex((one) => one.name === state.get("picture"));
      if (place >= 0) $("image").value = place;
      chooseImage();
      for (const side of sides) {
        const select = $(side + "-codec");
        if (has(select, state.get(side))) select.value = state.get(side);
        chooseQuality(side, state.get(side + "-quality"));
      }
      refresh();
      viewer.restore(state);
    },
  };
}
const pictures = data.images.length ? comparison() : { state: () => ({}), restore() {} };
remember = linkState(
  (state) => {
    if (data.metrics.some((m) => m.name === state.get("metric"))) { $("metric").value = state.get("metric"); draw(); }
    pictures.restore(state);
  },
  () => ({ ...pictures.state(), metric: $("metric").value }),
);
