// Elements, made one by one. Text is only ever set as text: whatever an image is called, it stays a name.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : plain(String(value)));
  }
  const there = children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false);
  element.append(...there.map((each) => (each instanceof Node ? each : plain(String(each)))));
  return element;
}

/** Words of strangers as people may be shown them, as `pullonce.printable` has it: marks of direction and controls as numbers. */
export function plain(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu, (each) =>
    each === "\n" || each === "\t" ? each : [...each].flatMap((one) => one.split("")).map(number).join(""));
}

function number(unit) {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** An HTML element: h("p", {class: "note"}, "text", other elements…). */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Set the text of an element where it differs: what has not changed is not drawn anew, nor read aloud. */
export function say(element, text) {
  const shown = plain(String(text));
  if (element.textContent !== shown) element.textContent = shown;
}

/** A table: columns are [heading, row → cell, class?]; on a phone each row becomes a card that repeats the headings. */
export function table(caption, columns, rows) {
  const cell = ([name, show, kind], row) => h("td", { class: kind, "data-name": name }, show(row));
  return h("div", { class: "wide" },
    h("table", null,
      h("caption", { class: "unseen" }, caption),
      h("thead", null, h("tr", null, columns.map(([name, , kind]) => h("th", { scope: "col", class: kind }, name)))),
      h("tbody", null, rows.map((row) => h("tr", null, columns.map((column) => cell(column, row)))))));
}

/** A note that stands where something else would. */
export function note(text, kind = "note") {
  return h("p", { class: kind }, text);
}
