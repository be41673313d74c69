// Small things that all parts of the page use.

export const $ = (id) => document.getElementById(id);
export const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
export const share = (fraction) => `${100 * fraction}%`; // as CSS takes it
export const percent = (score) => `${(100 * score).toFixed(1)} %`;

/** A label whose line may break behind each underscore. */
export const breakable = (label) => label.replaceAll("_", "_\u200b");

/** Make an element. `style` sets CSS properties, also custom ones; `data` is for the rest. */
export function element(name, { style = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  for (const [property, value] of Object.entries(style)) made.style.setProperty(property, value);
  made.append(...children);
  return made;
}

/** A colour of its own for each class, the same on every page. */
export function hue(label) {
  const number = [...label].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 9973, 7);
  return Math.round((number * 137.508) % 360);
}
