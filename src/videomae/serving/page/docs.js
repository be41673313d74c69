// Shows openapi.json for people.

import { element } from "./dom.js";

function operation(method, path, { summary, parameters, requestBody }) {
  const title = element("h2", { textContent: `${method.toUpperCase()} ${path}` });
  const section = element("section", { className: "card" }, title, element("p", { textContent: `${summary}.` }));
  const bodies = Object.keys(requestBody?.content ?? {});
  if (bodies.length) section.append(element("p", { textContent: `Body: ${bodies.join(", ")}.` }));
  const rows = parameters.map(({ name, schema }) => {
    const value = schema.enum ? schema.enum.join(" | ") : schema.type;
    const usual = schema.default === undefined ? "" : `, default ${schema.default}`;
    return element("li", {}, element("code", { textContent: name }), ` (${value}${usual}) ${schema.description ?? ""}`);
  });
  if (rows.length) section.append(element("ul", {}, ...rows));
  return section;
}

const answer = await fetch("openapi.json");
const { info, paths } = await answer.json();
document.getElementById("title").textContent = info.title;
for (const [path, methods] of Object.entries(paths)) {
  for (const [method, about] of Object.entries(methods)) {
    document.getElementById("paths").append(operation(method, path, about));
  }
}
