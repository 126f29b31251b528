// The picture of what sharing does: every request is a thread; the threads of one flight run together; what several flights
// need leaves them as one line to the registry.

import { s } from "./dom.js";
import { bytes, count, plural, reference } from "./words.js";

const MOST_FLIGHTS = 6;
const MOST_THREADS = 28;
const MOST_BLOBS = 14;

const over = (work) => work.state === "done" || work.state === "present";

function curve(x1, y1, x2, y2) {
  const middle = (x1 + x2) / 2;
  return `M${x1} ${y1.toFixed(1)}C${middle} ${y1.toFixed(1)} ${middle} ${y2.toFixed(1)} ${x2} ${y2.toFixed(1)}`;
}

const cut = (text, room) => (text.length > room ? `${text.slice(0, Math.max(1, room - 1))}…` : text);

/** Those flights that most wait for, and the blobs they need, with the room that each takes. */
function plan(sky) {
  const waiting = (flight) => flight.requests - (flight.cancelled ?? 0);
  const all = [...sky.flights.values()].sort((a, b) => waiting(b) - waiting(a) || a.opened - b.opened);
  const flights = all.slice(0, MOST_FLIGHTS).sort((a, b) => a.opened - b.opened);
  const blobs = new Map();
  for (const flight of flights) {
    for (const [id] of flight.layers ?? []) {
      const work = sky.works.get(id);
      if (work && work.state !== "present") blobs.set(id, work);
    }
  }
  const registries = new Map();
  const kept = [...blobs.values()].slice(0, MOST_BLOBS);
  for (const flight of flights) registries.set(reference(flight.reference).from.split("/")[0], 0);
  return { flights, rest: all.length - flights.length, blobs: kept, more: blobs.size - kept.length, registries: [...registries.keys()], waiting };
}

export class Confluence {
  constructor(element) {
    this.element = element;
    this.width = 0;
    this.watch = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width !== this.width) { this.width = width; if (this.sky) this.draw(this.sky); }
    });
    this.watch.observe(element);
  }

  end() {
    this.watch.disconnect();
  }

  draw(sky) {
    this.sky = sky;
    if (!this.width) return;
    if (!sky.flights.size) { this.element.replaceChildren(); return; }
    this.element.replaceChildren(this.picture(plan(sky)));
  }

  picture(shown) {
    const { flights, blobs, registries, waiting } = shown;
    const width = this.width;
    const narrow = width < 560;
    const threads = (flight) => Math.max(1, Math.min(waiting(flight), MOST_THREADS));
    const bands = flights.map((flight) => Math.max(narrow ? 52 : 46, threads(flight) * 5.5 + 16));
    const height = Math.max(bands.reduce((sum, band) => sum + band, 0), blobs.length * 17 + 24, 120);
    const x = narrow
      ? { asked: 6, flight: width * 0.36, blob: width * 0.7, leave: width * 0.7 + 7, registry: width - 8 }
      : { asked: 10, flight: width * 0.34, blob: width * 0.66, leave: width * 0.66 + 76, registry: width - 14 };
    const lines = [];
    const marks = [];
    const where = new Map();
    const step = height / Math.max(blobs.length, 1);
    blobs.forEach((work, index) => where.set(work.id, step * (index + 0.5)));
    const ends = new Map(registries.map((host, index) => [host, (height / registries.length) * (index + 0.5)]));

    const drawn = new Set();
    let top = (height - bands.reduce((sum, band) => sum + band, 0)) / 2;
    flights.forEach((flight, index) => {
      const middle = top + bands[index] / 2;
      const many = threads(flight);
      for (let each = 0; each < many; each += 1) {
        const y = middle + (each - (many - 1) / 2) * 5.5;
        lines.push(s("path", { class: "thread", d: curve(x.asked, y, x.flight, middle) }));
        marks.push(s("circle", { class: "request", cx: x.asked, cy: y.toFixed(1), r: 1.7 }));
      }
      this.flight(lines, marks, { flight, middle, x, where, ends, shown, drawn, room: (x.blob - x.flight - 24) / 7 });
      top += bands[index];
    });
    for (const work of blobs) this.blob(marks, work, x.blob, where.get(work.id), narrow);
    const label = this.told(shown);
    return s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "confluence" },
      s("title", null, label), lines, marks,
      registries.map((host) => s("g", null,
        s("circle", { class: "registry", cx: x.registry, cy: ends.get(host), r: 5 }),
        s("text", { x: x.registry - 10, y: ends.get(host) - 10, "text-anchor": "end", class: "what" }, cut(host, narrow ? 12 : 30)))));
  }

  flight(lines, marks, { flight, middle, x, where, ends, shown, drawn, room }) {
    const host = reference(flight.reference).from.split("/")[0];
    const needs = (flight.layers ?? []).filter(([id]) => where.has(id));
    for (const [id] of needs) {
      const work = shown.blobs.find((each) => each.id === id);
      const kind = over(work) ? "need over" : "need";
      lines.push(s("path", { class: kind, d: curve(x.flight, middle, x.blob, where.get(id)) }));
      // However many flights need it, a blob has one line to where it comes from.
      if (!drawn.has(id)) lines.push(s("path", { class: over(work) ? "source over" : "source", d: curve(x.leave, where.get(id), x.registry, ends.get(host)) }));
      drawn.add(id);
    }
    if (!needs.length) lines.push(s("path", { class: "need", d: curve(x.flight, middle, x.registry, ends.get(host)) }));
    marks.push(s("circle", { class: "node", cx: x.flight, cy: middle, r: 5 }));
    const { name, tag } = reference(flight.reference);
    marks.push(s("text", { x: x.flight + 10, y: middle - 9, class: "what" }, cut(name + tag, Math.max(6, room))));
    marks.push(s("text", { x: x.asked + 10, y: middle + 4, class: "many" }, count(shown.waiting(flight))));
  }

  blob(marks, work, x, y, narrow) {
    const share = over(work) ? 1 : work.size ? Math.min(1, (work.done ?? 0) / work.size) : 0;
    marks.push(s("rect", { class: "blob", x: x - 6, y: y - 6, width: 12, height: 12, rx: 2 }));
    marks.push(s("rect", { class: over(work) ? "blob over" : "blob full", x: x - 6, y: y + 6 - 12 * share, width: 12, height: 12 * share, rx: 2 }));
    if (work.flights > 1) marks.push(s("text", { x: x - 11, y: y + 4, "text-anchor": "end", class: "times" }, `×${work.flights}`));
    if (!narrow) marks.push(s("text", { x: x + 12, y: y + 4, class: "size" }, bytes(work.size ?? 0)));
  }

  told({ flights, rest, blobs, waiting }) {
    const asked = flights.reduce((sum, flight) => sum + waiting(flight), 0);
    const others = rest ? `, and ${plural(rest, "further flight")}` : "";
    return `${plural(asked, "request")} joined into ${plural(flights.length, "flight")} that need ${plural(blobs.length, "fetch", "fetches")}${others}`;
  }
}
