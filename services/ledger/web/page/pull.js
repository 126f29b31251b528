// Where the time of one pull went: its critical path, and every piece of its work along one line of time.

import { h, note, say, table } from "./dom.js";
import { ask } from "./stream.js";
import { waterfall } from "./waterfall.js";
import { bytes, count, moment, plural, reference, seconds, short } from "./words.js";

export const title = "Pull";

const AGAIN = 1500; // milliseconds between two looks at a pull in the air, at the least

function facts(told) {
  const { pull } = told;
  const fact = (term, ...value) => [h("dt", null, term), h("dd", null, ...value)];
  const spared = [];
  if (pull.reused) spared.push(`${plural(pull.reused, "blob")} (${bytes(pull.reused_bytes ?? 0)}) were there`);
  if (pull.waited) spared.push(`${plural(pull.waited, "blob")} (${bytes(pull.waited_bytes ?? 0)}) came with another flight`);
  const names = pull.requesters ?? [];
  const doors = Object.entries(pull.doors ?? {}).sort().map(([door, requests]) => `${door} ${count(requests)}×`);
  return h("dl", { class: "facts" },
    fact("Asked for", plural(pull.requests ?? 0, "time"), names.length ? `, by ${names.join(", ")}${names.length === 10 ? "…" : ""}` : ""),
    doors.length ? fact("By door", doors.join(", ")) : null,
    pull.fetched || spared.length ? fact("Fetched", `${plural(pull.fetched ?? 0, "blob")}, ${bytes(pull.fetched_bytes ?? 0)}`, spared.length ? `; ${spared.join("; ")}` : "") : null,
    fact("Opened", h("time", { datetime: pull.opened_at }, moment(pull.opened_at)), ` at log position ${count(pull.opened)}`),
    fact("Store", pull.store, pull.platform ? `, ${pull.platform}` : ""),
    pull.digest ? fact("Digest", h("code", null, pull.digest)) : null);
}

function pieces(told) {
  const rows = (told.pieces ?? []).filter((each) => each.name || each.error || each.worker);
  if (!rows.length) return null;
  return h("details", null, h("summary", null, `All ${count(rows.length)} pieces of work as a table`),
    table("Pieces of work", [
      ["Work", (each) => each.work],
      ["Of", (each) => h("code", null, short(each.name ?? ""))],
      ["State", (each) => (each.doing ? `${each.state ?? "waiting"}, ${each.doing}` : each.state ?? "waiting")],
      ["Ordered", (each) => (each.ordered === undefined ? "–" : seconds(each.ordered)), "number"],
      ["Began", (each) => (each.begin === undefined ? "–" : seconds(each.begin)), "number"],
      ["Ended", (each) => (each.end === undefined ? "–" : seconds(each.end)), "number"],
      ["By", (each) => each.worker ?? each.holder ?? ""],
      ["Trouble", (each) => (each.error ? `${each.attempts ? `${each.attempts}×, ` : ""}${each.error}` : ""), "long"],
    ], rows));
}

function heading(told) {
  const { from, name, tag } = reference(told.pull.reference);
  return h("h1", { class: "of-a-pull" }, h("span", { class: "from" }, from), name, h("span", { class: "tag" }, tag));
}

function verdict({ pull, wall }) {
  if (pull.outcome === "completed") return `Landed after ${seconds(wall)}.`;
  if (pull.outcome === "failed") return `Failed after ${seconds(wall)}: ${pull.message} (${pull.code})`;
  return `In the air for ${seconds(wall)}.`;
}

function drawn(told) {
  const advice = told.advice ?? [];
  return [
    heading(told),
    h("p", { class: `verdict ${told.pull.outcome === "failed" ? "bad" : ""}` }, verdict(told)),
    facts(told),
    h("h2", null, "Where the time went"),
    waterfall(told),
    advice.length ? [h("h2", null, told.pull.outcome ? "What would have made it faster" : "What it waits for"), h("ul", { class: "advice" }, advice.map((each) => h("li", null, each)))] : null,
    pieces(told),
  ].flat(Infinity).filter(Boolean);
}

export async function show(place, { sky, rest }) {
  const body = h("div", null);
  const read = h("p", { class: "unseen", role: "status" });
  place.append(body, read);
  let timer = null;
  let stop = () => {};
  let over = false;

  async function look() {
    timer = null;
    const told = await ask("explain", { pull: rest });
    if (over) return;
    document.title = `${told.pull.reference} · pullonce`;
    const open = body.querySelector("details")?.open;
    body.replaceChildren(...drawn(told));
    if (open) body.querySelector("details").open = true;
    say(read, told.pull.outcome ? verdict(told) : "");
    if (told.pull.outcome) stop();
  }
  const soon = () => {
    timer ??= setTimeout(() => look().catch((error) => body.append(note(error.message, "note bad"))), AGAIN);
  };
  stop = sky.listen(soon);
  try {
    await look();
  } catch (error) {
    stop();
    body.append(h("h1", null, "Pull"));
    throw error;
  }
  return () => { over = true; stop(); clearTimeout(timer); };
}
