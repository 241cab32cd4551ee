"""`SetHandler perchild-status`: one screen that shows each identity's slots, hand-offs, load and memory, as they change.

One file without a build step: HTML, a style and a script, which asks `?json` each second (docs/status.md says what that answers) and
reckons rates from two answers. The policy in its head lets nothing else run or load. What came is only ever put in as text.
Runs as: a child that is asked for it.  Pure.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from perchild.wire.page import latency_bounds_us

_STYLE = """
:root { color-scheme: light dark; --back: #f4f5f7; --card: #ffffff; --ink: #16202c; --soft: #5a6776; --line: #dfe3e8; --own: #e6eaef;
  --own-ink: #46525f; --served: #0b7a75; --served-ink: #ffffff; --wait: #b45309; --wait-ink: #ffffff; --bad: #b42318; --good: #15803d;
  --accent: #2456c9; --accent-soft: #dbe5fb; --shadow: 0 1px 2px rgba(16, 24, 40, .06), 0 1px 3px rgba(16, 24, 40, .08); }
@media (prefers-color-scheme: dark) { :root { --back: #0f141a; --card: #182029; --ink: #e8edf2; --soft: #9aa8b6; --line: #2a3541;
  --own: #26313d; --own-ink: #b6c2ce; --served: #2dd4bf; --served-ink: #05211e; --wait: #fbbf24; --wait-ink: #2b1d00; --bad: #f97066;
  --good: #4ade80; --accent: #7aa2ff; --accent-soft: #22314f; --shadow: none; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; }
main, header { max-width: 1240px; margin: 0 auto; padding: 0 20px; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 14px; padding-top: 18px; padding-bottom: 14px; }
h1 { font-size: 20px; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 13px; margin: 0; color: var(--soft); font-weight: 600; text-transform: uppercase; letter-spacing: .05em; }
.pill { border-radius: 99px; padding: 2px 11px; font-size: 13px; font-weight: 600; border: 1px solid currentColor; color: var(--good); }
.pill.busy { color: var(--wait); } .pill.gone { color: var(--bad); }
.facts { color: var(--soft); font-size: 13.5px; flex: 1 1 20em; }
button, input, select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 6px 12px; min-height: 36px; }
button:focus-visible, input:focus-visible, select:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.cards { display: grid; grid-template-columns: repeat(6, 1fr); gap: 12px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 13px 15px; box-shadow: var(--shadow); min-width: 0; }
.card strong { display: block; font-size: 27px; line-height: 1.2; font-weight: 650; letter-spacing: -.02em; margin-top: 3px; white-space: nowrap; }
.card p { margin: 1px 0 0; color: var(--soft); font-size: 13px; }
.card svg { display: block; width: 100%; height: 30px; margin-top: 6px; }
.spark { fill: none; stroke: var(--accent); stroke-width: 1.8; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.area { fill: var(--accent-soft); stroke: none; }
section { margin-bottom: 16px; }
.split { display: grid; grid-template-columns: 1fr; gap: 12px; }
.flow svg { width: 100%; height: auto; display: block; margin-top: 8px; }
.flow text { fill: var(--ink); font-size: 13px; } .flow .number { fill: var(--soft); }
.flow .over { paint-order: stroke; stroke: var(--card); stroke-width: 6px; font-weight: 600; }
.flow path { fill: none; stroke: var(--served); opacity: .5; } .flow path.out { stroke: var(--accent); }
.flow rect { fill: var(--served); } .flow rect.out { fill: var(--accent); } .flow rect.hub { fill: var(--soft); }
.tools { display: flex; flex-wrap: wrap; gap: 8px 12px; align-items: center; margin-bottom: 10px; }
.tools h2 { flex: 1 1 auto; } .tools input { width: 13em; }
table { border-collapse: collapse; width: 100%; }
th { text-align: right; font-size: 12.5px; font-weight: 600; color: var(--soft); padding: 5px 9px; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
td { text-align: right; padding: 8px 9px; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
th.left, td.left { text-align: left; }
td.slots { width: 34%; white-space: normal; text-align: left; }
summary { color: var(--soft); font-size: 12.5px; cursor: pointer; } details ul { margin: 4px 0 0; padding: 0; list-style: none; font-size: 12.5px; }
details li { display: flex; justify-content: space-between; gap: 14px; max-width: 26em; }
.who { max-width: 22em; white-space: normal; } .who b { font-weight: 650; } .who span { display: block; color: var(--soft); font-size: 12.5px; }
.process { display: flex; flex-wrap: wrap; gap: 3px; align-items: center; margin-bottom: 3px; }
.process > small { color: var(--soft); font-size: 11.5px; min-width: 4.6em; }
.slot { min-width: 2.05em; padding: 0 4px; text-align: center; font-size: 12.5px; line-height: 1.6; border-radius: 5px; background: var(--own);
  color: var(--own-ink); border: 1px solid transparent; }
.slot.served { background: var(--served); color: var(--served-ink); font-weight: 650; }
.slot.wait { background: var(--wait); color: var(--wait-ink); font-weight: 650; }
.slot.moved { border-color: var(--served); box-shadow: inset 0 -3px 0 var(--served); }
.none { color: var(--soft); } .bad { color: var(--bad); font-weight: 650; }
.bar { display: block; height: 4px; border-radius: 2px; background: var(--accent); margin: 4px 0 0 auto; max-width: 100%; }
dl.key { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 10px 0 0; color: var(--soft); font-size: 12.5px; }
dl.key div { display: flex; gap: 6px; align-items: center; } dl.key dd { margin: 0; }
.say { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
noscript p, #trouble { background: var(--card); border: 1px solid var(--bad); border-radius: 10px; padding: 10px 14px; }
@media (max-width: 1000px) { .cards { grid-template-columns: repeat(3, 1fr); } }
@media (max-width: 760px) {
  main, header { padding-left: 12px; padding-right: 12px; }
  .cards { grid-template-columns: repeat(2, 1fr); gap: 8px; } .card { padding: 10px 12px; } .card strong { font-size: 22px; }
  .tools input { width: 100%; flex: 1 1 8em; } thead { position: absolute; clip-path: inset(50%); }
  table, tbody { display: block; }
  tr { display: grid; grid-template-columns: repeat(4, auto); gap: 6px 12px; padding: 10px 0; border-bottom: 1px solid var(--line); }
  tr:last-child { border-bottom: 0; }
  .who details { margin-top: 2px; }
  td, tr:last-child td { border: 0; padding: 0; text-align: left; } td::before { content: attr(data-name); display: block; color: var(--soft); font-size: 11.5px; }
  td.slots, td.who { grid-column: 1 / -1; width: auto; } td.who::before, td.slots::before { display: none; } .bar { margin-left: 0; }
}
@media (prefers-reduced-motion: no-preference) { .slot { transition: background-color .25s, border-color .25s; } }
"""

_BODY = """
<header>
<h1 id="name">perchildd</h1><span class="pill busy" id="state">connecting</span><span class="facts" id="facts"></span>
<button type="button" id="pause" aria-pressed="false">Pause</button>
</header>
<main>
<noscript><p>This page needs its script. The figures themselves: <a href="?json">JSON</a>.</p></noscript>
<p id="trouble" role="alert" hidden></p>
<p class="say" id="say" role="status" aria-live="polite"></p>
<section class="cards" aria-label="Now">
<div class="card"><h2>Requests</h2><strong id="rate">&ndash;</strong><p id="rate-more">&nbsp;</p><svg viewBox="0 0 120 30" preserveAspectRatio="none" aria-hidden="true"><path class="area" id="area"/><path class="spark" id="spark"/></svg></div>
<div class="card"><h2>Connections</h2><strong id="open">&ndash;</strong><p id="open-more">&nbsp;</p></div>
<div class="card"><h2>Hand-offs</h2><strong id="hand">&ndash;</strong><p id="hand-more">&nbsp;</p></div>
<div class="card"><h2>Latency</h2><strong id="late">&ndash;</strong><p id="late-more">&nbsp;</p></div>
<div class="card"><h2>Processor</h2><strong id="cpu">&ndash;</strong><p id="cpu-more">&nbsp;</p></div>
<div class="card"><h2>Memory</h2><strong id="memory">&ndash;</strong><p id="memory-more">&nbsp;</p></div>
</section>
<section class="card flow" id="flow-card" hidden><h2>Connections handed from child to child, each second</h2>
<svg id="flow" viewBox="0 0 1180 120" role="img" aria-label="Who hands connections over, and who receives them"></svg></section>
<section class="card"><div class="tools"><h2 id="count">Identities</h2>
<label class="say" for="find">Find an identity or host</label><input id="find" type="search" placeholder="Find a user or host">
<label class="say" for="sort">Order</label><select id="sort"><option value="rate">Busiest first</option><option value="name">By name</option>
<option value="memory">By memory</option><option value="late">Slowest first</option><option value="bad">Errors first</option></select></div>
<table aria-describedby="key"><thead><tr><th class="left" scope="col">User</th><th class="left" scope="col">Slots</th><th scope="col">Requests/s</th>
<th scope="col">Connections</th><th scope="col">In/s</th><th scope="col">Out/s</th><th scope="col">p90</th><th scope="col">5xx</th><th scope="col">CPU</th>
<th scope="col">Memory</th></tr></thead><tbody id="rows"></tbody></table>
<p class="none" id="more" hidden></p>
<dl class="key" id="key"><div><dt class="slot">&minus;1</dt><dd>waits, or serves what its own child accepted</dd></div>
<div><dt class="slot wait">&minus;2</dt><dd>must now receive from its inbox</dd></div>
<div><dt class="slot served">17</dt><dd>serves a received connection: its descriptor</dd></div>
<div><dt class="slot moved">&minus;1</dt><dd>received one since the last look</dd></div></dl>
</section></main>
"""

_SCRIPT = r"""
"use strict";
const EVERY_MS = 1000, KEPT = 60, MOST_ROWS = 100, BOUNDS = __BOUNDS__;
const $ = (id) => document.getElementById(id);
const samples = [];
let paused = false, last = null;

const brief = new Intl.NumberFormat("en", { maximumFractionDigits: 1, notation: "compact" });
const number = (n) => n >= 10000 ? brief.format(n) : n >= 100 || Number.isInteger(n) ? String(Math.round(n)) : n.toFixed(1);
const bytes = (n) => { let at = 0; while (n >= 1000 && at < 4) { n /= 1024; at++; } return (n < 10 && at ? n.toFixed(1) : Math.round(n)) + " " + ["B", "KB", "MB", "GB", "TB"][at]; };
const time = (ms) => ms == null ? "\u2013" : ms < 1 ? Math.round(ms * 1000) + " \u00b5s" : ms < 1000 ? (ms < 10 ? ms.toFixed(1) : Math.round(ms)) + " ms" : (ms / 1000).toFixed(1) + " s";
const span = (s) => s < 120 ? Math.floor(s) + " s" : s < 7200 ? Math.floor(s / 60) + " min" : s < 172800 ? Math.floor(s / 3600) + " h" : Math.floor(s / 86400) + " days";
const text = (node, words) => { if (node.textContent !== words) node.textContent = words; };
const make = (name, kind, words) => { const node = document.createElement(name); if (kind) node.className = kind; if (words !== undefined) node.textContent = words; return node; };

function percentile(now, before, share) {
  const counts = BOUNDS.map((_, at) => Math.max(0, (now[at] || 0) - (before[at] || 0)));
  const wanted = share * counts.reduce((a, b) => a + b, 0);
  if (!wanted) return null;
  let seen = 0;
  for (let at = 0; at < counts.length; at++) {
    if (counts[at] && seen + counts[at] >= wanted) {
      const low = BOUNDS[at], high = at + 1 < BOUNDS.length ? BOUNDS[at + 1] : low;
      return (low + (high - low) * (wanted - seen) / counts[at]) / 1000;
    }
    seen += counts[at];
  }
  return null;
}

function compare(now, before, seconds) {
  const rate = (name) => before ? Math.max(0, now[name] - before[name]) / seconds : 0;
  const cpu = (one) => one.cpu_user_s + one.cpu_system_s;
  return { rate: rate("requests"), into: rate("handed_in"), out: rate("handed_out"), sent: rate("bytes_out"), bad: rate("errors"),
    refused: rate("refused") + rate("unavailable"), cpu: before ? Math.max(0, cpu(now) - cpu(before)) / seconds * 100 : 0,
    late: (share) => percentile(now.latencies, before ? before.latencies : {}, share) };
}

function find(list, number) { return list.find((one) => one.number === number); }

function draw(now, before, older) {
  const server = now.server, seconds = before ? Math.max(0.2, now.at - before.at) : 1;
  const total = compare(now.totals, before && before.totals, seconds);
  const long = compare(now.totals, older && older.totals, older ? Math.max(0.2, now.at - older.at) : 1);
  text($("name"), location.hostname || "perchildd");
  text($("state"), server.state); $("state").className = "pill" + (server.state === "running" ? "" : " busy");
  const parts = [server.version, "MPM " + server.mpm, "generation " + server.generation, "up " + span(server.uptime_s)];
  if (server.host_count !== undefined) parts.push(server.host_count + (server.host_count === 1 ? " host" : " hosts"));
  if (server.accept_scope) parts.push("AcceptScope " + server.accept_scope);
  if (server.scope === "own") parts.push("own figures only");
  text($("facts"), parts.join(" \u00b7 "));
  samples.push(total.rate); if (samples.length > KEPT) samples.shift();
  text($("rate"), number(total.rate) + "/s"); text($("rate-more"), number(now.totals.requests) + " in all, " + bytes(total.sent) + "/s");
  text($("open"), number(now.totals.connections));
  text($("open-more"), number(now.totals.parked) + " parked, " + number(now.totals.busy_threads) + " of " + number(now.totals.threads) + " threads busy");
  text($("hand"), number(total.into) + "/s"); text($("hand-more"), number(now.totals.handed_in) + " in all, " + number(now.totals.refused) + " refused");
  text($("late"), time(long.late(0.5))); text($("late-more"), "p90 " + time(long.late(0.9)) + ", p99 " + time(long.late(0.99)));
  text($("cpu"), Math.round(total.cpu) + " %"); text($("cpu-more"), "of one processor, server processes");
  text($("memory"), bytes(now.totals.memory_kb * 1024)); text($("memory-more"), now.totals.children + (now.totals.children === 1 ? " process" : " processes"));
  drawSpark();
  const rows = now.identities.map((one) => { const old = before && find(before.identities, one.number), far = older && find(older.identities, one.number);
    return { one, old, ...compare(one, old, seconds), p90: compare(one, far, 1).late(0.9) }; });
  drawFlow(rows, total); drawRows(rows, total);
}

function drawSpark() {
  const most = Math.max(1, ...samples), step = 120 / (KEPT - 1), begin = 120 - (samples.length - 1) * step;
  const points = samples.map((value, at) => (begin + at * step).toFixed(1) + "," + (28 - 26 * value / most).toFixed(1));
  $("spark").setAttribute("d", "M" + points.join("L")); $("area").setAttribute("d", "M" + begin.toFixed(1) + ",30L" + points.join("L") + "L120,30Z");
}

function shape(name, attributes, words) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (words !== undefined) node.textContent = words;
  return node;
}

function gather(rows, key) {
  const some = rows.filter((row) => row[key] > 0).sort((a, b) => b[key] - a[key]);
  const shown = some.slice(0, 7).map((row) => ({ name: row.one.name, value: row[key] }));
  const rest = some.slice(7);
  if (rest.length) shown.push({ name: rest.length + " others", value: rest.reduce((sum, row) => sum + row[key], 0) });
  return shown;
}

function drawFlow(rows, total) {
  const senders = gather(rows, "out"), receivers = gather(rows, "into"), svg = $("flow");
  $("flow-card").hidden = !now_has_hand_offs();
  const lines = Math.max(senders.length, receivers.length, 1), height = Math.max(60, lines * 26 + 8);
  const width = Math.max(280, svg.clientWidth || 1180), half = width / 2, edge = Math.max(110, Math.min(230, width * 0.3));
  svg.setAttribute("viewBox", "0 0 " + width + " " + height); svg.replaceChildren();
  svg.append(shape("rect", { class: "hub", x: half - 4, y: 6, width: 8, height: height - 12, rx: 4 }));
  side(svg, senders, height, "out", edge, half - 4, -1); side(svg, receivers, height, "into", width - edge, half + 4, 1);
  svg.append(shape("text", { x: half, y: height / 2 + 4, "text-anchor": "middle", class: "over" }, "inboxes"));
}

function now_has_hand_offs() { return last && last.totals.handed_in + last.totals.handed_out > 0; }

function side(svg, list, height, kind, x, hub, way) {
  const sum = list.reduce((a, one) => a + one.value, 0) || 1, step = height / Math.max(1, list.length);
  let at = (height - Math.min(height - 16, 60)) / 2;
  list.forEach((one, index) => {
    const y = step * (index + 0.5), width = Math.max(1.5, Math.min(height - 16, 60) * one.value / sum), middle = (x + hub) / 2, to = at + width / 2;
    at += width;
    svg.append(shape("path", { class: kind, d: `M${x},${y}C${middle},${y} ${middle},${to} ${hub},${to}`, "stroke-width": width.toFixed(1) }));
    svg.append(shape("rect", { class: kind, x: way < 0 ? x - 6 : x, y: y - 9, width: 6, height: 18, rx: 3 }));
    const label = shape("text", { x: x + way * 14, y: y + 4.5, "text-anchor": way < 0 ? "end" : "start" }, one.name + "  ");
    label.append(shape("tspan", { class: "number" }, number(one.value) + "/s")); svg.append(label);
  });
}

const orders = { rate: (a, b) => b.rate - a.rate || b.one.requests - a.one.requests || a.one.number - b.one.number, name: (a, b) => a.one.name.localeCompare(b.one.name),
  memory: (a, b) => b.one.memory_kb - a.one.memory_kb, late: (a, b) => (b.p90 || 0) - (a.p90 || 0), bad: (a, b) => b.one.errors - a.one.errors };
const lines = new Map();

function drawRows(rows, total) {
  const words = $("find").value.trim().toLowerCase();
  const wanted = rows.filter(({ one }) => !words || one.name.toLowerCase().includes(words) || String(one.uid) === words
    || one.sites.some((site) => site.name.toLowerCase().includes(words))).sort(orders[$("sort").value]);
  const shown = wanted.slice(0, MOST_ROWS), most = Math.max(1, ...rows.map((row) => row.rate)), nodes = [];
  for (const row of shown) {
    if (!lines.has(row.one.number)) lines.set(row.one.number, makeLine());
    fillLine(lines.get(row.one.number), row, most); nodes.push(lines.get(row.one.number).line);
  }
  const body = $("rows");
  nodes.forEach((node, at) => { if (body.children[at] !== node) body.insertBefore(node, body.children[at] || null); });
  while (body.children.length > nodes.length) body.lastChild.remove();
  text($("count"), rows.length === 1 ? "1 identity" : rows.length + " identities");
  $("more").hidden = wanted.length <= MOST_ROWS; text($("more"), (wanted.length - MOST_ROWS) + " more: find them by name.");
}

function makeLine() {
  const line = make("tr"), cells = {};
  const add = (key, kind, name) => { cells[key] = make("td", kind); cells[key].dataset.name = name; line.append(cells[key]); };
  add("who", "left who", "User"); const sites = make("details"); sites.append(make("summary"), make("ul"));
  cells.who.append(make("b"), make("span"), sites);
  add("slots", "slots", "Slots"); add("rate", "", "Requests/s"); cells.rate.append(document.createTextNode(""), make("i", "bar"));
  for (const [key, name] of [["open", "Connections"], ["into", "In/s"], ["out", "Out/s"], ["late", "p90"], ["bad", "5xx"], ["cpu", "CPU"], ["memory", "Memory"]]) add(key, "", name);
  return { line, cells, processes: new Map() };
}

function fillLine(row, { one, rate, into, out, p90, cpu }, most) {
  const cells = row.cells;
  text(cells.who.firstChild, one.name);
  const notes = [one.kind, one.hosts + (one.hosts === 1 ? " host" : " hosts")]; if (one.name !== "#" + one.uid) notes.splice(1, 0, "uid " + one.uid);
  if (one.runner) notes.push(one.runner.pid ? "runs programs" : "runner asleep");
  if (one.is_held_back) notes.push("held back: its processes die"); if (one.is_removed) notes.push("removed");
  text(cells.who.children[1], notes.join(" \u00b7 ")); fillSites(cells.who.lastChild, one.sites);
  fillSlots(row, one);
  text(cells.rate.firstChild, number(rate)); cells.rate.lastChild.style.width = (100 * rate / most).toFixed(1) + "%";
  text(cells.open, number(one.connections) + (one.parked ? " (" + number(one.parked) + " parked)" : ""));
  text(cells.into, number(into)); text(cells.out, number(out)); text(cells.late, time(p90 == null ? one.latency_ms.p90 : p90));
  text(cells.bad, number(one.errors)); cells.bad.className = one.errors ? "bad" : "none";
  text(cells.cpu, Math.round(cpu) + " %"); text(cells.memory, one.memory_kb ? bytes(one.memory_kb * 1024) : "\u2013");
}

function fillSites(details, sites) {
  details.hidden = !sites.length;
  text(details.firstChild, (sites[0] ? sites[0].name : "") + (sites.length > 1 ? " and " + (sites.length - 1) + " more" : ""));
  if (!details.open) return;
  details.lastChild.replaceChildren(...sites.slice(0, 50).map((site) => {
    const line = make("li"); line.append(make("span", "", site.name), make("span", site.responses["5xx"] ? "bad" : "none",
      number(site.requests) + " requests, " + number(site.responses["4xx"]) + " 4xx, " + number(site.responses["5xx"]) + " 5xx")); return line;
  }));
}

function fillSlots(row, one) {
  const seen = new Set();
  for (const child of one.children) {
    seen.add(child.pid);
    if (!row.processes.has(child.pid)) {
      const node = make("div", "process"); node.append(make("small")); row.cells.slots.append(node);
      row.processes.set(child.pid, { node, changes: [] });
    }
    fillProcess(row.processes.get(child.pid), child);
  }
  for (const [pid, process] of row.processes) if (!seen.has(pid)) { process.node.remove(); row.processes.delete(pid); }
  let asleep = row.cells.slots.querySelector(".none");
  if (!one.children.length && !asleep) row.cells.slots.append(make("span", "none", "asleep: wakes at the next connection"));
  else if (one.children.length && asleep) asleep.remove();
}

function fillProcess(process, child) {
  const label = process.node.firstChild, slots = child.slots || [];
  text(label, child.pid + (child.state === "ready" ? "" : " " + child.state));
  while (process.node.children.length - 1 > slots.length) process.node.lastChild.remove();
  slots.forEach(([value, changes, history], at) => {
    let node = process.node.children[at + 1];
    if (!node) { node = make("span", "slot"); process.node.append(node); process.changes[at] = changes; }
    const moved = changes - (process.changes[at] ?? changes); process.changes[at] = changes;
    text(node, value < 0 ? "\u2212" + -value : String(value));
    node.className = "slot" + (value >= 0 ? " served" : value === -2 ? " wait" : moved > 0 ? " moved" : "");
    node.title = "slot " + at + ": " + history.join(", ") + (history.length ? " (its last values)" : "");
  });
}

const kept = [];
async function look() {
  if (!paused && !document.hidden) {
    try {
      const answer = await fetch(location.pathname + "?json", { cache: "no-store", signal: AbortSignal.timeout(8000) });
      if (!answer.ok) throw new Error("the server answered " + answer.status);
      const now = await answer.json(); last = now;
      draw(now, kept.length ? kept[kept.length - 1] : null, kept[0] || null);
      kept.push(now); if (kept.length > 10) kept.shift();
      $("trouble").hidden = true;
      document.documentElement.dataset.samples = String(Number(document.documentElement.dataset.samples || 0) + 1);
    } catch (error) {
      $("trouble").hidden = false; text($("trouble"), "No figures: " + error.message + ". Trying again.");
      $("state").className = "pill gone"; text($("state"), "no answer");
    }
  }
  setTimeout(look, EVERY_MS);
}
$("pause").addEventListener("click", () => { paused = !paused; $("pause").setAttribute("aria-pressed", String(paused)); text($("pause"), paused ? "Go on" : "Pause");
  text($("say"), paused ? "Paused" : "Going on"); });
for (const id of ["find", "sort"]) $(id).addEventListener("input", () => { if (last && kept.length) draw(last, kept[Math.max(0, kept.length - 2)], kept[0]); });
document.addEventListener("keydown", (event) => { if (event.key === "/" && event.target === document.body) { event.preventDefault(); $("find").focus(); } });
look();
"""


def _hash(part: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"


def _render() -> bytes:
    script = _SCRIPT.replace("__BOUNDS__", json.dumps(latency_bounds_us()))
    policy = (f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(_STYLE)}; connect-src 'self'; "
              "img-src data:; base-uri 'none'; form-action 'none'")
    return (f'<!DOCTYPE html>\n<html lang="en"><head>\n<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
            '<meta name="robots" content="noindex">\n<link rel="icon" href="data:,">\n'
            f"<title>perchildd status</title>\n<style>{_STYLE}</style>\n</head><body>{_BODY}<script>{script}</script>\n</body></html>\n").encode()


PAGE = _render()


def render_json(tree: dict[str, Any]) -> bytes:
    """Return a tally as the page reads it."""
    return json.dumps(tree, separators=(",", ":")).encode() + b"\n"
