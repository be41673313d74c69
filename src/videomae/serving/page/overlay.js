// Where the model looks, over the picture: a map for each time slot of a clip, which follows the video.

import { $, share } from "./dom.js";

let shown = null;

export function hideMap() {
  shown = null;
  $("overlay").hidden = true;
}

export const shownLabel = () => shown?.label ?? null;

/** Show what /explain answered; it stays while the video is within the clip. */
export function showMap(found, seconds) {
  shown = found;
  place();
  drawMap(seconds);
}

/** The picture may lie within the player with black beside it. */
function place() {
  const player = $("player"), stage = player.getBoundingClientRect();
  const scale = Math.min(stage.width / player.videoWidth, stage.height / player.videoHeight) || 0;
  const width = scale * player.videoWidth, height = scale * player.videoHeight;
  const [left, top, right, bottom] = shown.box;
  Object.assign($("overlay").style, {
    left: share(((stage.width - width) / 2 + left * width) / stage.width),
    top: share(((stage.height - height) / 2 + top * height) / stage.height),
    width: share(((right - left) * width) / stage.width),
    height: share(((bottom - top) * height) / stage.height),
  });
}

export function drawMap(seconds) {
  if (!shown) return;
  const { map, scale, times } = shown;
  const step = times.length > 1 ? times[1] - times[0] : 1;
  const within = seconds >= times[0] - step && seconds <= times.at(-1) + step;
  $("overlay").hidden = !within;
  if (!within) return;
  const away = times.map((time) => Math.abs(time - seconds));
  const slot = Math.floor((away.indexOf(Math.min(...away)) * map.length) / times.length);
  const rows = map[slot], overlay = $("overlay"), context = overlay.getContext("2d");
  overlay.width = rows[0].length;
  overlay.height = rows.length;
  rows.forEach((row, y) => row.forEach((value, x) => {
    const strength = Math.sqrt(Math.max(0, Math.min(value / scale, 1))); // so that what is weak is seen as well
    context.fillStyle = `hsl(${30 + 25 * strength} 100% ${45 + 15 * strength}% / ${0.85 * strength})`;
    context.fillRect(x, y, 1, 1);
  }));
}

addEventListener("resize", () => shown && place());
