// What the page knows and shows. The first half needs no browser: a test runs it in Node.

export const nothing = () => ({ health: null, drivers: new Map(), faces: new Map(), last: new Map(), first: new Map() });

// Take note of an event; returns whether anything has changed.
export function note(state, event) {
  const { topic, seq } = event;
  const last = state.last.get(topic) ?? 0;
  if (seq <= last) { // the daemon was started anew: what it said before does not hold
    Object.assign(state, nothing());
  }
  state.last.set(topic, seq);
  if (!state.first.has(topic)) state.first.set(topic, seq);
  if (event.repeats >= state.first.get(topic)) return false; // said again for somebody else
  if (!event.valid && event.change !== "lost") return false;
  const track = `${event.camera} ${event.track}`;
  if (topic === "health") {
    state.health = event;
  } else if (topic === "driver") {
    state.drivers.set(event.camera, event);
  } else if (topic === "identity" && event.change === "lost") {
    state.faces.delete(track);
  } else if (topic === "identity" || topic === "emotion") {
    state.faces.set(track, { ...state.faces.get(track), [topic]: event });
  } else {
    return false;
  }
  return true;
}

// Follow the events at a WebSocket address for ever; calls show(state, connected) at each change.
export function watch(address, show) {
  const state = nothing();
  const socket = new WebSocket(address);
  socket.onopen = () => show(state, true);
  socket.onmessage = (message) => {
    if (note(state, JSON.parse(message.data))) show(state, true);
  };
  socket.onclose = () => {
    show(nothing(), false);
    setTimeout(() => watch(address, show), 1000);
  };
}

const names = (event) => event?.person ?? { seen: "somebody", unknown: "a stranger" }[event?.change] ?? "";

export function driver(event) {
  if (!event.present) return event.present === false ? "nobody" : "not seen";
  return event.person ?? (event.state === "unknown" ? "a stranger" : "somebody");
}

// Whether a warning is passed on to the driver is up to who knows the car's speed.
export const badge = (event) => event.warning ? `warning ${event.warning}` : event.present ? event.attention : "";

// The page

function row(...cells) {
  const line = document.createElement("tr");
  for (const text of cells) {
    line.insertCell().textContent = text; // never as HTML: names are what people have typed
  }
  return line;
}

function show(state, connected) {
  document.body.classList.toggle("lost", !connected);
  document.getElementById("state").textContent = connected ? "connected" : "not connected";
  const faces = [...state.faces.values()].map(({ identity, emotion }) => {
    const { camera, track } = identity ?? emotion;
    return row(camera, track, names(identity), emotion?.label ?? "");
  });
  document.getElementById("faces").replaceChildren(...faces);
  const drivers = [...state.drivers.values()].map((event) => {
    const line = row(event.camera, driver(event), event.emotion ?? "", badge(event));
    line.lastChild.className = `badge ${event.warning ? "warning" : event.attention}`;
    return line;
  });
  document.getElementById("drivers").replaceChildren(...drivers);
  const health = state.health;
  const figures = health
    ? [row("frames a second", health.fps), row("ms a frame, 99 %", health.frame_ms.p99 ?? ""),
       ...health.cameras.map((camera) => row(`camera ${camera.name}`, camera.error ?? camera.state)),
       ...health.problems.map((problem) => row("problem", problem))]
    : [];
  document.getElementById("health").replaceChildren(...figures);
}

if (typeof document !== "undefined") {
  const address = new URL("events", location.href);
  address.protocol = "ws:";
  watch(address.href, show);
}
