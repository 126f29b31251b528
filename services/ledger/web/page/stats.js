// What was asked for, what it cost, and how long it took: over time, by image and by registry.

import { name } from "./air.js";
import { chart } from "./charts.js";
import { h, note, table } from "./dom.js";
import { gaps } from "./history.js";
import { ask } from "./stream.js";
import { bytes, count, seconds } from "./words.js";

export const title = "Statistics";

const WINDOWS = {
  day: { name: "24 hours", by: "hour", hours: 24 },
  week: { name: "7 days", by: "day", hours: 24 * 7 },
  quarter: { name: "90 days", by: "day", hours: 24 * 90 },
};

function label(by) {
  const hour = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
  const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
  return ({ name: text }) => (by === "hour" ? hour.format(new Date(`${text}Z`)) : day.format(new Date(`${text}T00:00Z`)));
}

const figure = (value, unit) => h("div", null, h("span", { class: "numeral" }, value), h("span", { class: "unit" }, unit));

function sums(all) {
  return h("div", { class: "sums many", role: "group", "aria-label": "Sums" },
    figure(count(all.requests), "requests"),
    figure(count(all.flights), "flights"),
    figure(all.sharing.toFixed(1), "requests a flight"),
    figure(bytes(all.fetched_bytes), "fetched"),
    figure(bytes(all.saved_bytes), "saved"),
    figure(seconds(all.p50), "half took less"),
    figure(seconds(all.p99), "99 % took less"),
    figure(seconds(all.release_p99), "99 % released in less"));
}

const COLUMNS = [
  ["Requests", (each) => count(each.requests), "number"],
  ["Flights", (each) => count(each.flights), "number"],
  ["Failed", (each) => count(each.failed), "number"],
  ["Fetched", (each) => bytes(each.fetched_bytes), "number"],
  ["Saved", (each) => bytes(each.saved_bytes), "number"],
  ["p50", (each) => seconds(each.p50), "number"],
  ["p95", (each) => seconds(each.p95), "number"],
  ["p99", (each) => seconds(each.p99), "number"],
];

export async function show(place, { parameters }) {
  const chosen = WINDOWS[parameters.get("over")] ? parameters.get("over") : "day";
  const { by, hours } = WINDOWS[chosen];
  const since = new Date(Date.now() - hours * 3600e3).toISOString();
  const tabs = h("p", { class: "choice" }, Object.entries(WINDOWS).map(([key, each]) =>
    h("a", { href: `#/stats?over=${key}`, "aria-current": key === chosen ? "true" : null }, each.name)));
  place.append(h("h1", null, "Statistics"), tabs);
  const [all, time, images, registries] = await Promise.all([
    ask("stats", { since }), ask("stats", { since, by, limit: 120 }),
    ask("stats", { since, by: "image", limit: 15 }), ask("stats", { since, by: "registry", limit: 15 })]);
  if (!all.figures?.length) {
    place.append(note("No pull ended in that time.", "calm"));
    return;
  }
  const rows = [...(time.figures ?? [])].reverse();
  place.append(...gaps(all.gaps), sums(all.figures[0]),
    chart({ title: "Requests, and the flights they shared", rows, label: label(by), show: (value) => count(Math.round(value)),
      bars: [{ name: "requests", kind: "pale", value: (row) => row.requests }, { name: "flights", kind: "fetch", value: (row) => row.flights }] }),
    chart({ title: "Bytes asked for, and fetched", rows, label: label(by), show: bytes,
      bars: [{ name: "asked for", kind: "pale", value: (row) => row.asked_bytes }, { name: "fetched", kind: "unpack", value: (row) => row.fetched_bytes }] }),
    chart({ title: "Time to completion", rows, label: label(by), show: seconds,
      lines: [{ name: "p50", kind: "fetch", value: (row) => row.p50 }, { name: "p95", kind: "unpack", value: (row) => row.p95 }, { name: "p99", kind: "bad", value: (row) => row.p99 }] }),
    h("h2", null, "By image"),
    table("By image", [["Image", (each) => h("a", { class: "name", href: `#/history?${new URLSearchParams({ q: each.name })}` }, name(each.name)), "long"], ...COLUMNS], images.figures ?? []),
    h("h2", null, "By registry"),
    table("By registry", [["Registry", (each) => each.name || "–", "long"], ...COLUMNS], registries.figures ?? []));
}
