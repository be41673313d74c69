// The page: shows a video, asks the server about it, and draws what it says.

import { isAvailable, isOn, recordings, startCamera, stopCamera } from "./camera.js";
import { $, clock, element, percent } from "./dom.js";
import { drawMap, hideMap, showMap, shownLabel } from "./overlay.js";
import { drawViews, showReconstruction, stopViews, togglePlaying } from "./reconstruction.js";
import { access, askEvents, askJson } from "./server.js";
import { clearTimeline, drawMoment, drawTimeline, neighbour, timeline, windowAt } from "./timeline.js";

const RECORDED = 2; // seconds of a camera that are looked at together
const LIVE = 60; // seconds of a camera that the timeline shows
const UNREADABLE = 422, MOST_REFUSED = 3; // recordings in a row that hold no picture
const player = $("player");
const state = { about: null, video: null, asking: new AbortController(), seed: 0 };

// ------------------------------------------------------------------------------------------------ what is said

function say(text) {
  $("status").textContent = text;
}

function complain(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) {
    $("token-form").hidden = false;
    $("token").focus();
  }
  $("error").textContent = error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message;
  $("error").hidden = false;
  $("progress").hidden = true;
  say("");
}

async function introduce() {
  const about = (state.about = await askJson("about"));
  const chips = about.task === "classification"
    ? [`${about.classes.length} classes`, about.engine]
    : ["pre-trained", "reconstructs what is hidden"];
  document.title = $("name").textContent = about.name;
  $("about").replaceChildren(...chips.map((text) => element("span", { textContent: text })));
  $("explain").hidden = !about.explains;
  $("token-form").hidden = $("error").hidden = true;
}

// ------------------------------------------------------------------------------------------------- what is shown

/** Make room for another video or for a camera. */
function begin() {
  state.asking.abort();
  state.asking = new AbortController();
  stopCamera();
  stopViews();
  hideMap();
  clearTimeline();
  state.video = null;
  $("error").hidden = $("timeline").hidden = $("moment").hidden = $("masking").hidden = $("reconstruction").hidden = true;
  $("camera").textContent = "Use the camera";
  $("explain").ariaPressed = "false";
  $("result").hidden = false;
  document.body.classList.add("busy");
  player.controls = true;
  if (player.src) URL.revokeObjectURL(player.src);
  player.removeAttribute("src");
}

async function open(video) {
  if (!video) return;
  begin();
  state.video = video;
  player.src = URL.createObjectURL(video);
  try {
    if (!state.about) await introduce();
    if (video.size > state.about.max_bytes) {
      throw new Error(`The video has ${video.size} bytes, and the server takes ${state.about.max_bytes}. Choose a smaller one.`);
    }
    await (state.about.task === "classification" ? look() : reconstruct());
  } catch (error) {
    complain(error);
  }
}

async function look() {
  const { signal } = state.asking;
  $("timeline").hidden = $("moment").hidden = $("progress").hidden = false;
  $("progress").removeAttribute("value");
  say("The server looks at the video …");
  for await (const [name, said] of askEvents("timeline?top_k=8", { body: state.video, signal })) {
    if (name === "start") timeline.duration = said.duration ?? 0;
    if (name === "window") {
      timeline.windows.push(said);
      if (timeline.duration) $("progress").value = Math.min(said.end / timeline.duration, 1);
    }
    if (name === "end") {
      Object.assign(timeline, { events: said.events, duration: said.duration });
      $("progress").hidden = true;
      const many = said.events.length === 1 ? "1 event" : `${said.events.length} events`;
      say([`${many} in ${clock(said.duration)}`, ...said.notes].join("; ") + ".");
    }
    drawTimeline(jump);
    drawNow();
  }
}

async function reconstruct() {
  const { signal } = state.asking;
  $("masking").hidden = $("reconstruction").hidden = false;
  $("error").hidden = true;
  say("The server hides a part of the clip and lets the model fill it in …");
  say(await showReconstruction(state.video, { seed: state.seed, signal }));
}

function drawNow() {
  drawMoment(player.currentTime, { chosen: shownLabel(), onChoose: state.about?.explains && state.video ? explain : null });
  drawMap(player.currentTime);
}

function jump(seconds) {
  if (state.video) player.currentTime = seconds;
}

// ------------------------------------------------------------------------------------------- where the model looks

async function explain(label) {
  const shown = windowAt(player.currentTime);
  if (!shown || !state.about.explains || !state.video) return;
  const isShown = shownLabel() !== null && (label === undefined || label === shownLabel());
  hideMap();
  $("explain").ariaPressed = String(!isShown);
  if (isShown) return drawNow();
  say("The server looks where the model looks …");
  $("error").hidden = true;
  try {
    const query = new URLSearchParams({ start: shown.start, end: Math.min(shown.end, timeline.duration) });
    if (label !== undefined) query.set("label", label);
    const found = await askJson(`explain?${query}`, { body: state.video, signal: state.asking.signal });
    showMap(found, player.currentTime);
    say(`${found.label}, ${percent(found.score)}: bright is where the model finds it.`);
    drawNow();
  } catch (error) {
    $("explain").ariaPressed = "false";
    complain(error);
  }
}

// ---------------------------------------------------------------------------------------------------- the camera

async function watchCamera(id) {
  begin();
  try {
    if (!state.about) await introduce();
    await startCamera(id);
    player.controls = false;
    $("camera").textContent = "Stop the camera";
    await (state.about.task === "classification" ? lookLive() : reconstructLive());
  } catch (error) {
    if (error.name === "AbortError") return; // another camera, or a video, took its place
    stopCamera();
    $("camera").textContent = "Use the camera";
    complain(error);
  }
}

async function lookLive() {
  $("timeline").hidden = $("moment").hidden = false;
  say(`The camera is looked at, ${RECORDED} seconds at a time.`);
  let refused = 0;
  for await (const { blob, start, end } of recordings(RECORDED)) {
    let top;
    try {
      top = await askJson("?top_k=8", { body: blob, signal: state.asking.signal });
      refused = 0;
    } catch (error) {
      if (error.status !== UNREADABLE || ++refused > MOST_REFUSED) throw error;
      continue; // a browser that is busy records nothing at times
    }
    timeline.windows = [...timeline.windows, { start, end, top }].filter((window) => window.end > end - LIVE);
    const first = timeline.windows[0].start; // the timeline shows the last minute
    const shifted = timeline.windows.map((window) => ({ ...window, start: window.start - first, end: window.end - first }));
    const kept = timeline.windows;
    Object.assign(timeline, { windows: shifted, duration: end - first });
    drawTimeline(jump);
    drawMoment(end - first, { chosen: null, onChoose: null });
    timeline.windows = kept;
  }
}

async function reconstructLive() {
  say(`${RECORDED} seconds are recorded …`);
  const { value } = await recordings(RECORDED).next();
  if (value) await open(value.blob);
}

// -------------------------------------------------------------------------------------------------------- control

const keys = {
  " ": () => (state.about?.task === "pretraining" ? togglePlaying() : player.paused ? player.play() : player.pause()),
  ArrowRight: () => jump(neighbour(player.currentTime, 1) ?? player.currentTime),
  ArrowLeft: () => jump(neighbour(player.currentTime, -1) ?? player.currentTime),
  e: () => explain(),
  o: () => $("file").click(),
  c: () => $("camera").click(),
};

document.addEventListener("keydown", (event) => {
  const isTaken = event.target.closest("input, select, button, video, a") || event.ctrlKey || event.metaKey || event.altKey;
  if (event.target === $("drop") && ["Enter", " "].includes(event.key)) {
    event.preventDefault();
    $("file").click();
  } else if (!isTaken && keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  open(event.dataTransfer.files[0]);
});
$("file").addEventListener("change", () => {
  open($("file").files[0]);
  $("file").value = ""; // the same file may be chosen again
});

$("camera").hidden = !isAvailable();
$("camera").addEventListener("click", () => {
  if (!isOn()) return watchCamera();
  stopCamera();
  $("camera").textContent = "Use the camera";
  say("The camera is off.");
});
$("cameras").addEventListener("change", () => watchCamera($("cameras").value));

$("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  access.token = $("token").value.trim();
  try {
    await introduce();
    if (state.video) await open(state.video);
  } catch (error) {
    complain(error);
  }
});

$("explain").addEventListener("click", () => explain());
$("ratio").addEventListener("input", () => ($("ratio-shown").textContent = percent($("ratio").value).replace(".0", "")));
for (const id of ["ratio", "mask"]) $(id).addEventListener("change", () => reconstruct().catch(complain));
$("again").addEventListener("click", () => {
  state.seed += 1;
  reconstruct().catch(complain);
});
$("frame").addEventListener("input", () => {
  stopViews();
  drawViews();
});

player.addEventListener("timeupdate", () => state.video && drawNow());
player.addEventListener("error", () => {
  if (state.video) say("This browser cannot play the video; the server may read it all the same.");
});

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}
$("theme").addEventListener("click", () => {
  const isDark = (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  setTheme(isDark ? "light" : "dark");
  localStorage.setItem("theme", isDark ? "light" : "dark");
});
setTheme(localStorage.getItem("theme"));
introduce().catch(complain);
