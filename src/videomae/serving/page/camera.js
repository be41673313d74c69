// A camera: its picture in the player, and short recordings of it, one after the other.

import { $, element } from "./dom.js";

let stream = null;

export const isAvailable = () => Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
export const isOn = () => stream !== null;

export function stopCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  $("player").srcObject = null;
}

/** Show a camera's picture, and offer the others. Throws an Error in words. */
export async function startCamera(id) {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: id ? { deviceId: { exact: id } } : true, audio: false });
  } catch (error) {
    const why = error.name === "NotAllowedError" ? "The browser may not use the camera: allow it for this page." : "There is no camera that can be used.";
    throw new Error(why, { cause: error });
  }
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  const current = stream.getVideoTracks()[0].getSettings().deviceId;
  $("cameras").replaceChildren(...cameras.map(({ deviceId, label }, i) =>
    element("option", { value: deviceId, textContent: label || `Camera ${i + 1}`, selected: deviceId === current })));
  $("cameras").hidden = cameras.length < 2;
  $("player").srcObject = stream;
  await $("player").play();
}

/** Yield {blob, start, end} of recordings of so many seconds, until the camera is stopped. */
export async function* recordings(seconds) {
  const own = stream, began = performance.now();
  while (stream === own && own) {
    const start = (performance.now() - began) / 1000;
    const blob = await record(own, seconds);
    if (blob.size && stream === own) yield { blob, start, end: (performance.now() - began) / 1000 };
  }
}

function record(source, seconds) {
  const recorder = new MediaRecorder(source, { videoBitsPerSecond: 2_500_000 });
  const parts = [];
  return new Promise((resolve, reject) => {
    recorder.ondataavailable = ({ data }) => parts.push(data);
    recorder.onerror = ({ error }) => reject(error ?? new Error("The camera cannot be recorded."));
    recorder.onstop = () => resolve(new Blob(parts, { type: recorder.mimeType }));
    recorder.start();
    setTimeout(() => recorder.state !== "inactive" && recorder.stop(), 1000 * seconds);
  });
}
