// Keeps derd's page up to date and sends the owner's commands. No framework, nothing from outside.
"use strict";

const NOTHING = "\u2013";
const STILL_W = 20; // as in flow.rs
const $ = (selector, root = document) => root.querySelector(selector);
const zone = document.body.dataset.zone || undefined;

// Numbers and times: the same words as format.rs.
function number(value, digits) {
  const text = value.toFixed(digits);
  return /^-[0.]+$/.test(text) ? text.slice(1) : text.replace("-", "\u2212");
}
const grouped = (digits) => String(digits).replace(/\B(?=(\d{3})+$)/g, "\u202f");
function power(watts) {
  if (typeof watts !== "number") return NOTHING;
  return number(watts / 1000, Math.abs(watts) >= 9995 ? 1 : 2) + " kW";
}
function point(name, value) {
  if (typeof value === "string") return value.replaceAll("_", " ");
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return NOTHING;
  switch (name.slice(name.lastIndexOf("_") + 1)) {
    case "w": return power(value);
    case "wh": return (Math.abs(value) >= 999950 ? grouped(number(value / 1000, 0)) : number(value / 1000, 1)) + " kWh";
    case "pct": return number(value, 0) + " %";
    case "v": return number(value, 0) + " V";
    case "a": return number(value, 1) + " A";
    case "hz": return number(value, 2) + " Hz";
    case "c": return number(value, 1) + " \u00b0C";
    default: return number(value, 1);
  }
}
function age(ms) {
  if (ms === null) return "never seen";
  if (ms < 2000) return "now";
  if (ms < 120000) return Math.floor(ms / 1000) + " s ago";
  if (ms < 7200000) return Math.floor(ms / 60000) + " min ago";
  return Math.floor(ms / 3600000) + " h ago";
}
function format(options) {
  try { return new Intl.DateTimeFormat("en-GB", { ...options, timeZone: zone }); }
  catch { return new Intl.DateTimeFormat("en-GB", { ...options, timeZone: "UTC" }); }
}
const asClock = format({ hour: "2-digit", minute: "2-digit" });
const asMoment = format({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const moment = (text) => asMoment.format(new Date(text));

function put(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}
function pill(element, state, text) {
  if (!element) return;
  element.dataset.state = state;
  put(element, text ?? state.replaceAll("_", " "));
}

// The picture.
function sum(devices, kind) {
  const parts = devices.filter((d) => d.kind === kind).map((d) => d.points.power_w);
  if (!parts.length || parts.some((p) => typeof p !== "number")) return null;
  return parts.reduce((a, b) => a + b, 0);
}
function stream(key, watts) {
  const line = $("#flow-" + key);
  if (!line) return;
  const flowing = watts ?? 0;
  const runs = Math.abs(flowing) >= STILL_W;
  line.classList.toggle("on", runs);
  line.classList.toggle("rev", runs && (flowing > 0) !== (line.dataset.towards === "1"));
  line.setAttribute("stroke-width", Math.min(4 + Math.abs(flowing) / 1000, 12).toFixed(1));
  put($("#val-" + key), watts === null ? NOTHING : power(Math.abs(watts)));
}
function picture(status) {
  const { load_w, grid_w } = status.site;
  stream("solar", sum(status.devices, "inverter"));
  stream("grid", grid_w);
  stream("car", sum(status.devices, "charger"));
  stream("battery", sum(status.devices, "battery"));
  put($("#val-house"), power(load_w));
  put($("#lab-grid"), grid_w >= STILL_W ? "import" : grid_w <= -STILL_W ? "export" : "Grid");
  const charges = status.devices.filter((d) => d.kind === "battery" && typeof d.points.soc_pct === "number");
  const soc = charges.length ? charges.reduce((a, d) => a + d.points.soc_pct, 0) / charges.length : null;
  put($("#lab-battery"), soc === null ? "Battery" : soc.toFixed(0) + " %");
  $("#flow-soc")?.setAttribute("stroke-dasharray", (soc ?? 0).toFixed(1) + " 100");
}

function device(data) {
  const card = $(`[data-device="${CSS.escape(data.id)}"]`);
  if (!card) return;
  pill($("[data-f=state]", card), data.state);
  put($("[data-f=age]", card), age(data.age_ms));
  for (const cell of card.querySelectorAll("[data-point]")) {
    put(cell, point(cell.dataset.point, data.points[cell.dataset.point] ?? null));
  }
  const [plus, minus] = { battery: ["discharging", "charging"], meter: ["import", "export"] }[data.kind] ?? ["", ""];
  const watts = data.points.power_w ?? 0;
  put($("[data-f=dir]", card), watts >= STILL_W ? plus : watts <= -STILL_W ? minus : "");
  const soc = $("[data-f=soc]", card);
  if (soc) soc.value = data.points.soc_pct ?? 0;
  const held = $("[data-f=held]", card), by = data.controlled_by;
  held.hidden = !by;
  if (by) put(held, `${by.action.replaceAll("_", " ")} by ${who(by)}${by.ends_at ? ` until ${moment(by.ends_at)}` : ""}`);
  holder(card, by);
  const error = $("[data-f=error]", card);
  error.hidden = !data.error;
  put(error, data.error ?? "");
  // The card was made before the device told what it has: the page is made anew, unless somebody is typing.
  const isNew = "empty" in card.dataset && data.age_ms !== null;
  if (isNew && !$("details[open]")) location.reload();
}

// As in wire/status.rs.
function who(by) {
  if (by.plan) return `${by.rank} ${by.plan}`;
  return by.rank === "owner" && ["local", "page"].includes(by.source) ? "the owner" : `${by.source} (${by.rank})`;
}

// What the owner can do about whoever holds a device.
function holder(card, by) {
  for (const [selector, rank] of [["[data-give-back]", "owner"], ["[data-opt-out]", "event"]]) {
    const button = $(selector, card);
    if (button) button.hidden = by?.rank !== rank;
  }
}
function remote(control) {
  const banner = $("#remote");
  if (!banner) return;
  const paused = control.state === "paused";
  banner.hidden = !paused;
  banner.dataset.state = control.state;
  put($("[data-f=until]", banner), control.until ? "until " + moment(control.until) : "");
  $("#pause button").disabled = paused;
}

function uplink(data) {
  const row = $(`[data-uplink="${CSS.escape(data.name)}"]`);
  if (!row) return;
  pill($("[data-f=mode]", row), data.mode);
  const waiting = `${grouped(data.backlog_rows)} samples waiting` + (data.last_ok_at ? `, last sent ${moment(data.last_ok_at)}` : "");
  put($("[data-f=backlog]", row), data.backlog_rows ? waiting : "everything sent");
}

// As in chart.rs.
function since(oldest) {
  if (!oldest) return "From now on";
  return Date.now() - new Date(oldest) < 86400000 ? "Since " + asClock.format(new Date(oldest)) : "Last 24 hours";
}

function show(status) {
  pill($("#health"), status.health);
  pill($("#clock"), status.clock.state, "clock " + status.clock.state);
  put($("#time"), asClock.format(new Date()));
  const problems = $("#problems");
  if (problems) {
    problems.hidden = status.problems.length === 0;
    const list = $("ul", problems);
    if (list.children.length !== status.problems.length || [...list.children].some((li, i) => li.textContent !== status.problems[i])) {
      list.replaceChildren(...status.problems.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
    }
  }
  remote(status.remote_control);
  if ($("#flow")) picture(status);
  status.devices.forEach(device);
  status.uplinks.forEach(uplink);
  put($("#since"), since(status.store.oldest));
  put($("#store"), `${Math.floor(status.store.bytes / 1048576)} MB, ${grouped(status.store.rows)} samples`);
}

// Why: the sentence comes by itself, what stands behind it is fetched when somebody looks.
async function because(details, at = "") {
  const box = $("[data-f=trace]", details);
  const query = new URLSearchParams({ device: details.dataset.why, at, part: "1" });
  try {
    const answer = await fetch("/why?" + query), text = await answer.text();
    if (answer.ok) box.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
    else put(box, JSON.parse(text).error ?? `answer ${answer.status}`);
  } catch {
    put(box, "the gateway does not answer");
  }
}
const askedAt = (details) => $("[name=at]", details).value.trim();
let told = "";
function why(sentences) {
  const all = JSON.stringify(sentences);
  // Somebody decided something else: a schedule or an event may say why.
  if (told && told !== all) setTimeout(refreshLists, 1500);
  told = all;
  for (const details of document.querySelectorAll("[data-why]")) {
    const line = $("[data-f=why]", details.parentElement), text = sentences[details.dataset.why] ?? "";
    if (line.textContent === text) continue;
    line.hidden = !text;
    put(line, text);
    if (details.open && !askedAt(details)) because(details);
  }
}
for (const details of document.querySelectorAll("[data-why]")) {
  details.addEventListener("toggle", () => { if (details.open) because(details, askedAt(details)); });
  $("form", details).addEventListener("submit", (event) => {
    event.preventDefault();
    because(details, askedAt(details));
  });
}

// The live stream: the browser reconnects by itself while the gateway answers; we do when it refused.
const lost = $("#lost");
let source = null, lastSeen = Date.now(), retry = 1000;
function connect() {
  source?.close();
  source = new EventSource("/api/v1/stream");
  source.addEventListener("status", (event) => {
    lastSeen = Date.now();
    retry = 1000;
    lost.hidden = true;
    show(JSON.parse(event.data));
  });
  source.addEventListener("why", (event) => why(JSON.parse(event.data)));
  source.onerror = () => {
    lost.hidden = false;
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(connect, retry);
      retry = Math.min(retry * 2, 30000);
    }
  };
}
function refreshChart() {
  if (document.hidden) return;
  for (const part of document.querySelectorAll("#chart source, #chart img")) {
    const name = part.tagName === "IMG" ? "src" : "srcset";
    part.setAttribute(name, part.getAttribute(name).replace(/&t=\d+$/, "") + "&t=" + Math.floor(Date.now() / 60000));
  }
}
// Schedules, events and what writing costs change seldom: they come from the page itself.
async function refreshLists() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/");
    if (!answer.ok || answer.redirected) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const tolls = [...document.querySelectorAll(".toll")].map((toll) => toll.id);
    for (const id of ["schedules", "events", ...tolls]) {
      const [old, now] = [document.getElementById(id), fresh.getElementById(id)];
      if (old && now && old.innerHTML !== now.innerHTML) old.replaceWith(now);
    }
  } catch { /* the stream tells that the gateway is lost */ }
}
if (lost) {
  connect();
  setInterval(refreshLists, 30000);
  setInterval(() => {
    // A stream that says nothing is as lost as one that ended.
    if (Date.now() - lastSeen > 20000) { lost.hidden = false; lastSeen = Date.now(); connect(); }
  }, 5000);
  setInterval(refreshChart, 60000);
  // A page that nobody looks at asks for nothing.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { source?.close(); } else { lastSeen = Date.now(); connect(); refreshChart(); refreshLists(); }
  });
}

// Changes.
async function send(path, body) {
  const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const text = await answer.text();
  let data = null;
  try { data = text ? JSON.parse(text) : null; } catch { /* no JSON: the code says it */ }
  return { ok: answer.ok, code: answer.status, data };
}
function command(form, action) {
  const fields = new FormData(form), params = {};
  const kw = parseFloat(fields.get("power_kw")), amps = parseFloat(fields.get("current_a"));
  if (["charge", "discharge", "set_power_limit"].includes(action) && !Number.isNaN(kw)) params.power_w = Math.round(kw * 1000);
  if (action === "set_max_current" && !Number.isNaN(amps)) params.current_a = amps;
  const body = { action, params, source: "page" };
  // Without an end: until the car is unplugged.
  if (action !== "release" && fields.get("minutes")) body.ends_at = new Date(Date.now() + fields.get("minutes") * 60000).toISOString();
  return body;
}
for (const form of document.querySelectorAll("form[data-command]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const output = $("output", form), action = event.submitter?.value;
    if (!action) return;
    event.submitter.disabled = true;
    output.className = "";
    output.textContent = "\u2026";
    try {
      const { ok, data, code } = await send(`/api/v1/devices/${encodeURIComponent(form.dataset.command)}/command`, command(form, action));
      output.className = ok ? "" : "bad";
      output.textContent = [data?.state, data?.reason ?? data?.error].filter(Boolean).join(": ") || `answer ${code}`;
    } catch {
      output.className = "bad";
      output.textContent = "the gateway does not answer";
    }
    event.submitter.disabled = false;
  });
}
// One question and its answer, in words beside the button.
async function tell(button, output, path, body, done) {
  button.disabled = true;
  output.className = "";
  output.textContent = "\u2026";
  try {
    const { ok, data, code } = await send(path, body);
    button.disabled = false;
    output.className = ok ? "" : "bad";
    output.textContent = ok ? done(data) : data?.error ?? data?.reason ?? `answer ${code}`;
  } catch {
    button.disabled = false;
    output.className = "bad";
    output.textContent = "the gateway does not answer";
  }
}
for (const card of document.querySelectorAll("[data-device]")) {
  const path = `/api/v1/devices/${encodeURIComponent(card.dataset.device)}/`, output = $(".holder output", card);
  $("[data-give-back]", card)?.addEventListener("click", (event) =>
    tell(event.currentTarget, output, path + "command", { action: "release", source: "page" }, () => ""));
  $("[data-opt-out]", card)?.addEventListener("click", (event) => {
    if (confirm("Opt out of this event? It does not come back to this device before it would have ended.")) {
      tell(event.currentTarget, output, path + "optout", {}, (data) => "opted out until " + moment(data.opted_out[0].until));
    }
  });
}
$("form[data-pause]")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.currentTarget, time = new FormData(form).get("for");
  const body = time ? { state: "paused", for: time } : { state: "paused" };
  await tell(event.submitter, $("output", form), "/api/v1/remote-control", body, (data) => { remote(data); return ""; });
  form.closest("details").open = false;
});
$("#resume")?.addEventListener("click", (event) =>
  tell(event.currentTarget, $("#remote output"), "/api/v1/remote-control", { state: "active" }, (data) => { remote(data); return ""; }));
for (const element of document.querySelectorAll("[data-needs-script]")) element.hidden = false;

$("#login")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.currentTarget, output = $("output", form);
  try {
    const { ok, data, code } = await send("/login", { password: new FormData(form).get("password") });
    if (ok) { location.href = "/"; return; }
    output.textContent = data?.error ?? `answer ${code}`;
  } catch {
    output.textContent = "the gateway does not answer";
  }
  output.className = "bad";
});
$("#logout")?.addEventListener("click", async () => {
  await send("/logout", {});
  location.href = "/login";
});
