// The status page: renders the rows of a snapshot, filters and sorts them, and asks for newer ones.
// Served, it polls status.json; saved as a file, it shows what it was made with. No library: the page
// must open for ever, from a mail or a disk.
"use strict";

const POLL_MS = 4000;
const $ = (id) => document.getElementById(id);
const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const esc = (text) => String(text ?? "").replace(/[&<>"']/g, (c) => ESCAPES[c]);

let data = JSON.parse($("data").textContent);
const states = data.states;
const NEEDS_A_PERSON = new Set(["broken", "failing", "rejected", "approval", "drifting"]);
const view = { text: "", group: "", states: new Set(), key: "state", down: false };
let etag = "";
let checked = Date.now();
let trouble = data.error || "";
let opened = null;
let changed = new Set();

// ---------------------------------------------------------------------------------------- words

const seconds = (iso) => (iso ? Math.max(0, (Date.now() - Date.parse(iso)) / 1000) : null);

function span(s) {
  if (s === null || s === undefined) return "–";
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 3 * 86400) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

const ago = (iso) => (iso ? `${span(seconds(iso))} ago` : "–");
const when = (iso) => (iso ? iso.slice(0, 16).replace("T", " ") + " UTC" : "");

function number(value) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

const link = (url, text) =>
  /^https?:\/\//.test(url || "") ? `<a href="${esc(url)}" target="_blank" rel="noopener">${text} ↗</a>` : "";

const badge = (state) =>
  `<span class="badge${state === "waiting" || state === "retired" ? " ring" : ""}" data-state="${esc(state)}">${esc(state)}</span>`;

const FRESH = { ok: "good", warn: "warn", fail: "bad" };
const latest = (row) => (row.live === null ? row.value : row.live);

// --------------------------------------------------------------------------------------- charts

// A line through the values that are there; a gap where one is missing.
function line(points) {
  let path = "", pen = "M";
  for (const point of points) {
    if (point === null) { pen = "M"; continue; }
    path += `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    pen = "L";
  }
  return path;
}

function spark(row) {
  const scores = row.trend.filter((s) => s !== null);
  if (!scores.length) return "";
  const w = 104, h = 26, n = row.trend.length;
  const points = row.trend.map((s, i) => (s === null ? null : [n < 2 ? w : (i / (n - 1)) * w, h - 1 - s * (h - 2)]));
  const known = points.filter(Boolean), [x, y] = known[known.length - 1], path = line(points);
  const area = known.length === n && n > 1 ? `<path class="area" d="${path}L${w} ${h}L0 ${h}Z"/>` : "";
  const told = `Drift score of the last ${n} partitions, now ${number(row.drift_score)}`;
  return `<svg class="spark${row.verdict === "drifted" ? " hot" : ""}" viewBox="0 0 ${w} ${h}" preserveAspectRatio="xMinYMid" role="img" aria-label="${told}">` +
    `<line x1="0" x2="${w}" y1="${h / 2}" y2="${h / 2}"/>${area}<path d="${path}"/><circle cx="${x}" cy="${y}" r="2.4"/></svg>`;
}

// Values over time: [{label, value, hot, title}], with an optional bound.
function chart(points, { low, high, bound = null, told }) {
  const w = Math.min(640, Math.max(300, innerWidth - 66)), h = 190, left = 46, right = 8, top = 8, foot = 20;
  const known = points.map((p) => p.value).concat(bound === null ? [] : [bound]).filter((v) => v !== null);
  let from = low ?? Math.min(...known), to = high ?? Math.max(...known);
  if (from === to) { const room = Math.abs(from) / 20 || 1; from -= room; to += room; }
  if (low === undefined) { const room = (to - from) / 10; from -= room; to += room; }
  const x = (i) => left + (points.length < 2 ? 0.5 : i / (points.length - 1)) * (w - left - right);
  const y = (v) => top + (1 - (v - from) / (to - from)) * (h - top - foot);
  const rules = [from, (from + to) / 2, to].map((v) =>
    `<line class="grid" x1="${left}" x2="${w - right}" y1="${y(v)}" y2="${y(v)}"/>` +
    `<text x="${left - 7}" y="${y(v) + 4}" text-anchor="end">${number(v)}</text>`).join("");
  const path = line(points.map((p, i) => (p.value === null ? null : [x(i), y(p.value)])));
  const dots = points.map((p, i) => (p.value === null ? "" :
    `<circle class="${p.hot ? "hot" : ""}" cx="${x(i).toFixed(1)}" cy="${y(p.value).toFixed(1)}" r="${p.hot ? 3.6 : 2.6}"><title>${esc(p.title)}</title></circle>`)).join("");
  const ends = points.length > 1 ? [[0, "start"], [points.length - 1, "end"]] : [[0, "middle"]];
  const feet = ends.map(([i, anchor]) => `<text x="${x(i)}" y="${h - 4}" text-anchor="${anchor}">${esc(points[i].label)}</text>`).join("");
  const limit = bound === null ? "" : `<line class="bound" x1="${left}" x2="${w - right}" y1="${y(bound)}" y2="${y(bound)}"/>`;
  return `<svg class="chart" viewBox="0 0 ${w} ${h}" role="img" aria-label="${esc(told)}">${rules}${limit}<path d="${path}"/>${dots}${feet}</svg>`;
}

// --------------------------------------------------------------------------------------- columns

const rank = (row) => states.indexOf(row.state);
const nothing = '<span class="none">–</span>';

const COLUMNS = [
  { key: "model", title: "Model", by: (r) => r.model, cell: (r) =>
    `<button type="button" class="name" aria-haspopup="dialog">${esc(r.model).replaceAll("_", "_<wbr>")}</button><small>${esc([r.group !== r.model ? r.group : "", r.owner].filter(Boolean).join(" · "))}</small>` },
  { key: "state", title: "State", by: rank, cell: (r) =>
    badge(r.state) + (r.note ? `<div class="note sub" title="${esc(r.note)}">${esc(r.note)}</div>` : "") },
  { key: "champion", title: "Champion", by: (r) => (r.promoted_at ? -Date.parse(r.promoted_at) : null), cell: (r) =>
    r.champion ? `<span class="num">v${esc(r.champion)}</span><small class="nowrap" title="${esc(when(r.promoted_at))}">${ago(r.promoted_at)}</small>` : nothing },
  { key: "metric", title: "Metric", by: latest, cell: (r) => {
    const value = latest(r);
    if (value === null) return nothing;
    const mark = r.meets === null ? "" : r.meets ? ' <span class="good" title="keeps its bound">✓</span>' : ' <span class="bad" title="beyond its bound">✗</span>';
    const under = r.bound === null ? esc(r.metric) : `${esc(r.metric)}<br>bound ${number(r.bound)}`;
    return `<span class="num${r.meets === false ? " bad" : ""}">${number(value)}${mark}</span><small>${under}</small>`; } },
  { key: "drift", title: "Drift", by: (r) => r.drift_score, cell: (r) => {
    const told = r.verdict ? `${esc(r.verdict)} ${r.drift_score === null ? "" : r.drift_score.toFixed(2)}` : "";
    return told ? `${spark(r)}<small class="nowrap${r.verdict === "drifted" ? " warn" : ""}">${told}</small>` : nothing; } },
  { key: "data", title: "Newest data", by: (r) => r.newest, cell: (r) => {
    const state = r.freshness && r.freshness !== "ok" ? `<small class="${FRESH[r.freshness]}" title="${esc(r.stale)}">${r.freshness === "fail" ? "stale" : "getting stale"}</small>`
      : r.freshness ? "<small>fresh</small>" : "";
    return r.newest || state ? `<span class="num">${esc(r.newest || "–")}</span>${state}` : nothing; } },
  { key: "decided", title: "Last decision", by: (r) => (r.decided_at ? -Date.parse(r.decided_at) : null), cell: (r) =>
    r.decision ? `<div class="why sub" title="${esc(r.decision)}">${esc(r.decision)}</div><small>${ago(r.decided_at)}</small>` : nothing },
  { key: "run", title: "Last run", by: (r) => (r.last_run_at ? -Date.parse(r.last_run_at) : null), cell: (r) =>
    r.last_run ? `<span class="nowrap${r.last_run === "FAILURE" ? " bad" : ""}">${esc(r.last_run.toLowerCase())}</span><small class="nowrap" title="${esc(when(r.last_run_at))}">${ago(r.last_run_at)} · ${span(r.last_run_seconds)}</small>` : nothing },
  { key: "cost", title: "Cost, 7 d", by: (r) => r.week_seconds, cell: (r) =>
    r.week_seconds ? `<span class="num">${span(r.week_seconds)}</span>` : nothing },
];
const LARGEST_FIRST = new Set(["drift", "cost", "metric", "data"]);

// --------------------------------------------------------------------------------------- rendering

function matching() {
  const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
  return data.models.filter((row) => {
    if (view.states.size && !view.states.has(row.state)) return false;
    if (view.group && row.group !== view.group) return false;
    if (!words.length) return true;
    const text = [row.model, row.group, row.owner, row.state, row.note, row.decision, row.metric, row.description].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function sorted(rows) {
  const { by } = COLUMNS.find((column) => column.key === view.key);
  const sign = view.down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [by(a), by(b)];
    if (x === y || (x ?? null) === (y ?? null)) return a.model < b.model ? -1 : 1;
    if (x === null || x === undefined) return 1;   // what is not known comes last either way
    if (y === null || y === undefined) return -1;
    return sign * (x < y ? -1 : 1);
  });
}

function renderHead() {
  $("head").innerHTML = COLUMNS.map((c) => {
    const sort = c.key === view.key ? ` aria-sort="${view.down ? "descending" : "ascending"}"` : "";
    return `<th scope="col" class="c-${c.key}"${sort}><button type="button" data-key="${c.key}">${c.title}</button></th>`;
  }).join("");
  $("order").innerHTML = COLUMNS.map((c) => `<option value="${c.key}"${c.key === view.key ? " selected" : ""}>By ${c.title.toLowerCase()}</option>`).join("");
}

function renderStates() {
  const count = (state) => data.models.filter((row) => row.state === state).length;
  const present = states.filter((state) => count(state));
  $("states").innerHTML = present.map((state) =>
    `<button type="button" data-state="${state}" aria-pressed="${view.states.has(state)}"><b>${count(state)}</b><span>${state}</span></button>`).join("");
  $("strip").innerHTML = present.map((state) => `<i data-state="${state}" style="flex-grow:${count(state)}"></i>`).join("");
  const groups = [...new Set(data.models.map((row) => row.group).filter(Boolean))].sort();
  $("group").innerHTML = '<option value="">All groups</option>' + groups.map((g) =>
    `<option${g === view.group ? " selected" : ""} value="${esc(g)}">${esc(g)}</option>`).join("");
  const asking = data.models.filter((row) => NEEDS_A_PERSON.has(row.state)).length;
  $("headline").textContent = `${data.models.length} model${data.models.length === 1 ? "" : "s"}, ${asking ? `${asking} need${asking === 1 ? "s" : ""} a look` : "none needs a look"}`;
  document.title = (present[0] && states.indexOf(present[0]) < 3 ? `(${count(present[0])} ${present[0]}) ` : "") + "Fleet · retrain-assets";
}

function renderRows() {
  const rows = sorted(matching());
  const focused = document.activeElement?.closest?.("#rows tr")?.dataset.model;
  $("rows").innerHTML = rows.map((row) =>
    `<tr data-model="${esc(row.model)}" data-state="${esc(row.state)}"${changed.has(row.model) ? ' class="fresh"' : ""}>` +
    COLUMNS.map((c) => `<td class="c-${c.key}" data-label="${c.title}">${c.cell(row)}</td>`).join("") + "</tr>").join("");
  changed = new Set();
  if (focused) $("rows").querySelector(`tr[data-model="${CSS.escape(focused)}"] .name`)?.focus();
  const filtered = Boolean(view.text || view.group || view.states.size);
  $("count").textContent = filtered ? `${rows.length} of ${data.models.length} models` : `${rows.length} models`;
  $("clear").hidden = !filtered;
  $("nothing").hidden = rows.length > 0;
  $("models").hidden = rows.length === 0;
}

function renderFresh() {
  const age = seconds(data.as_of);
  const fresh = $("fresh");
  if (!data.live) {
    fresh.className = "";
    fresh.textContent = `As of ${when(data.as_of)}`;
  } else if (trouble) {
    fresh.className = "stale";
    fresh.textContent = `${trouble} · shown as of ${ago(data.as_of)}`;
  } else {
    fresh.className = "live";
    fresh.textContent = `Live · checked ${span((Date.now() - checked) / 1000)} ago`;
  }
  fresh.title = `Read ${when(data.as_of)}, ${span(age)} ago`;
}

function render() {
  renderHead();
  renderStates();
  renderRows();
  renderFresh();
  const whole = Date.parse(data.as_of) - Date.parse(data.runs_since) > 6.9 * 86400e3;
  $("foot").innerHTML = `<span>Cost: what a model's runs took${whole ? " in 7 days" : ` since ${when(data.runs_since)}`}; a run of several counts in equal parts.</span>` +
    (data.live ? '<a href="metrics">Prometheus metrics</a><a href="status.json">JSON</a>' : "") + link(data.dagster_url, "Dagster");
}

function remember() {
  const kept = new URLSearchParams();
  if (view.text) kept.set("q", view.text);
  if (view.group) kept.set("group", view.group);
  for (const state of view.states) kept.append("state", state);
  if (view.key !== "state" || view.down) kept.set("sort", (view.down ? "-" : "") + view.key);
  if (opened) kept.set("model", opened);
  history.replaceState(null, "", kept.toString() ? `#${kept}` : location.pathname + location.search);
}

function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  view.text = kept.get("q") || "";
  view.group = kept.get("group") || "";
  view.states = new Set(kept.getAll("state").filter((state) => states.includes(state)));
  const sort = kept.get("sort") || "state";
  view.down = sort.startsWith("-");
  view.key = COLUMNS.some((c) => c.key === sort.replace("-", "")) ? sort.replace("-", "") : "state";
  $("text").value = view.text;
  return kept.get("model");
}

// --------------------------------------------------------------------------------------- detail

function facts(row) {
  const pairs = [
    ["Champion", row.champion && `v${esc(row.champion)} <small>${ago(row.promoted_at)}</small>`],
    ["Trained for", row.trained_for && esc(row.trained_for)],
    [`${esc(row.metric || "Metric")} on holdout`, row.value !== null && number(row.value)],
    [`${esc(row.live_kind || "")} since`, row.live !== null && `${number(row.live)} <small>${esc(row.live_on || "")}</small>`],
    ["Bound", row.bound !== null && `<span class="${row.meets ? "good" : "bad"}">${number(row.bound)} ${row.meets ? "kept" : "broken"}</span>`],
    ["Drift", row.verdict && `${esc(row.verdict)} <small>${number(row.drift_score)}</small>`],
    ["Newest data", row.newest && esc(row.newest)],
    ["Freshness", row.freshness && `<span class="${FRESH[row.freshness]}">${esc(row.freshness)}</span>`],
    ["Last run", row.last_run && `${esc(row.last_run.toLowerCase())} <small>${ago(row.last_run_at)}, ${span(row.last_run_seconds)}</small>`],
    ["Compute in 7 days", row.week_seconds > 0 && span(row.week_seconds)],
    ["Promotions", row.promotions], ["Rejections", row.rejections],
  ];
  return `<dl class="facts">${pairs.filter(([, v]) => v !== null && v !== false && v !== undefined && v !== "")
    .map(([k, v]) => `<div><dt>${k}</dt><dd>${v}</dd></div>`).join("")}</dl>`;
}

const section = (title, aside, body) => `<section><h3>${title}${aside ? `<small>${aside}</small>` : ""}</h3>${body}</section>`;

function driftSection(row, more) {
  const points = more ? more.drift.map((d) => ({ label: d.partition || "", value: d.score, hot: d.verdict === "drifted", title: `${d.partition || ""}: ${d.verdict} ${number(d.score)}` }))
    : row.trend.map((s, i) => ({ label: i === row.trend.length - 1 ? row.newest || "" : "", value: s, hot: false, title: number(s) }));
  if (!points.some((p) => p.value !== null)) return "";
  return section("Drift score", "0.5: every feature at its threshold", chart(points, { low: 0, high: 1, told: "Drift score by partition" }) +
    (more ? '<p class="key sub"><span><i></i>stable or undecided</span><span><i class="hot"></i>drifted</span></p>' : ""));
}

function metricSection(row, more) {
  const points = (more?.metric || []).map((m) => ({ label: m.partition || when(m.at), value: m.value, hot: m.kind === "holdout", title: `${m.partition || ""} ${m.kind} ${number(m.value)}${m.version ? ` (v${m.version})` : ""}` }));
  if (!points.length) return "";
  const bound = row.bound === null ? "" : '<span><i class="dash"></i>bound</span>';
  return section(esc(row.metric || "Metric"), "", chart(points, { bound: row.bound, told: `${row.metric} over time` }) +
    `<p class="key sub"><span><i class="hot"></i>champion on its holdout</span><span><i></i>realised or estimated since</span>${bound}</p>`);
}

function decisionSection(more) {
  if (!more.decisions.length) return section("Decisions", "", '<p class="none">Nothing was decided yet.</p>');
  const items = more.decisions.map((d) => `<li class="${d.action === "retrain" ? "did" : ""}"><time datetime="${esc(d.decided_at)}">${esc(when(d.decided_at))}</time> ` +
    `<b>${esc(d.said)}</b>${d.partition ? `<small>data up to ${esc(d.partition)}</small>` : ""}<ul>${d.reasons.map((r) => `<li style="all:revert">${esc(r)}</li>`).join("")}</ul>` +
    (d.outcome ? `<div class="sub">→ ${esc(d.outcome)}</div>` : "") + "</li>").join("");
  return section("Decisions", `the last ${more.decisions.length}`, `<ol class="log">${items}</ol>`);
}

function promotionSection(more) {
  if (!more.promotions.length) return section("Promotions", "", '<p class="none">Nothing was promoted yet.</p>');
  const items = more.promotions.map((p) => `<li class="${p.kind === "promotion" ? "did" : "no"}"><time datetime="${esc(p.at)}">${esc(when(p.at))}</time> ` +
    `<b>${esc(p.kind)} v${esc(p.version)}</b> <small style="display:inline">${esc(p.metric)} ${number(p.value)}${p.partition ? ` · ${esc(p.partition)}` : ""} · by ${esc(p.actor)}</small><div class="sub">${esc(p.reason)}</div>` +
    (p.realised ? `<div class="sub">${esc(p.realised)}</div>` : "") + "</li>").join("");
  return section("Promotions", "", `<ol class="log">${items}</ol>`);
}

function renderDetail(row, more, problem) {
  const links = [link(row.links.asset, "Asset in Dagster"), link(row.links.run, "Last run"), link(row.links.model, "Model in MLflow")].filter(Boolean).join("");
  const under = [row.description, [row.group !== row.model ? row.group : "", row.owner].filter(Boolean).join(" · ")].filter(Boolean).map(esc).join("<br>");
  const said = [row.note, row.stale].filter(Boolean).map(esc).join("<br>");
  $("sheet").dataset.state = row.state;
  $("sheet").innerHTML = `<div class="top">${badge(row.state)}<h2 id="detail-name">${esc(row.model)}</h2><p class="sub">${under}</p>` +
    `<div class="links">${links}</div><button class="close" type="button" aria-label="Close">×</button></div><div class="body">` +
    (said ? `<div class="callout">${said}</div>` : "") + facts(row) + driftSection(row, more) + metricSection(row, more) +
    (more ? decisionSection(more) + promotionSection(more)
      : problem ? `<p class="bad">${esc(problem)}</p>`
      : data.live ? '<p class="busy" role="status">Reading its history …</p>'
      : row.decision ? section("Last decision", esc(when(row.decided_at)), `<p>${esc(row.decision)}</p>`) : "") + "</div>";
}

async function open(model) {
  const row = data.models.find((one) => one.model === model);
  if (!row) return;
  opened = model;
  renderDetail(row, null, "");
  if (!$("detail").open) $("detail").showModal();
  $("detail").scrollTop = 0;
  remember();
  if (!data.live) return;
  let more = null, problem = "";
  try {
    const answer = await fetch(`models/${encodeURIComponent(model)}.json`);
    const found = await answer.json();
    if (answer.ok) more = found; else problem = found.error;
  } catch { problem = "The server does not answer."; }
  if (opened === model) renderDetail(data.models.find((one) => one.model === model) || row, more, problem);
}

// --------------------------------------------------------------------------------------- live

async function poll() {
  try {
    const answer = await fetch("status.json", { headers: etag ? { "If-None-Match": etag } : {}, cache: "no-store" });
    if (answer.status === 200) {
      etag = answer.headers.get("ETag") || "";
      const before = new Map(data.models.map((row) => [row.model, row.state + row.champion + row.last_run_id + row.last_run]));
      data = { ...(await answer.json()), live: true };
      changed = new Set(data.models.filter((row) => before.has(row.model) && before.get(row.model) !== row.state + row.champion + row.last_run_id + row.last_run).map((row) => row.model));
      trouble = data.error || "";
      renderStates();
      renderRows();
    } else if (answer.status !== 304) {
      throw new Error(String(answer.status));
    } else if (!data.error) {
      trouble = "";
    }
    checked = Date.now();
  } catch {
    trouble = "The dashboard does not answer";
  }
  renderFresh();
  setTimeout(poll, document.hidden ? 5 * POLL_MS : POLL_MS);
}

// --------------------------------------------------------------------------------------- events

function sortBy(key) {
  view.down = view.key === key ? !view.down : LARGEST_FIRST.has(key);
  view.key = key;
}

function clear() {
  view.text = view.group = "";
  view.states.clear();
  $("text").value = "";
  refresh();
  $("text").focus();
}

function refresh() {
  remember();
  renderStates();
  renderRows();
}

$("head").addEventListener("click", (event) => {
  const key = event.target.closest("button")?.dataset.key;
  if (!key) return;
  sortBy(key);
  remember();
  renderHead();
  renderRows();
  $("head").querySelector(`[data-key=${key}]`).focus();
});
$("order").addEventListener("change", (event) => { view.key = event.target.value; view.down = LARGEST_FIRST.has(view.key); remember(); renderHead(); renderRows(); });
$("text").addEventListener("input", (event) => { view.text = event.target.value; remember(); renderRows(); });
$("group").addEventListener("change", (event) => { view.group = event.target.value; remember(); renderRows(); });
$("states").addEventListener("click", (event) => {
  const state = event.target.closest("button")?.dataset.state;
  if (!state) return;
  if (!view.states.delete(state)) view.states.add(state);
  refresh();
  $("states").querySelector(`[data-state=${state}]`)?.focus();
});
$("clear").addEventListener("click", clear);
$("again").addEventListener("click", clear);
$("rows").addEventListener("click", (event) => {
  if (event.target.closest("a") || String(getSelection())) return;
  const model = event.target.closest("tr")?.dataset.model;
  if (model) open(model);
});
$("sheet").addEventListener("click", (event) => { if (event.target.closest(".close")) $("detail").close(); });
$("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
$("detail").addEventListener("close", () => {
  const model = opened;
  opened = null;
  remember();
  $("rows").querySelector(`tr[data-model="${CSS.escape(model || "")}"] .name`)?.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !$("detail").open && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    event.preventDefault();
    $("text").focus();
  }
});
addEventListener("hashchange", () => { const model = recall(); render(); if (model && model !== opened) open(model); });

const first = recall();
render();
if (first) open(first);
if (data.live) setTimeout(poll, POLL_MS);
setInterval(renderFresh, 1000);
