// The layers of a flight side by side, each as wide as it is large; above it is fetched, below it is unpacked.

import { h } from "./dom.js";
import { bytes, short } from "./words.js";

const SAID = { present: "was there", done: "done", wanted: "not ordered yet", ordered: "ordered" };

const share = (work) => (!work ? 0 : work.state === "done" || work.state === "present" ? 1 : work.size ? Math.min(1, (work.done ?? 0) / work.size) : 0);

function told(fetch, unpack, index) {
  const said = (work, verb) => `${verb} ${SAID[work.state] ?? work.state}${SAID[work.state] ? "" : ` ${Math.round(100 * share(work))} %`}`;
  const parts = [`Layer ${index + 1}, ${short(fetch.name)}, ${bytes(fetch.size ?? 0)}`, said(fetch, "fetch")];
  if (unpack) parts.push(said(unpack, "unpack"));
  if (fetch.flights > 1) parts.push(`shared by ${fetch.flights} flights, ${fetch.requests} requests wait for it`);
  const error = fetch.error || unpack?.error;
  if (error) parts.push(error);
  return parts.join(" · ");
}

/** Bring the bars of a flight up to date; elements are kept, so that widths move instead of jumping. */
export function strip(element, flight, works) {
  const layers = flight.layers ?? [];
  while (element.children.length > layers.length) element.lastElementChild.remove();
  let ready = 0;
  layers.forEach(([blob, layer], index) => {
    let bar = element.children[index];
    if (!bar) {
      bar = h("div", { class: "layer" }, h("div", { class: "fetch" }, h("i")), h("div", { class: "unpack" }, h("i")));
      element.append(bar);
    }
    const fetch = works.get(blob);
    const unpack = layer ? works.get(layer) : undefined;
    if (!fetch) return;
    // Small layers stay visible beside large ones.
    bar.style.flexGrow = String(Math.max(Math.sqrt(fetch.size ?? 0), 1));
    const [down, up] = [bar.firstElementChild, bar.lastElementChild];
    down.dataset.state = fetch.state;
    down.firstElementChild.style.transform = `scaleX(${share(fetch)})`;
    up.hidden = !unpack;
    if (unpack) {
      up.dataset.state = unpack.state;
      up.firstElementChild.style.transform = `scaleX(${share(unpack)})`;
    }
    bar.classList.toggle("shared", fetch.flights > 1);
    const text = told(fetch, unpack, index);
    if (bar.title !== text) bar.title = text;
    if (share(fetch) === 1 && (!unpack || share(unpack) === 1)) ready += 1;
  });
  if (layers.length) {
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", `${ready} of ${layers.length} layers ready`);
  }
}
