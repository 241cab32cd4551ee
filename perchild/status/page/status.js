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
  drawSpark(); drawProblems(now);
  const rows = now.identities.map((one) => { const old = before && find(before.identities, one.number), far = older && find(older.identities, one.number);
    return { one, old, ...compare(one, old, seconds), p90: compare(one, far, 1).late(0.9) }; });
  drawFlow(rows, total); drawRows(rows, total);
}

function drawProblems(now) {
  const found = (now.server.broken_sites || []).map((one) => one.file + ":" + one.line + ": not in force: " + one.reason + "; " + one.stand_in + " is served");
  for (const one of now.identities) if (one.is_held_back) found.push(one.name + ": its processes die as soon as they are started; the error log says why");
  if (now.totals.log_lost) found.push(number(now.totals.log_lost) + " access log lines could not be written: is the disk full?");
  $("problems").hidden = !found.length;
  const list = $("problem-list");
  if (list.dataset.shown !== found.join("\n")) { list.dataset.shown = found.join("\n"); list.replaceChildren(...found.map((words) => make("li", "", words))); }
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
  const width = Math.max(280, svg.clientWidth || 1180), narrow = width < 520; // a telephone: the figure stands below the name
  const lines = Math.max(senders.length, receivers.length, 1), height = Math.max(60, lines * (narrow ? 36 : 26) + 8);
  const half = width / 2, edge = Math.max(110, Math.min(230, width * 0.3));
  svg.setAttribute("viewBox", "0 0 " + width + " " + height); svg.replaceChildren();
  svg.append(shape("rect", { class: "hub", x: half - 4, y: 6, width: 8, height: height - 12, rx: 4 }));
  side(svg, senders, height, "out", edge, half - 4, -1, narrow); side(svg, receivers, height, "into", width - edge, half + 4, 1, narrow);
  svg.append(shape("text", { x: half, y: height / 2 + 4, "text-anchor": "middle", class: "over" }, "inboxes"));
}

function now_has_hand_offs() { return last && last.totals.handed_in + last.totals.handed_out > 0; }

function side(svg, list, height, kind, x, hub, way, narrow) {
  const sum = list.reduce((a, one) => a + one.value, 0) || 1, step = height / Math.max(1, list.length);
  let at = (height - Math.min(height - 16, 60)) / 2;
  list.forEach((one, index) => {
    const y = step * (index + 0.5), width = Math.max(1.5, Math.min(height - 16, 60) * one.value / sum), middle = (x + hub) / 2, to = at + width / 2;
    at += width;
    svg.append(shape("path", { class: kind, d: `M${x},${y}C${middle},${y} ${middle},${to} ${hub},${to}`, "stroke-width": width.toFixed(1) }));
    svg.append(shape("rect", { class: kind, x: way < 0 ? x - 6 : x, y: y - 9, width: 6, height: 18, rx: 3 }));
    const label = shape("text", { x: x + way * 14, y: narrow ? y - 2 : y + 4.5, "text-anchor": way < 0 ? "end" : "start" });
    const name = shape("tspan", {}, one.name), rate = shape("tspan", { class: "number" }, (narrow ? "" : "  ") + number(one.value) + "/s");
    if (narrow) { rate.setAttribute("x", x + way * 14); rate.setAttribute("dy", 15); }
    label.append(name, rate, shape("title", {}, one.name)); svg.append(label);
    const room = (way < 0 ? x : svg.viewBox.baseVal.width - x) - 16 - (narrow ? 0 : rate.getComputedTextLength());
    for (let left = one.name.length - 1; left > 2 && name.getComputedTextLength() > room; left--) name.textContent = one.name.slice(0, left) + "\u2026";
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
  const begun = performance.now();
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
  setTimeout(look, Math.max(EVERY_MS, Math.min(5000, 4 * (performance.now() - begun)))); // thousands of users take the server longer
}
$("pause").addEventListener("click", () => { paused = !paused; $("pause").setAttribute("aria-pressed", String(paused)); text($("pause"), paused ? "Go on" : "Pause");
  text($("say"), paused ? "Paused" : "Going on"); });
for (const id of ["find", "sort"]) $(id).addEventListener("input", () => { if (last && kept.length) draw(last, kept[Math.max(0, kept.length - 2)], kept[0]); });
document.addEventListener("keydown", (event) => { if (event.key === "/" && event.target === document.body) { event.preventDefault(); $("find").focus(); } });
look();
