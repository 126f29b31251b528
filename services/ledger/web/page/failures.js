// What went wrong, and why: by reason, then one by one.

import { name } from "./air.js";
import { h, note, table } from "./dom.js";
import { ask } from "./stream.js";
import { count, moment, seconds } from "./words.js";

export const title = "Failures";

const REASONS = `SELECT code, count(*) AS times, sum(requests)::BIGINT AS requests, max(ended_at) AS last,
  arg_max(message, ended) AS message FROM ended_flights WHERE outcome = 'failed' GROUP BY code ORDER BY times DESC LIMIT 30`;

const ATTEMPTS = `SELECT kind, code, count(*) AS times, max(time) AS last, arg_max(message, sequence) AS message
  FROM failures WHERE kind IN ('blob.failed', 'layer.failed') GROUP BY kind, code ORDER BY last DESC LIMIT 30`;

const objects = ({ columns, rows }) => (rows ?? []).map((row) => Object.fromEntries(columns.map((each, index) => [each, row[index]])));

const when = (text) => h("time", { datetime: `${text}Z` }, moment(`${text}Z`));

export async function show(place) {
  place.append(h("h1", null, "Failures"));
  const [reasons, attempts, latest] = await Promise.all([
    ask("sql", { query: REASONS }), ask("sql", { query: ATTEMPTS }), ask("history", { failed: true, limit: 50 })]);
  const pulls = latest.pulls ?? [];
  if (!pulls.length && !attempts.rows?.length) {
    place.append(note("Nothing has failed.", "calm"));
    return;
  }
  const why = ["Most recent message", (each) => each.message, "long"];
  place.append(h("h2", null, "By reason"),
    table("Failed pulls by reason", [
      ["Reason", (each) => h("code", null, each.code)],
      ["Pulls", (each) => count(each.times), "number"],
      ["Requests", (each) => count(each.requests), "number"],
      ["Last", (each) => when(each.last)], why], objects(reasons)));
  if (attempts.rows?.length) {
    place.append(h("h2", null, "Blobs and layers"),
      table("Blobs and layers that were given up", [
        ["What", (each) => each.kind],
        ["Reason", (each) => h("code", null, each.code)],
        ["Times", (each) => count(each.times), "number"],
        ["Last", (each) => when(each.last)], why], objects(attempts)));
  }
  place.append(h("h2", null, "The latest"),
    table("Failed pulls, the newest first", [
      ["When", (pull) => h("time", { datetime: pull.opened_at }, moment(pull.opened_at))],
      ["Image", (pull) => h("a", { class: "name", href: `#/pull/${pull.opened}` }, name(pull.reference)), "long"],
      ["Asked", (pull) => `${count(pull.requests ?? 0)}×`, "number"],
      ["Took", (pull) => seconds(pull.seconds), "number"],
      ["Why", (pull) => [h("code", null, pull.code), " ", pull.message], "long"]], pulls));
}
