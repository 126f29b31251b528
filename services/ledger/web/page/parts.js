// Whether all parts are well: every process answers for itself.

import { h, note, table } from "./dom.js";
import { ask } from "./stream.js";
import { count, plural } from "./words.js";

export const title = "Parts";

const NEEDED = ["coordinator", "fetcher", "unpacker", "ledger"];
const AGAIN = 5000;

const detail = ([name, value]) => [h("dt", null, name), h("dd", null, typeof value === "number" ? count(value) : String(value))];

function drawn(pongs, sky) {
  const here = new Set(pongs.map((each) => each.service));
  const missing = NEEDED.filter((each) => !here.has(each));
  const verdict = missing.length
    ? h("p", { class: "verdict bad", role: "alert" }, `No ${missing.join(" and no ")} answers.`)
    : h("p", { class: "verdict" }, `All parts answer: ${plural(pongs.length, "process", "processes")}.`);
  const lag = (pong) => {
    const position = pong.details?.position;
    if (position === undefined) return "";
    const behind = sky.position - position;
    return behind > 0 ? `${count(behind)} behind the ledger` : "at the end of the log";
  };
  return [verdict, table("Processes", [
    ["Part", (pong) => h("b", null, pong.service)],
    ["Store", (pong) => pong.store || "all"],
    ["Process", (pong) => String(pong.pid), "number"],
    ["Version", (pong) => pong.version ?? ""],
    ["Log", lag],
    ["Says", (pong) => h("dl", { class: "inline" }, Object.entries(pong.details ?? {}).map(detail)), "long"]], pongs)];
}

export async function show(place, { sky }) {
  const body = h("div", null);
  place.append(h("h1", null, "Parts"), body);
  let timer = null;
  let over = false;
  async function look() {
    try {
      const pongs = await ask("parts");
      if (!over) body.replaceChildren(...drawn(pongs, sky));
    } catch (error) {
      if (!over) body.replaceChildren(note(error.message, "note bad"));
    }
    if (!over) timer = setTimeout(look, AGAIN);
  }
  await look();
  return () => { over = true; clearTimeout(timer); };
}
