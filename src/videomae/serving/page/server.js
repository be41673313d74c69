// What is asked of the server: JSON, and events that it tells one after the other.

export const access = { token: "" };

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Ask for a path; with a body, a Blob, post it. Throws Refused with the server's own words. */
export async function ask(path, { body, accept = "application/json", signal } = {}) {
  const headers = { accept };
  if (access.token) headers.authorization = `Bearer ${access.token}`;
  if (body) headers["content-type"] = "application/octet-stream";
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body, signal });
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, said.error ?? `The server answers with ${answer.status}.`);
}

export async function askJson(path, options) {
  return (await ask(path, options)).json();
}

/** Yield [name, content] of server-sent events. */
export async function* askEvents(path, options) {
  const answer = await ask(path, { ...options, accept: "text/event-stream" });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const [name, data] = block.split("\n");
      const content = JSON.parse(data.replace("data: ", ""));
      if (name === "event: error") throw new Refused(content.status, content.error);
      yield [name.replace("event: ", ""), content];
    }
  }
}
