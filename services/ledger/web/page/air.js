// What is in the air: how many ask, what is fetched for them, each flight with its layers filling up, and what just landed.

import { Confluence } from "./confluence.js";
import { h, say } from "./dom.js";
import { strip } from "./layers.js";
import { bytes, count, plural, reference, seconds, span } from "./words.js";

export const title = "In the air";

const over = (work) => work !== undefined && (work.state === "done" || work.state === "present");

/** What one flight still needs, from its works. */
export function standing(flight, works) {
  const sum = { layers: 0, ready: 0, size: 0, done: 0, shared: 0, error: "" };
  for (const [blob, layer] of flight.layers ?? []) {
    const fetch = works.get(blob);
    const unpack = layer ? works.get(layer) : undefined;
    if (!fetch) continue;
    sum.layers += 1;
    sum.size += fetch.size ?? 0;
    sum.done += fetch.done ?? 0;
    if (over(fetch) && (!unpack || over(unpack))) sum.ready += 1;
    if (fetch.flights > 1) sum.shared += 1;
    sum.error ||= (over(fetch) ? "" : fetch.error) || (unpack && !over(unpack) ? unpack.error : "") || "";
  }
  return sum;
}

export function name(text) {
  const { from, name: own, tag } = reference(text);
  return [h("span", { class: "from" }, from), h("b", null, own), h("span", { class: "tag" }, tag)];
}

/** One flight in the list. Its layers are drawn only while it is near the visible part. */
class Row {
  constructor(flight) {
    this.state = h("span", { class: "state" });
    this.since = h("span", { class: "since" });
    this.asked = h("b");
    this.sum = h("p", { class: "sum" });
    this.layers = h("div", { class: "layers" });
    this.near = false;
    this.element = h("li", { class: "flight" },
      h("div", { class: "head" },
        h("a", { class: "name", href: `#/pull/${flight.opened}` }, name(flight.reference)),
        h("span", { class: "asked" }, this.asked)),
      this.layers,
      h("div", { class: "under" }, this.sum, h("p", { class: "how" }, this.state, this.since)));
    this.element.row = this;
    this.flight = flight;
  }

  show(flight, works, now) {
    this.flight = flight;
    const waiting = flight.requests - (flight.cancelled ?? 0);
    say(this.asked, `${count(waiting)} waiting`);
    say(this.state, flight.state);
    this.element.dataset.state = flight.state;
    this.tick(now);
    if (!this.near) return;
    const sum = standing(flight, works);
    strip(this.layers, flight, works);
    const shared = sum.shared ? `, ${sum.shared} shared with other flights` : "";
    const told = sum.layers
      ? `${sum.ready} of ${plural(sum.layers, "layer")} ready, ${bytes(sum.done)} of ${bytes(sum.size)}${shared}`
      : "asking the registry what it is";
    const error = flight.error || sum.error;
    say(this.sum, error ? `${told} — ${error}` : told);
  }

  tick(now) {
    say(this.since, `for ${span(now - this.flight.since)}`);
  }
}

function landing(pull) {
  const bad = pull.outcome === "failed";
  const requests = pull.requests ?? 0;
  const saved = Math.max(0, requests * (pull.size ?? 0) - (pull.fetched_bytes ?? 0));
  const cost = bad
    ? `${pull.code}`
    : pull.fetched ? `${plural(pull.fetched, "fetch", "fetches")}, ${bytes(pull.fetched_bytes ?? 0)}` : "nothing fetched";
  return h("li", { class: bad ? "landed bad" : "landed" },
    h("a", { class: "name", href: `#/pull/${pull.opened}` }, name(pull.reference)),
    h("span", { class: "ratio" }, h("b", null, count(requests)), requests === 1 ? " request → " : " requests → ", cost),
    h("span", { class: "saved" }, saved ? `${bytes(saved)} saved` : ""),
    h("span", { class: "took" }, seconds(pull.seconds)));
}

export function show(place, { sky }) {
  const numbers = ["asking", "flights", "fetches"].map((each) => h("span", { class: "numeral", id: `sum-${each}` }, "0"));
  const words = ["requests", "flights", "layers to go"].map((each) => h("span", { class: "unit" }, each));
  const figure = (index) => h("div", null, numbers[index], words[index]);
  const arrow = () => h("span", { class: "arrow", "aria-hidden": "true" }, "→");
  const picture = h("div", { class: "picture" });
  const confluence = new Confluence(picture);
  const list = h("ol", { class: "flights" });
  const empty = h("p", { class: "calm" }, "Nothing is in the air.");
  const landed = h("ol", { class: "landings" });
  const filter = h("input", { type: "search", id: "filter", placeholder: "part of a name", oninput: () => sieve(), autocomplete: "off" });
  const finder = h("p", { class: "finder", hidden: true }, h("label", { for: "filter" }, "Show only "), filter);
  const rows = new Map();

  place.append(
    h("h1", null, "In the air"),
    h("div", { class: "sums", role: "group", "aria-label": "Sums" }, figure(0), arrow(), figure(1), arrow(), figure(2)),
    picture, finder, empty, list,
    h("h2", null, "Just landed"), landed);

  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      target.row.near = isIntersecting;
      if (isIntersecting) target.row.show(target.row.flight, sky.works, sky.now());
    }
  }, { rootMargin: "300px" });

  const kept = (flight) => !filter.value || flight.reference.toLowerCase().includes(filter.value.toLowerCase());
  const sieve = () => { for (const row of rows.values()) row.element.hidden = !kept(row.flight); };

  function place_row(flight) {
    let row = rows.get(flight.key);
    if (!row) {
      row = new Row(flight);
      rows.set(flight.key, row);
      row.element.hidden = !kept(flight);
      // The oldest comes first, and stays where it is: whoever reads the list is not interrupted.
      let last = list.lastElementChild;
      while (last && last.row.flight.opened > flight.opened) last = last.previousElementSibling;
      if (last) last.after(row.element); else list.prepend(row.element);
      seen.observe(row.element);
    }
    row.show(flight, sky.works, sky.now());
  }

  function sums() {
    let asking = 0;
    for (const flight of sky.flights.values()) asking += flight.requests - (flight.cancelled ?? 0);
    let work = 0;
    for (const each of sky.works.values()) if (each.kind === "fetch" && !over(each)) work += 1;
    say(numbers[0], count(asking));
    say(numbers[1], count(sky.flights.size));
    say(numbers[2], count(work));
    say(words[0], asking === 1 ? "request waits" : "requests wait");
    say(words[1], sky.flights.size === 1 ? "flight for all" : "flights");
    say(words[2], work === 1 ? "fetch to go" : "fetches to go");
  }

  let drawn = null;
  function draw(_, changed) {
    for (const key of changed) {
      const flight = sky.flights.get(key);
      if (flight) { place_row(flight); continue; }
      const row = rows.get(key);
      if (row) { seen.unobserve(row.element); row.element.remove(); rows.delete(key); }
    }
    empty.hidden = sky.flights.size > 0 || sky.state === "connecting";
    finder.hidden = sky.flights.size < 12;
    if (drawn !== sky.ended) {
      drawn = sky.ended;
      landed.replaceChildren(...sky.ended.map(landing));
    }
    sums();
    confluence.draw(sky);
  }

  draw(sky, new Set(sky.flights.keys()));
  const stop = sky.listen(draw);
  const clock = setInterval(() => { for (const row of rows.values()) if (row.near) row.tick(sky.now()); }, 1000);
  return () => { stop(); clearInterval(clock); seen.disconnect(); confluence.end(); };
}
