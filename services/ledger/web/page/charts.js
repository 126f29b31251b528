// Small charts over time. Each comes with its numbers as a table, for whoever cannot or will not look.

import { h, s, table } from "./dom.js";

const HEIGHT = 150;
const FOOT = 20;
const SIDE = 56;

function rounded(most) {
  const power = 10 ** Math.floor(Math.log10(most || 1));
  return [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= most) || 1;
}

/**
 * A chart: `bars` are drawn inside one another, the first behind; `lines` as lines.
 * Each series is {name, kind, value: row → number}.
 */
export function chart({ title, rows, label, show, bars = [], lines = [] }) {
  const holder = h("div", { class: "plot" });
  const series = [...bars, ...lines];
  const values = (row) => series.map((each) => each.value(row)).filter((value) => value !== null && value !== undefined);
  const top = rounded(Math.max(0, ...rows.flatMap(values)));
  const draw = (width) => {
    const inner = width - SIDE - 4;
    const step = inner / Math.max(rows.length, 1);
    const y = (value) => HEIGHT - (value / top) * (HEIGHT - 10);
    const x = (index) => SIDE + step * (index + 0.5);
    const grid = [0, top / 2, top].map((value) => s("g", null,
      s("line", { class: "grid", x1: SIDE, x2: width, y1: y(value), y2: y(value) }),
      s("text", { class: "tick", x: SIDE - 8, y: y(value) + 4, "text-anchor": "end" }, show(value))));
    const thick = Math.min(34, Math.max(2, step * 0.66));
    const drawn = bars.map((each, depth) => rows.map((row, index) => {
      const value = each.value(row) ?? 0;
      const wide = thick * (depth ? 0.62 : 1);
      return s("rect", { class: `block ${each.kind}`, x: x(index) - wide / 2, width: wide, y: y(value), height: HEIGHT - y(value), rx: 1.5 },
        s("title", null, `${label(row)}: ${each.name} ${show(value)}`));
    }));
    const paths = lines.map((each) => {
      const points = rows.map((row, index) => [x(index), each.value(row)]).filter(([, value]) => value !== null && value !== undefined);
      const path = points.map(([at, value], index) => `${index ? "L" : "M"}${at.toFixed(1)} ${y(value).toFixed(1)}`).join("");
      return [s("path", { class: `curve ${each.kind}`, d: path || "M0 0" }), points.map(([at, value]) => s("circle", { class: `dot ${each.kind}`, cx: at, cy: y(value), r: 2.4 }, s("title", null, `${each.name} ${show(value)}`)))];
    });
    const every = Math.max(1, Math.ceil((rows.length * 62) / inner));
    const names = rows.map((row, index) => (index % every ? null : s("text", { class: "tick", x: x(index), y: HEIGHT + FOOT - 4, "text-anchor": "middle" }, label(row))));
    return s("svg", { width, height: HEIGHT + FOOT, viewBox: `0 0 ${width} ${HEIGHT + FOOT}`, role: "img", "aria-label": `${title}; the numbers are in the table below` },
      grid, drawn, paths, names);
  };
  const watch = new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (width > 80 && holder.dataset.width !== String(width)) {
      holder.dataset.width = String(width);
      holder.replaceChildren(draw(width));
    }
  });
  watch.observe(holder);
  const columns = [["When", label], ...series.map((each) => [each.name, (row) => (each.value(row) === null ? "–" : show(each.value(row))), "number"])];
  return h("figure", { class: "chart" },
    h("figcaption", null, h("b", null, title), series.map((each) => h("span", { class: "key" }, h("i", { class: `swatch ${each.kind}` }), each.name))),
    holder, h("details", null, h("summary", null, "Numbers"), table(title, columns, rows)));
}
