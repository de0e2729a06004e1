"use strict";
const get = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const WORDS = { starting: "… starting", running: "● running", stopped: "■ stopped", failed: "✗ failed" };
const history = { fps: [], heat: [], power: [] };
const KEPT = 300;

const number = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const make = (name, attributes, text) => {
  const found = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) found.setAttribute(key, value);
  if (text !== undefined) found.textContent = text;
  return found;
};
const draw = (name, attributes) => {
  const found = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
  return found;
};

function stages(list) {
  const longest = Math.max(0.001, ...list.map((stage) => stage.p95_ms ?? stage.p50_ms));
  const rows = list.map((stage) => {
    const row = make("div", { class: "stage" });
    const svg = draw("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(draw("rect", { x: 0, y: 0, height: 10, width: (100 * stage.p50_ms) / longest }));
    if (stage.p95_ms !== null) {
      const x = (99 * stage.p95_ms) / longest;
      svg.append(draw("line", { x1: x, x2: x, y1: 0, y2: 10 }));
    }
    const p95 = stage.p95_ms === null ? "" : ` / ${number(stage.p95_ms, 1)}`;
    row.append(make("span", {}, stage.name), svg, make("span", {}, number(stage.p50_ms, 1) + p95));
    return row;
  });
  get("stages").replaceChildren(...rows);
}

function line(name, value) {
  const values = history[name];
  values.push(value);
  if (values.length > KEPT) values.shift();
  const real = values.filter((item) => item !== null);
  const svg = get(`line-${name}`);
  svg.closest("figure").hidden = real.length === 0;
  if (!real.length) return;
  const top = Math.max(...real) * 1.1 || 1;
  let path = "", pen = "M";
  values.forEach((item, index) => {
    if (item === null) { pen = "M"; return; }
    path += `${pen}${((index * 300) / (KEPT - 1)).toFixed(1)} ${(68 - (66 * item) / top).toFixed(1)}`;
    pen = "L";
  });
  svg.replaceChildren(draw("path", { d: path }));
  const caption = svg.previousElementSibling;
  caption.replaceChildren(make("span", {}, caption.dataset.name ??= caption.textContent), make("span", {}, number(value, 1)));
}

function show(status) {
  const state = get("state");
  state.dataset.state = status.state;
  state.textContent = (WORDS[status.state] || status.state) + (status.level ? ` · ${status.level}` : "") + (status.error ? ` · ${status.error}` : "");
  get("flags").hidden = !status.flags.length;
  get("flags").textContent = `⚠ ${status.flags.join("; ")}`;
  const heat = Object.values(status.temperature_c);
  const hottest = heat.length ? Math.max(...heat) : null;
  const power = Object.values(status.power_w);
  get("fps").textContent = number(status.fps, 1);
  get("age").textContent = number(status.age_p50_ms, 0);
  get("frames").textContent = status.frames.toLocaleString("en");
  get("dropped").textContent = status.dropped.toLocaleString("en");
  get("misses").textContent = status.deadline_misses.toLocaleString("en");
  get("heat").textContent = number(hottest, 0);
  stages(status.stages);
  line("fps", status.fps);
  line("heat", hottest);
  line("power", power.length ? Math.max(...power) : null); // the total is the highest; rails are parts of it
  const camera = Object.entries(status.camera).map(([name, count]) => {
    const pair = make("div");
    pair.append(make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, count.toLocaleString("en")));
    return pair;
  });
  get("camera").replaceChildren(...camera);
  const sinks = status.sinks.map((sink) => {
    const row = make("tr");
    for (const cell of [sink.name, sink.written, sink.dropped, sink.failed, sink.error || (sink.alive ? "–" : "off")]) row.append(make("td", {}, cell));
    return row;
  });
  get("sinks").tBodies[0].replaceChildren(...sinks);
}

async function numbers() {
  for (;;) {
    try {
      const answer = await fetch("status", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      show(await answer.json());
    } catch (error) {
      get("state").dataset.state = "away";
      get("state").textContent = "✗ no answer from the board";
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

async function pictures() {
  let last = 0, shown = null;
  for (;;) {
    try {
      const answer = await fetch(`frame.jpg?after=${last}`, { cache: "no-store" });
      if (answer.status === 200) {
        last = Number(answer.headers.get("X-Frame")) || last;
        const place = URL.createObjectURL(await answer.blob());
        get("frame").src = place;
        get("frame").dataset.number = last;
        get("nothing").hidden = true;
        if (shown) URL.revokeObjectURL(shown);
        shown = place;
        continue;
      }
    } catch (error) { /* the numbers say that the board is away */ }
    await new Promise((done) => setTimeout(done, document.hidden ? 2000 : 300));
  }
}

numbers();
pictures();
