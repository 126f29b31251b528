// The air, as the ledger tells it by server-sent events: everything first, then what changes. Comes back by itself.

const SILENCE = 45000; // three times the ledger's sign of life

/** Flights, works and landings as they stand now; listeners are called once a frame at most. */
export class Air {
  constructor() {
    this.flights = new Map();
    this.works = new Map();
    this.ended = [];
    this.position = 0;
    this.behind = 0;
    this.state = "connecting";
    this.skew = 0; // seconds by which this device's clock is ahead of the ledger's
    this.dirty = new Set();
    this.listeners = new Set();
    this.asked = false;
    this.connect();
  }

  /** Call `listener(air, changed keys of flights)` when something changed; returns how to stop. */
  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  now() {
    return Date.now() / 1000 - this.skew;
  }

  connect() {
    this.source = new EventSource("/api/live");
    this.source.onmessage = (event) => { this.heard(); this.take(JSON.parse(event.data)); };
    this.source.addEventListener("sign", () => this.heard());
    this.source.onerror = () => {
      this.turn("away");
      // A browser comes back by itself, unless the answer was an error: then we do.
      if (this.source.readyState === EventSource.CLOSED) this.again();
    };
    this.heard();
  }

  heard() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => { this.turn("away"); this.again(); }, SILENCE);
  }

  again() {
    this.source.close();
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.connect(), 2000);
  }

  turn(state) {
    this.state = state;
    this.notify();
  }

  take(shown) {
    if (shown.whole) {
      for (const key of this.flights.keys()) this.dirty.add(key);
      this.flights.clear();
      this.works.clear();
    }
    this.skew = Date.now() / 1000 - shown.now;
    this.position = shown.position;
    this.behind = shown.behind ?? 0;
    for (const key of shown.gone ?? []) {
      if (this.flights.delete(key)) this.dirty.add(key);
      this.works.delete(key);
    }
    const touched = new Set();
    for (const work of shown.works ?? []) { this.works.set(work.id, work); touched.add(work.id); }
    for (const flight of shown.flights ?? []) { this.flights.set(flight.key, flight); this.dirty.add(flight.key); }
    if (touched.size) {
      for (const flight of this.flights.values()) {
        if (flight.layers?.some(([blob, layer]) => touched.has(blob) || touched.has(layer))) this.dirty.add(flight.key);
      }
    }
    if (shown.ended) this.ended = shown.ended;
    this.turn("live");
  }

  notify() {
    if (this.asked) return;
    this.asked = true;
    const tell = () => {
      this.asked = false;
      const changed = this.dirty;
      this.dirty = new Set();
      for (const listener of this.listeners) listener(this, changed);
    };
    // A hidden page draws no frames; it need not be told before it is seen, yet must not gather changes for ever.
    if (document.hidden) setTimeout(tell, 1000); else requestAnimationFrame(tell);
  }
}

/** Ask the ledger: `ask("history", {limit: 50})`. Throws an Error that says why there is no answer. */
export async function ask(question, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== null));
  const response = await fetch(`/api/${question}?${query}`);
  const answer = await response.json().catch(() => ({ message: `the ledger answered ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error(answer.message ?? `the ledger answered ${response.status}`), answer);
  return answer;
}
