// Which pulls there were, with search; the newest first.

import { name } from "./air.js";
import { h, note, table } from "./dom.js";
import { ask } from "./stream.js";
import { bytes, count, moment, seconds } from "./words.js";

export const title = "History";

const PAGE = 50;

export const OUTCOMES = { completed: "landed", failed: "failed", "in the air": "in the air" };

const outcome = (pull) => h("span", { class: `outcome ${(pull.outcome ?? "in the air").replaceAll(" ", "-")}` },
  pull.outcome === "failed" ? pull.code : OUTCOMES[pull.outcome ?? "in the air"]);

export const COLUMNS = [
  ["When", (pull) => h("time", { datetime: pull.opened_at }, moment(pull.opened_at))],
  ["Image", (pull) => h("a", { class: "name", href: `#/pull/${pull.opened}` }, name(pull.reference)), "long"],
  ["Asked by", (pull) => who(pull)],
  ["Fetched", (pull) => bytes(pull.fetched_bytes ?? 0), "number"],
  ["Saved", (pull) => bytes(Math.max(0, (pull.requests ?? 0) * (pull.size ?? 0) - (pull.fetched_bytes ?? 0))), "number"],
  ["Took", (pull) => seconds(pull.seconds), "number"],
  ["Ended", outcome],
];

function who(pull) {
  const names = pull.requesters ?? [];
  const some = names.length > 2 ? `${names.slice(0, 2).join(", ")}…` : names.join(", ");
  const doors = Object.keys(pull.doors ?? {}).sort().join(", ");
  return h("span", { title: names.join("\n") }, h("b", null, `${count(pull.requests ?? 0)}×`), some ? ` ${some}` : "",
    doors ? h("span", { class: "door" }, ` by ${doors}`) : "");
}

// What the ledger never read, since the log had dropped it by then.
export const gaps = (missed = []) => missed.map((gap) => note(
  `${count(gap.missing)} events between ${moment(gap.begin)} and ${moment(gap.end)} were gone before the ledger read them.`));

export async function show(place, { parameters }) {
  const search = h("input", { type: "search", name: "q", id: "q", value: parameters.get("q") ?? "", placeholder: "image, or who asked", autocomplete: "off" });
  const failed = h("input", { type: "checkbox", name: "failed", id: "failed", checked: parameters.has("failed") });
  const go = () => {
    const query = new URLSearchParams();
    if (search.value) query.set("q", search.value);
    if (failed.checked) query.set("failed", "1");
    location.hash = `/history${query.size ? `?${query}` : ""}`;
  };
  const form = h("form", { class: "search", role: "search", onsubmit: (event) => { event.preventDefault(); go(); } },
    h("label", { for: "q", class: "unseen" }, "Search"), search,
    h("label", { for: "failed", class: "check" }, failed, " only failures"),
    h("button", { type: "submit" }, "Search"));
  failed.addEventListener("change", go);
  const found = h("div", null);
  const more = h("button", { type: "button", class: "more", hidden: true }, "Older ones");
  place.append(h("h1", null, "History"), form, found, more);

  let all = [];
  async function load() {
    const before = all.length ? all[all.length - 1].opened : 0;
    const answer = await ask("history", { limit: PAGE, before, search: search.value, failed: failed.checked });
    const pulls = answer.pulls ?? [];
    all = all.concat(pulls);
    found.replaceChildren(...gaps(answer.gaps),
      all.length ? table("Pulls, the newest first", COLUMNS, all) : note("No pull is like that.", "calm"));
    more.hidden = pulls.length < PAGE;
  }
  more.addEventListener("click", () => load().catch((error) => found.append(note(error.message, "note bad"))));
  await load();
  if (parameters.size) search.focus();
}
