// What happens when: a lane for each class with its score over time, and the events on it.

import { $, breakable, clock, element, hue, percent, share } from "./dom.js";

const MOST_LANES = 8;
const SVG = "http://www.w3.org/2000/svg";

export const timeline = { windows: [], events: [], duration: 0 };

export function clearTimeline() {
  Object.assign(timeline, { windows: [], events: [], duration: 0 });
  for (const id of ["lanes", "events", "labels"]) $(id).replaceChildren();
}

const INSIDE = 0.05; // seconds behind the beginning of an event: at the beginning itself it is not yet to be seen

const middle = ({ start, end }) => (start + end) / 2;

/** A window speaks for the time around its middle. */
export function windowAt(seconds) {
  const nearer = (best, next) =>
    best && Math.abs(middle(best) - seconds) < Math.abs(middle(next) - seconds) ? best : next;
  return timeline.windows.reduce(nearer, null);
}

/** Those of events first, then those that score most in a window. */
function classesOfLanes() {
  const highest = new Map();
  for (const { top } of timeline.windows) {
    for (const { label, score } of top) highest.set(label, Math.max(score, highest.get(label) ?? 0));
  }
  const inEvents = new Set(timeline.events.map((event) => event.label));
  const rank = (label) => (inEvents.has(label) ? 1 : 0) + highest.get(label);
  return [...highest.keys()].sort((a, b) => rank(b) - rank(a)).slice(0, MOST_LANES);
}

/** The score of a class over time, as an area. */
function area(label) {
  const { windows, duration } = timeline;
  const scores = windows.map(({ top }) => top.find((one) => one.label === label)?.score ?? 0);
  const points = windows.map((window, i) => `${(100 * Math.min(middle(window), duration)) / duration},${1 - scores[i]}`);
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 100 1");
  drawing.setAttribute("preserveAspectRatio", "none");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", `M0,1 L0,${1 - scores[0]} L${points.join(" L")} L100,${1 - scores.at(-1)} L100,1 Z`);
  drawing.append(path);
  return drawing;
}

function bar(event, onJump) {
  return element("button", {
    type: "button",
    title: `${event.label} ${clock(event.start)}–${clock(event.end)}`,
    ariaLabel: `${event.label}, from ${clock(event.start)} to ${clock(event.end)}`,
    style: { left: share(event.start / timeline.duration), width: share((event.end - event.start) / timeline.duration) },
    onclick: (click) => {
      click.stopPropagation();
      onJump(event.start + INSIDE);
    },
  });
}

export function drawTimeline(onJump) {
  if (!timeline.windows.length || !timeline.duration) return;
  const rows = classesOfLanes().flatMap((label) => {
    const events = timeline.events.filter((event) => event.label === label);
    const lane = element("div", { className: "lane toned", style: { "--hue": hue(label) } }, area(label), ...events.map((event) => bar(event, onJump)));
    lane.addEventListener("click", ({ clientX }) => {
      const { left, width } = lane.getBoundingClientRect();
      onJump((timeline.duration * (clientX - left)) / width);
    });
    return [element("div", { className: "title", textContent: label, title: label }), lane];
  });
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((at) =>
    element("span", { textContent: clock(at * timeline.duration), style: { left: share(at) } }));
  const cursor = element("div", { id: "cursor-track" }, element("div", { id: "cursor" }));
  $("lanes").replaceChildren(...rows, element("div", { id: "ticks" }, ...ticks), cursor);
  $("events").replaceChildren(...timeline.events.map((event) =>
    element("li", { className: "toned", style: { "--hue": hue(event.label) } }, element("button", { type: "button", onclick: () => onJump(event.start + INSIDE) },
      element("b", { textContent: breakable(event.label) }),
      element("span", { textContent: `${clock(event.start)}–${clock(event.end)}` }),
      element("span", { textContent: percent(event.score) })))));
}

/** Show what the model says of a moment. */
export function drawMoment(seconds, { chosen, onChoose }) {
  $("now").textContent = clock(seconds);
  const top = (windowAt(seconds)?.top ?? []).slice(0, 5);
  $("labels").replaceChildren(...top.map(({ label, score }) =>
    element("li", {}, element("button", {
      type: "button",
      className: "toned",
      ariaPressed: String(label === chosen),
      title: onChoose ? `Where the model finds ${label}` : label,
      disabled: !onChoose,
      style: { "--hue": hue(label), "--score": share(score) },
      onclick: () => onChoose(label),
    }, element("b", { textContent: breakable(label) }), element("span", { textContent: percent(score) }), element("i")))));
  if ($("cursor")) $("cursor").style.left = share(Math.min(seconds / timeline.duration, 1));
  for (const title of document.querySelectorAll("#lanes .title")) {
    title.classList.toggle("now", title.textContent === top[0]?.label);
  }
}

/** Return when the next event begins, or the one before. */
export function neighbour(seconds, direction) {
  const { events } = timeline;
  const found = direction > 0
    ? events.find((event) => event.start > seconds + INSIDE)
    : events.findLast((event) => event.start < seconds - 0.5);
  return found && found.start + INSIDE;
}
