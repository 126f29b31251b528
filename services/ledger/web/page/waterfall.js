// One pull along one line of time: the critical path on top, below it a line for every piece of work.

import { h } from "./dom.js";
import { bytes, plural, seconds, short } from "./words.js";

const NAMES = { resolve: "resolve", fetch: "fetch", unpack: "unpack", record: "list", "": "" };

/** Which colour a step has: what was waited for, what came over the line, what was done here. */
const KINDS = {
  order: "wait", claim: "wait", queue: "wait", slot: "wait", waiting: "wait", attempts: "bad", bytes: "wait", blob: "wait", parent: "wait", look: "wait",
  token: "ask", head: "ask", manifest: "ask", config: "ask", answer: "ask", store: "ask", transfer: "fetch", verify: "verify",
  unpack: "unpack", complete: "unpack", commit: "verify", record: "verify", release: "release",
};

const LEGEND = [["wait", "waiting its turn"], ["ask", "asking the registry"], ["fetch", "transfer"], ["unpack", "unpacking"], ["verify", "verifying, syncing"], ["release", "release"]];

function bar(kind, begin, length, wall, told) {
  const element = h("i", { class: `bar ${kind}`, title: told });
  element.style.left = `${(100 * Math.max(0, begin)) / wall}%`;
  element.style.width = `max(2px, ${(100 * length) / wall}%)`;
  return element;
}

function line(label, told, bars, kind = "") {
  return h("div", { class: `line-of-time ${kind}`, role: "listitem", "aria-label": told },
    h("span", { class: "label", "aria-hidden": "true" }, label),
    h("span", { class: "track", "aria-hidden": "true" }, bars));
}

function critical(told) {
  const parts = told.parts ?? [];
  const say = (part) => `${part.step}${part.work ? ` of ${NAMES[part.work]}` : ""}${part.name ? ` ${short(part.name)}` : ""}: ${seconds(part.seconds ?? 0)}${part.others ? ", for another flight" : ""}`;
  const bars = parts.map((part) => bar(KINDS[part.step] ?? "verify", part.begin ?? 0, part.seconds ?? 0, told.wall, say(part)));
  return line("critical path", `Critical path: ${parts.map(say).join("; ")}`, bars, "critical");
}

function piece(each, wall) {
  const label = [h("b", null, NAMES[each.work]), " ", h("code", null, short(each.name ?? "")), each.size ? ` ${bytes(each.size)}` : ""];
  const name = `${NAMES[each.work]} ${short(each.name ?? "")}`;
  const bars = [];
  if (each.state === "present") return line(label, `${name}: was there already`, [h("em", null, "was there already")], "quiet");
  const end = each.end ?? wall;
  const begin = each.begin ?? (each.end === undefined ? end : each.end);
  if (each.end !== undefined && each.ordered !== undefined && begin > each.ordered) {
    const from = Math.max(0, each.ordered);
    bars.push(bar("wait", from, Math.max(0, begin - from), wall, `ordered ${seconds(begin - each.ordered)} before a worker began`));
  }
  if (each.end === undefined && each.state === "ordered") bars.push(...open(each, wall));
  let at = begin;
  for (const [step, spent] of Object.entries(each.steps ?? {})) {
    const from = Math.max(0, at);
    const length = at + spent - from;
    if (length > 0) bars.push(bar(KINDS[step] ?? "verify", from, length, wall, `${step}: ${seconds(spent)}`));
    at += spent;
  }
  if (each.error) bars.push(h("em", { class: "bad" }, `${each.attempts ? `${plural(each.attempts, "attempt")}: ` : ""}${each.error}`));
  const steps = Object.entries(each.steps ?? {}).map(([step, spent]) => `${step} ${seconds(spent)}`).join(", ");
  const state = each.end === undefined ? each.state ?? "waiting" : `ended after ${seconds(each.end)}`;
  return line(label, `${name}: ${state}${steps ? `; ${steps}` : ""}${each.others ? "; ordered by another flight" : ""}`, bars, each.others ? "others" : "");
}

/** Work under way: nobody knows yet when it began; it is drawn from its order to now. */
function open(each, wall) {
  const from = Math.max(0, each.ordered ?? 0);
  const doing = each.doing && each.doing !== "waiting" ? each.doing : "ordered";
  const share = each.size ? ` ${Math.round((100 * (each.progress ?? 0)) / each.size)} %` : "";
  const kind = doing === "ordered" ? "wait" : each.work === "unpack" ? "unpack" : "fetch";
  return [bar(`${kind} open`, from, wall - from, wall, `${doing}${share}`), h("em", null, doing === "ordered" ? doing : `${doing}${share}`)];
}

function scale(wall) {
  const raw = wall / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw);
  const marks = [];
  for (let at = 0; at <= wall * 1.0001; at += step) {
    const mark = h("i", { class: "at" }, seconds(at));
    mark.style.left = `${(100 * at) / wall}%`;
    marks.push(mark);
  }
  return h("div", { class: "line-of-time scale", "aria-hidden": "true" }, h("span", { class: "label" }), h("span", { class: "track" }, marks));
}

/** The figure of an explanation. */
export function waterfall(told) {
  const wall = Math.max(told.wall, 1e-6);
  const scaled = { ...told, wall };
  return h("figure", { class: "waterfall" },
    h("div", { role: "list" }, critical(scaled), (told.pieces ?? []).map((each) => piece(each, wall))), scale(wall),
    h("figcaption", null, LEGEND.map(([kind, name]) => h("span", { class: "key" }, h("i", { class: `swatch ${kind}` }), name))));
}
