"use strict";
/* Elements, tables and line charts. All text goes through textContent: nothing of the content is read as HTML. */

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && name !== "style") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function makeTable(rows, title) {
  const [header, ...body] = rows.map((cells, i) => make("tr", {}, ...cells.map(
    (cell) => i ? make("td", {}, cell) : make("th", { scope: "col" }, cell))));
  return make("div", { className: "scroll" }, make("table", { className: "results" },
    make("caption", {}, title), make("thead", {}, header), make("tbody", {}, ...body)));
}

/* Round values that divide a range into about `count` parts. */
function roundTicks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= high / step + 1e-9; i++) ticks.push(+(i * step).toPrecision(12));
  return ticks;
}

function makeChart({ title, x, y, log, lines }) {
  const [width, height, left, right, top, bottom] = [560, 260, 46, 14, 8, 40];
  const points = lines.flatMap((line) => line.points);
  const xs = points.map((point) => point[0]);
  const ys = points.flatMap((point) => point.slice(1));
  const warp = log ? Math.log : (value) => value;
  let [low, high] = [Math.min(...ys), Math.max(...ys)];
  if (low < high / 2) low = 0; // otherwise zero would waste more than half of the chart
  const margin = (high - low) * 0.08 || 1;
  [low, high] = [low && low - margin, high + margin];
  const [first, last] = [warp(Math.min(...xs)), warp(Math.max(...xs))];
  const share = (value) => (last > first ? (warp(value) - first) / (last - first) : 0.5);
  const atX = (value) => left + 8 + (width - left - right - 16) * share(value);
  const atY = (value) => top + (height - top - bottom) * (high - value) / (high - low);

  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  for (const tick of roundTicks(low, high, 5)) {
    drawing.append(
      svg("line", { class: "grid", x1: left, x2: width - right, y1: atY(tick), y2: atY(tick) }),
      svg("text", { x: left - 6, y: atY(tick) + 4, "text-anchor": "end" }, tick));
  }
  let end = -Infinity; // of the previous label
  for (const tick of log ? [...new Set(xs)].sort((a, b) => a - b) : roundTicks(Math.min(...xs), Math.max(...xs), 7)) {
    if (atX(tick) - end < 34) continue;
    end = atX(tick);
    drawing.append(svg("text", { x: end, y: height - bottom + 16, "text-anchor": "middle" }, Math.round(tick)));
  }
  drawing.append(
    svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, x),
    svg("text", { transform: `translate(11 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y));

  const legend = make("ul", { className: "legend" });
  lines.forEach((line, i) => {
    const style = { stroke: `var(--c${line.color % 8})`, "stroke-width": 1.6, fill: "none" };
    const marked = line.style === "markers";
    if (line.style === "dashed") style["stroke-dasharray"] = "4 3";
    const path = line.points.map(([px, py]) => `${atX(px)},${atY(py)}`).join(" ");
    drawing.append(svg("polyline", { ...style, points: path }));
    for (const [px, py, lower, upper] of line.points) {
      const ends = { x1: atX(px), x2: atX(px), y1: atY(lower), y2: atY(upper) };
      if (lower !== undefined) drawing.append(svg("line", { ...style, ...ends }));
      if (marked) drawing.append(marker(atX(px), atY(py), i, style, `${line.name}: ${py} at ${px}`));
    }
    const sample = svg("svg", { viewBox: "0 0 26 10" }, svg("line", { ...style, x1: 0, x2: 26, y1: 5, y2: 5 }));
    if (marked) sample.append(marker(13, 5, i, style, ""));
    legend.append(make("li", {}, sample, line.name));
  });
  return make("figure", {}, make("h3", {}, title), drawing, legend);
}

/* Circle, square, diamond or triangle, so that lines differ in more than color. */
const CORNERS = [
  null,
  [[-3, -3], [3, -3], [3, 3], [-3, 3]],
  [[0, -4], [4, 0], [0, 4], [-4, 0]],
  [[0, -4], [4, 3], [-4, 3]],
];

function marker(x, y, number, style, title) {
  const look = { ...style, fill: "var(--paper)", "stroke-dasharray": "" };
  const corners = CORNERS[number % CORNERS.length];
  const shape = corners
    ? svg("polygon", { ...look, points: corners.map(([dx, dy]) => `${x + dx},${y + dy}`).join(" ") })
    : svg("circle", { ...look, cx: x, cy: y, r: 3.2 });
  shape.append(svg("title", {}, title));
  return shape;
}
