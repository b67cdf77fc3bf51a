// Shows /openapi.json to people: what each call takes and gives, and a form to try it with.
"use strict";

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
};

let api;

const named = (schema) => (schema && schema.$ref ? schema.$ref.split("/").pop() : undefined);
const resolve = (schema) => (schema && schema.$ref ? { ...api.components.schemas[named(schema)], ...without(schema) } : schema ?? {});
const without = ({ $ref, ...rest }) => rest;

function typeOf(schema) {
  const name = named(schema);
  if (name) return name.split(".").pop();
  if (schema.type === "array") return `array of ${typeOf(schema.items ?? {})}`;
  const form = schema.format ?? schema.contentEncoding;
  return [].concat(schema.type ?? "any").join(" or ") + (form ? ` (${form})` : "");
}

// The fields of a schema, messages opened on demand, so that one which holds itself is no trouble.
function fields(schema) {
  const it = resolve(schema);
  if (it.type === "array") return fields(it.items ?? {});
  if (it.enum) return make("pre", {}, it.enum.join("\n"));
  if (!it.properties) return undefined;
  return make("ul", { class: "fields" }, ...Object.entries(it.properties).map(([name, field]) => {
    const inner = resolve(field.items ?? field);
    const line = [make("code", {}, name), " ", make("span", { class: "type" }, typeOf(field))];
    const words = make("span", { class: "words" }, field.description ?? "");
    if (!inner.properties && !inner.enum) return make("li", {}, ...line, words);
    const more = make("details", { ontoggle: () => more.childElementCount === 1 && more.append(fields(field)) }, make("summary", {}, ...line));
    return make("li", {}, more, words);
  }));
}

// A body to begin with: each field once, with an empty value of its type.
function skeleton(schema, depth = 0) {
  const it = resolve(schema);
  if (it.enum) return it.enum[1] ?? it.enum[0];
  if (it.type === "array") return [];
  if (it.type === "boolean") return false;
  if (it.type === "integer" || it.type === "number") return 0;
  if (it.properties && depth < 4) {
    return Object.fromEntries(Object.entries(it.properties).map(([name, field]) => [name, skeleton(field, depth + 1)]));
  }
  return "";
}

const pruned = (value) => {
  if (value === "" || value === null) return undefined;
  if (Array.isArray(value)) return value.length ? value : undefined;
  if (typeof value !== "object") return value;
  const kept = Object.entries(value).map(([name, inner]) => [name, pruned(inner)]).filter(([, inner]) => inner !== undefined);
  return kept.length ? Object.fromEntries(kept) : undefined;
};

function attempt(verb, path, operation) {
  const inputs = operation.parameters.map((parameter) => {
    const options = resolve(parameter.schema).enum;
    const field = options
      ? make("select", {}, make("option", { value: "" }, ""), ...options.map((option) => make("option", {}, option)))
      : make("input", { placeholder: parameter.name === "account_id" ? "me" : "", autocomplete: "off" });
    return { parameter, field };
  });
  const schema = operation.requestBody?.content["application/json"].schema;
  const body = schema && make("textarea", { "aria-label": "body", spellcheck: "false" });
  if (body) body.value = JSON.stringify(skeleton(schema), null, 2);
  const result = make("div", { "aria-live": "polite" });
  let running;
  const send = async (event) => {
    event.preventDefault();
    running?.abort();
    running = new AbortController();
    const query = new URLSearchParams();
    let target = path;
    for (const { parameter, field } of inputs) {
      const value = field.value || field.placeholder;
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(value));
      else if (value) query.append(parameter.name, value);
    }
    if ([...query].length) target += `?${query}`;
    const headers = { Accept: "application/json, application/x-ndjson;q=0.9" };
    const token = document.getElementById("token").value.trim();
    if (token) headers.Authorization = `Bearer ${token}`;
    let text;
    if (body) {
      headers["Content-Type"] = "application/json";
      try {
        text = JSON.stringify(pruned(JSON.parse(body.value || "{}")) ?? {});
      } catch (error) {
        result.replaceChildren(make("p", { class: "failed" }, `The body is no JSON: ${error.message}`));
        return;
      }
    }
    const stream = "application/x-ndjson" in operation.responses["200"].content;
    if (stream) headers.Accept = "application/x-ndjson";
    const quote = (word) => `'${word.replaceAll("'", "'\\''")}'`;
    const shown = `curl -X ${verb.toUpperCase()} ${quote(location.origin + target)} -H "Authorization: Bearer $TOKEN"` +
      (text ? ` -H 'Content-Type: application/json' -d ${quote(text)}` : "");
    const status = make("p", {}, "…");
    const output = make("pre");
    result.replaceChildren(make("pre", {}, shown), status, output);
    try {
      const response = await fetch(target, { method: verb.toUpperCase(), headers, body: text, signal: running.signal });
      status.textContent = `HTTP ${response.status}, request ${response.headers.get("x-request-id") ?? ""}`;
      status.className = response.ok ? "" : "failed";
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) output.append(part.value);
      try {
        output.textContent = JSON.stringify(JSON.parse(output.textContent), null, 2);
      } catch { /* a sequence of messages stays as it came */ }
    } catch (error) {
      if (error.name !== "AbortError") status.replaceWith(make("p", { class: "failed" }, error.message));
    }
  };
  return make("form", { onsubmit: send },
    ...inputs.map(({ parameter, field }) => make("label", {}, make("code", {}, parameter.name), field)),
    body, make("button", {}, "Send"), " ", make("button", { type: "button", onclick: () => running?.abort() }, "Stop"), result);
}

function operationOf(verb, path, operation) {
  const inside = make("div");
  const show = () => {
    if (inside.childElementCount) return;
    const body = operation.requestBody?.content["application/json"].schema;
    const content = operation.responses["200"].content;
    const answer = (content["application/x-ndjson"] ?? content["application/json"]).schema;
    const parameters = operation.parameters.map((parameter) => make("li", {},
      make("code", {}, parameter.name), " ", make("span", { class: "type" }, `${parameter.in}, ${typeOf(parameter.schema)}`),
      make("span", { class: "words" }, parameter.description ?? "")));
    inside.append(...[
      make("p", { class: "words" }, operation.description ?? ""),
      parameters.length ? make("h3", {}, "Parameters") : undefined,
      parameters.length ? make("ul", { class: "fields" }, ...parameters) : undefined,
      body && make("h3", {}, "Body"), body && fields(body),
      make("h3", {}, content["application/x-ndjson"] ? "Answer, a message at a time" : "Answer"), fields(answer),
      make("h3", {}, "Try it"), attempt(verb, path, operation),
    ].filter((child) => child !== undefined));
  };
  const line = [make("span", { class: `verb ${verb}` }, verb.toUpperCase()), make("code", {}, path), make("span", { class: "brief" }, operation.summary ?? "")];
  return make("details", { class: "operation", id: operation.operationId, ontoggle: show, "data-words": `${verb} ${path} ${operation.operationId} ${operation.description}`.toLowerCase() },
    make("summary", {}, ...line), inside);
}

function draw() {
  document.title = `${api.info.title} API`;
  document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
  document.getElementById("description").textContent = api.info.description;
  const all = Object.entries(api.paths).flatMap(([path, verbs]) => Object.entries(verbs).map(([verb, operation]) => ({ verb, path, operation })));
  document.getElementById("operations").replaceChildren(...api.tags.map((tag) => make("section", {},
    make("h2", {}, tag.name), make("p", {}, tag.description ?? ""),
    ...all.filter(({ operation }) => operation.tags.includes(tag.name)).map(({ verb, path, operation }) => operationOf(verb, path, operation)))));
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const operation of document.querySelectorAll("details.operation")) operation.hidden = !operation.dataset.words.includes(wanted);
    for (const section of document.querySelectorAll("section")) section.hidden = !section.querySelector("details.operation:not([hidden])");
  });
  const asked = location.hash && document.getElementById(location.hash.slice(1));
  if (asked) { asked.open = true; asked.scrollIntoView(); }
}

fetch("/openapi.json").then((response) => response.json()).then((read) => { api = read; draw(); }).catch((error) => {
  document.getElementById("operations").replaceChildren(make("p", { class: "failed" }, `openapi.json cannot be read: ${error.message}`));
});
