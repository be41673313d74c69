// The page: shows a video, asks the server about it, and draws what it says.

const $ = (id) => document.getElementById(id);
const player = $("player");
const state = { about: null, video: null, events: [], windows: [], asking: new AbortController(), token: "" };

const hue = (label) => [...label].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
const share = (fraction) => `${100 * fraction}%`; // as CSS takes it
const percent = (score) => `${(100 * score).toFixed(1)} %`;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function complain(error) {
  if (error.name === "AbortError") return;
  $("error").textContent = error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message;
  $("error").hidden = false;
  $("progress").hidden = true;
  $("status").textContent = "";
}

async function ask(path, { body, accept = "application/json" } = {}) {
  const headers = { accept };
  if (state.token) headers.authorization = `Bearer ${state.token}`;
  if (body) headers["content-type"] = "application/octet-stream";
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body, signal: state.asking.signal });
  if (answer.ok) return answer;
  if (answer.status === 401) {
    $("token-form").hidden = false;
    $("token").focus();
  }
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error ?? `The server answers with ${answer.status}.`);
}

async function* serverEvents(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const [name, data] = block.split("\n");
      yield [name.replace("event: ", ""), JSON.parse(data.replace("data: ", ""))];
    }
  }
}

async function introduce() {
  try {
    const about = (state.about = await (await ask("about")).json());
    document.title = $("name").textContent = about.name;
    const kind = about.task === "classification" ? `${about.classes.length} classes` : "pre-trained";
    $("about").textContent = `${kind}, ${about.engine}`;
    $("explain").hidden = !about.explains;
    $("token-form").hidden = true;
    $("error").hidden = true;
  } catch (error) {
    complain(error);
  }
}

async function open(video) {
  if (!video) return;
  state.asking.abort();
  state.asking = new AbortController();
  Object.assign(state, { video, events: [], windows: [] });
  $("error").hidden = true;
  $("overlay").hidden = true;
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(video);
  $("result").hidden = false;
  try {
    if (!state.about) await introduce();
    if (!state.about) return;
    if (video.size > state.about.max_bytes) {
      throw new Error(`The video has ${video.size} bytes, and the server takes ${state.about.max_bytes}. Choose a smaller one.`);
    }
    await (state.about.task === "classification" ? look() : reconstruct());
  } catch (error) {
    complain(error);
  }
}

async function look() {
  $("timeline").hidden = false;
  drawEvents();
  drawLabels();
  $("status").textContent = "The server looks at the video …";
  $("progress").hidden = false;
  $("progress").removeAttribute("value");
  let duration = null;
  const answer = await ask("timeline", { body: state.video, accept: "text/event-stream" });
  for await (const [name, said] of serverEvents(answer)) {
    if (name === "error") throw new Error(said.error);
    if (name === "start") duration = said.duration;
    if (name === "window") {
      state.windows.push(said);
      if (duration) $("progress").value = Math.min(said.end / duration, 1);
      drawLabels();
    }
    if (name === "end") {
      state.events = said.events;
      state.duration = said.duration;
      $("progress").hidden = true;
      const many = said.events.length === 1 ? "1 event" : `${said.events.length} events`;
      $("status").textContent = [`${many} in ${clock(said.duration)}`, ...said.notes].join("; ") + ".";
      drawEvents();
    }
  }
}

function drawEvents() {
  const bars = state.events.map((event) => {
    const bar = element("button", { type: "button", textContent: event.label, title: `${event.label} ${clock(event.start)}–${clock(event.end)}`, onclick: () => jump(event) });
    bar.style.left = share(event.start / state.duration);
    bar.style.width = share((event.end - event.start) / state.duration);
    bar.style.background = `hsl(${hue(event.label)} 70% 72%)`;
    return bar;
  });
  $("track").replaceChildren(...bars, $("cursor"));
  $("events").replaceChildren(...state.events.map((event) =>
    element("li", {}, element("button", {
      type: "button",
      textContent: `${clock(event.start)}–${clock(event.end)}  ${event.label}  ${percent(event.score)}`,
      onclick: () => jump(event),
    }))));
}

function jump(event) {
  player.currentTime = event.start;
}

// A window speaks for the time around its middle.
function windowAt(seconds) {
  const distance = (window) => Math.abs((window.start + window.end) / 2 - seconds);
  return state.windows.reduce((best, window) => (best && distance(best) <= distance(window) ? best : window), null);
}

function drawLabels() {
  const shown = windowAt(player.currentTime);
  $("now").textContent = shown ? `${clock(shown.start)}–${clock(shown.end)}` : "";
  $("labels").replaceChildren(...(shown?.top ?? []).map(({ label, score }) =>
    element("li", {}, element("span", { textContent: label }), element("meter", { value: score, title: label }), element("span", { textContent: percent(score) }))));
  const at = state.duration ? player.currentTime / state.duration : 0;
  $("cursor").style.left = share(Math.min(at, 1));
}

async function explain() {
  const shown = windowAt(player.currentTime);
  if (!shown || $("explain").hidden) return;
  if (!$("overlay").hidden) {
    $("overlay").hidden = true;
    return;
  }
  $("status").textContent = "The server looks where the model looks …";
  $("error").hidden = true;
  try {
    player.pause();
    const end = Math.min(shown.end, state.duration ?? shown.end);
    const query = new URLSearchParams({ start: shown.start, end });
    const found = await (await ask(`explain?${query}`, { body: state.video })).json();
    const seconds = found.times.map((time) => Math.abs(time - player.currentTime));
    const frame = seconds.indexOf(Math.min(...seconds));
    drawMap(found, Math.floor((frame * found.map.length) / found.times.length));
    $("status").textContent = `${found.label}, ${percent(found.score)}: bright is where the model finds it. Press E again to hide it.`;
  } catch (error) {
    complain(error);
  }
}

function drawMap({ map, scale, box }, slot) {
  const overlay = $("overlay");
  const [left, top, right, bottom] = box;
  const rows = map[slot];
  overlay.width = rows[0].length;
  overlay.height = rows.length;
  const context = overlay.getContext("2d");
  rows.forEach((row, y) => row.forEach((value, x) => {
    context.fillStyle = `rgb(255 140 0 / ${0.75 * Math.min(value / scale, 1)})`;
    context.fillRect(x, y, 1, 1);
  }));
  Object.assign(overlay.style, {
    left: share(left), top: share(top), width: share(right - left), height: share(bottom - top),
  });
  overlay.hidden = false;
}

async function reconstruct() {
  $("reconstruction").hidden = false;
  $("status").textContent = "The server hides a part of the clip and lets the model fill it in …";
  const found = await (await ask(`reconstruct?mask_ratio=${$("ratio").value}`, { body: state.video })).json();
  $("views").replaceChildren(...Object.entries(found.views).map(([title, source]) => {
    const strip = element("div", { tabIndex: 0 });
    const picture = element("img", { src: source, alt: title, onload: () => cutStrip(picture, found.frames, strip) });
    return element("figure", {}, element("figcaption", { textContent: title }), strip);
  }));
  $("status").textContent = `${percent(found.mask_ratio)} hidden, loss ${found.loss.toFixed(4)}.`;
}

// Frames come one below the other, and are shown side by side.
function cutStrip(picture, frames, strip) {
  const height = picture.naturalHeight / frames;
  for (let i = 0; i < frames; i++) {
    const canvas = element("canvas", { width: picture.naturalWidth, height });
    canvas.getContext("2d").drawImage(picture, 0, -i * height);
    strip.append(canvas);
  }
}

function step(direction) {
  const now = player.currentTime;
  const next = direction > 0
    ? state.events.find((event) => event.start > now + 0.05)
    : state.events.findLast((event) => event.start < now - 0.5);
  if (next) jump(next);
}

const keys = {
  " ": () => (player.paused ? player.play() : player.pause()),
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
  e: explain,
  o: () => $("file").click(),
};

document.addEventListener("keydown", (event) => {
  const isTaken = event.target.closest("input, button, video, a") || event.ctrlKey || event.metaKey || event.altKey;
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
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  open(event.dataTransfer.files[0]);
});
$("file").addEventListener("change", () => open($("file").files[0]));
$("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  state.token = $("token").value.trim();
  await introduce();
  if (state.about) open(state.video);
});
$("explain").addEventListener("click", explain);
$("ratio").addEventListener("input", () => ($("ratio-shown").textContent = `${Math.round(100 * $("ratio").value)} %`));
$("ratio").addEventListener("change", () => reconstruct().catch(complain));
player.addEventListener("timeupdate", drawLabels);
player.addEventListener("play", () => ($("overlay").hidden = true));
player.addEventListener("error", () => {
  if (state.video) $("status").textContent = "This browser cannot play the video; the server may read it all the same.";
});
introduce();
