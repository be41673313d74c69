// What a pre-trained model makes of what is hidden: the views of a clip side by side, played in step.

import { $, element, percent } from "./dom.js";
import { askJson } from "./server.js";

const FRAMES_PER_SECOND = 8;
let views = [], timer = null;

export function stopViews() {
  clearInterval(timer);
  timer = null;
}

/** Ask for the reconstruction of a video, a Blob, with what is chosen on the page, and play it. */
export async function showReconstruction(video, { seed, signal }) {
  const query = new URLSearchParams({ mask_ratio: $("ratio").value, mask: $("mask").value, seed });
  const found = await askJson(`reconstruct?${query}`, { body: video, signal });
  const pictures = await Promise.all(Object.values(found.views).map(load));
  const at = views.length ? Number($("frame").value) : 0;
  views = pictures.map((picture) => ({ picture, height: picture.naturalHeight / found.frames, canvas: null }));
  $("views").replaceChildren(...Object.keys(found.views).map((title, i) => {
    views[i].canvas = element("canvas", { width: views[i].picture.naturalWidth, height: views[i].height });
    return element("figure", {}, views[i].canvas, element("figcaption", { textContent: title }));
  }));
  $("frame").max = found.frames - 1;
  $("frame").value = Math.min(at, found.frames - 1);
  drawViews();
  if (!timer && !matchMedia("(prefers-reduced-motion: reduce)").matches) togglePlaying();
  return `${percent(found.mask_ratio)} hidden; the mean squared error of the rest is ${found.loss.toFixed(4)}.`;
}

/** Frames come one below the other. */
export function drawViews() {
  const frame = Number($("frame").value);
  for (const { picture, height, canvas } of views) canvas.getContext("2d").drawImage(picture, 0, -frame * height);
}

export function togglePlaying() {
  if (timer) return stopViews();
  timer = setInterval(() => {
    $("frame").value = (Number($("frame").value) + 1) % (Number($("frame").max) + 1);
    drawViews();
  }, 1000 / FRAMES_PER_SECOND);
}

async function load(source) {
  const picture = new Image();
  picture.src = source;
  await picture.decode();
  return picture;
}
