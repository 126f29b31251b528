// The address says which view is shown: #/history?q=redis. Each view draws into an element and says how to end.

import * as air from "./air.js";
import * as failures from "./failures.js";
import * as history from "./history.js";
import * as parts from "./parts.js";
import * as pull from "./pull.js";
import * as stats from "./stats.js";
import { h, note, say } from "./dom.js";
import { Air } from "./stream.js";
import { count } from "./words.js";

const VIEWS = { air, history, stats, failures, parts, pull };
const content = document.getElementById("content");
const line = document.getElementById("line");
const sky = new Air();
let end = () => {};
let shown = null;

/** An address as it was meant; as it is, where somebody wrote a `%` that means nothing. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  if (name === "content") return; // the way past the navigation, not a view
  const view = VIEWS[name] ?? air;
  end();
  const place = h("div", { class: "view" });
  content.replaceChildren(place);
  document.title = `${view.title} · pullonce`;
  for (const link of document.querySelectorAll("#views a")) {
    const here = link.getAttribute("href") === `#/${view === air ? "air" : name}`;
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  const scope = { sky, parameters: new URLSearchParams(query), rest: decoded(rest.join("/")) };
  let over = false;
  let stop = null;
  end = () => { over = true; stop?.(); };
  Promise.resolve(view.show(place, scope)).then(
    (ending) => { stop = ending; if (over) stop?.(); },
    (error) => { if (!over) place.append(note(error.message, "note bad")); });
  // Whoever listens or uses keys is taken to the new view; at the very first one, the browser has done so.
  if (shown !== null && shown !== path) { content.focus({ preventScroll: true }); scrollTo(0, 0); }
  shown = path;
}

sky.listen(({ state, behind, position }) => {
  line.dataset.state = state;
  const live = behind ? `live, ${count(behind)} events behind` : "live";
  say(line, state === "live" ? live : state === "away" ? "away, trying again" : "connecting");
  line.title = `log position ${position}`;
});

addEventListener("hashchange", show);
show();
