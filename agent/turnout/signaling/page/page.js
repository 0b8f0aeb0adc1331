// The page: one button, what it starts, and what is shown of it.

import { Call } from "./call.js";
import { Failure, noWebRtc } from "./failures.js";
import { readFigures } from "./figures.js";
import { Plot } from "./plot.js";
import { Ear, Meter, hasMicrophoneApi, openMicrophone, openTone } from "./sound.js";

const FIGURES_EVERY_MS = 500;
const SOUND_EVERY_MS = 50;
const SPEAKER_VOLUME = 0.8;
const ENDPOINT = new URL("whip", document.baseURI).href;

// state of a call -> what the page says, and the colour it says it in
const STATES = {
  idle: ["Ready", "idle"],
  microphone: ["Asking for the microphone…", "working"],
  offering: ["Preparing the call…", "working"],
  asking: ["Asking the edge…", "working"],
  checking: ["Looking for a way through (ICE)…", "working"],
  securing: ["Agreeing on keys (DTLS)…", "working"],
  connected: ["Connected", "connected"],
  interrupted: ["Interrupted: nothing comes through, waiting…", "interrupted"],
  offline: ["This device is offline, waiting for the network…", "interrupted"],
  failed: ["The call failed", "failed"],
};
// A phase lasts from the mark before it to its own.
const PHASES = [
  ["offer", "Offer made"],
  ["answer", "Edge answered"],
  ["path", "Path (ICE)"],
  ["secured", "Keys (DTLS)"],
  ["packet", "First packet"],
];

const byId = (id) => document.getElementById(id);
const plots = {
  sound: new Plot(byId("sound-plot"), { series: 2, length: 200, bottom: -60, top: 0 }),
  rtt: new Plot(byId("rtt-plot"), { top: 20, unit: "ms" }),
  loss: new Plot(byId("loss-plot"), { series: 2, top: 5, unit: "%" }),
  jitter: new Plot(byId("jitter-plot"), { top: 10, unit: "ms" }),
};

let current = null; // what belongs to the call under way
let iceServers = []; // what an edge named in its last answer

// --- showing

function showState(name) {
  const [text, colour] = STATES[name];
  byId("state").dataset.state = colour;
  if (byId("state-text").textContent !== text) byId("state-text").textContent = text;
}

function showText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

function showButton(isCalling) {
  showText("button", isCalling ? "Hang up" : "Call");
  byId("button").classList.toggle("stop", isCalling);
  byId("sources").disabled = isCalling;
}

function showFailure(failure) {
  byId("failure").hidden = failure === null;
  if (failure === null) return;
  showText("failure-title", failure.title);
  showText("failure-detail", failure.detail);
  showText("failure-advice", failure.advice);
  byId("failure-advice").hidden = !failure.advice;
  const offer = byId("failure-offer");
  offer.hidden = !failure.offer;
  offer.dataset.source = failure.offer === "tone" ? "tone" : "";
  showText("failure-offer", failure.offer === "tone" ? "Call with the test tone" : "Call again");
  if (failure.needsToken) {
    byId("token-field").hidden = false;
    byId("token").focus();
  }
}

function showPhases(marks) {
  const latest = Math.max(...Object.values(marks)) - marks.start;
  let since = marks.start;
  const rows = PHASES.map(([mark, label]) => {
    const end = marks[mark];
    const lasted = end === undefined ? NaN : Math.max(0, end - since);
    if (end !== undefined) since = end;
    return phaseRow(label, lasted, lasted / latest);
  });
  const sum = phaseRow("Total", (marks.packet ?? NaN) - marks.start, null);
  sum.className = "total";
  byId("phases").replaceChildren(...rows, sum);
}

function phaseRow(label, lasted, share) {
  const row = document.createElement("li");
  const name = document.createElement("span");
  const time = document.createElement("span");
  name.textContent = label;
  time.className = "time";
  time.textContent = Number.isNaN(lasted) ? "–" : `${lasted < 10 ? lasted.toFixed(1) : Math.round(lasted)} ms`;
  const bar = document.createElement(share === null ? "span" : "progress");
  if (share !== null) {
    bar.value = share || 0;
    bar.ariaHidden = "true";
  }
  row.append(name, bar, time);
  return row;
}

function showFigures(figures) {
  const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  const losses = [figures.lossToPercent, figures.lossBackPercent].filter((one) => one !== null);
  showText("rtt-value", number(figures.roundTripMs, figures.roundTripMs < 10 ? 1 : 0));
  showText("jitter-value", number(figures.jitterMs, 1));
  showText("loss-value", losses.length ? Math.max(...losses).toFixed(1) : "–");
  plots.rtt.push(figures.roundTripMs);
  plots.jitter.push(figures.jitterMs);
  plots.loss.push(figures.lossToPercent, figures.lossBackPercent);
  showText("fact-remote", figures.remote ?? "–");
  showText("fact-local", figures.local ?? "–");
  showText("fact-cipher", figures.cipher ?? "–");
  showText("fact-codec", figures.codec ?? "–");
  showText("fact-packets", `${figures.sent} sent, ${figures.received} back, ${figures.lost} lost`);
}

function showClock(seconds) {
  const minutes = Math.floor(seconds / 60);
  showText("clock", `${minutes}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`);
}

function resetFigures() {
  byId("pair").hidden = false;
  for (const plot of Object.values(plots)) plot.clear();
  for (const id of ["sound", "rtt", "loss", "jitter"]) showText(`${id}-value`, "–");
  for (const id of ["remote", "local", "cipher", "codec", "packets"]) showText(`fact-${id}`, "–");
  showText("fact-ice", "new");
  showPhases({});
}

// --- the call

async function start(source) {
  showFailure(null);
  resetFigures();
  showButton(true);
  // Made now, in the click: later a browser would not let it sound.
  const context = new AudioContext();
  const mine = { context, stream: null, call: null, source, timers: [], meters: [], speech: null };
  current = mine;
  try {
    if (window.RTCPeerConnection === undefined) throw noWebRtc();
    if (source === "microphone") showState("microphone");
    mine.stream = source === "microphone" ? await openMicrophone() : openTone(context);
    if (current !== mine) return release(mine); // hung up while the browser asked
    place(mine);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (current === mine) finish(mine, error);
  }
}

function place(mine) {
  const call = new Call({ endpoint: ENDPOINT, token: byId("token").value.trim(), iceServers });
  mine.call = call;
  mine.speech = new Meter(mine.context, mine.stream);
  mine.meters.push(mine.speech);
  call.addEventListener("state", () => followState(call));
  call.addEventListener("stream", () => listen(mine));
  call.addEventListener("over", () => over(mine));
  // A microphone that is unplugged ends its track.
  mine.stream.getAudioTracks()[0].addEventListener("ended", () => call.hangUp());
  mine.timers.push(setInterval(() => takeFigures(mine), FIGURES_EVERY_MS));
  call.place(mine.stream);
}

function followState(call) {
  if (call.isOver) return;
  const isOffline = call.state === "interrupted" && !navigator.onLine;
  showState(isOffline ? "offline" : call.state);
  showText("fact-ice", call.iceState);
  byId("clock").hidden = call.connectedAt === 0;
  if (call.connectedAt) byId("plots").hidden = false;
  showPhases(call.marks);
}

async function listen(mine) {
  const speaker = byId("speaker");
  // Chromium lets a remote stream flow into Web Audio only while an element plays it.
  speaker.srcObject = mine.call.remoteStream;
  speaker.volume = SPEAKER_VOLUME;
  speaker.play().catch((error) => console.info("the speaker does not play:", error.message));
  const echo = new Meter(mine.context, mine.call.remoteStream);
  mine.meters.push(echo);
  const ear = new Ear();
  const take = () => {
    const sent = mine.speech.level();
    const level = echo.level();
    plots.sound.push(sent, level);
    if (mine.call.connectedAt === 0) return;
    showText("sound-value", ear.listen(sent, { level, hz: echo.loudest() }, performance.now()));
  };
  mine.timers.push(setInterval(take, SOUND_EVERY_MS));
}

async function takeFigures(mine) {
  const { call } = mine;
  if (call.connectedAt === 0) return;
  const report = await call.stats();
  if (call.isOver) return;
  mine.figures = readFigures(report, mine.figures ?? null);
  showFigures(mine.figures);
  showClock((performance.now() - call.connectedAt) / 1000);
}

function over(mine) {
  const { call } = mine;
  iceServers = call.offeredServers;
  // The way was blocked, and now we know a relay: once more, through it.
  if (call.failure !== null && call.connectedAt === 0 && !call.triedRelay && iceServers.length > 0) {
    const isPath = call.marks.answer !== undefined && call.marks.path === undefined;
    if (isPath) {
      release(mine);
      start(mine.source);
      return;
    }
  }
  finish(mine, call.failure);
}

function finish(mine, failure) {
  release(mine);
  current = null;
  showButton(false);
  showState(failure === null ? "idle" : "failed");
  if (failure === null && mine.call?.connectedAt) {
    const seconds = (performance.now() - mine.call.connectedAt) / 1000;
    showText("state-text", `Call ended after ${seconds.toFixed(0)} s`);
  }
  showText("fact-ice", failure === null ? "closed" : "failed");
  byId("clock").hidden = true;
  showFailure(failure);
}

function release(mine) {
  for (const timer of mine.timers) clearInterval(timer);
  for (const meter of mine.meters) meter.close();
  for (const track of mine.stream?.getTracks() ?? []) track.stop();
  byId("speaker").srcObject = null;
  mine.context.close();
}

function hangUp() {
  const mine = current;
  if (mine === null) return;
  if (mine.call !== null) mine.call.hangUp();
  else finish(mine, null);
}

// --- the person

function chosenSource() {
  return new FormData(byId("form")).get("source");
}

function choose(source) {
  document.querySelector(`input[name="source"][value="${source}"]`).checked = true;
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (current !== null) hangUp();
  else start(chosenSource());
});
byId("failure-offer").addEventListener("click", () => {
  if (byId("failure-offer").dataset.source) choose(byId("failure-offer").dataset.source);
  byId("button").focus();
  start(chosenSource());
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") hangUp();
});
addEventListener("pagehide", hangUp);
for (const change of ["online", "offline"]) {
  addEventListener(change, () => current?.call && followState(current.call));
}

byId("host").textContent = location.host;
if (!hasMicrophoneApi()) {
  choose("tone");
  document.querySelector('input[value="microphone"]').disabled = true;
  showText(
    "note",
    "The microphone is not available: browsers give it only to pages from https or from localhost, and " +
      `this one came from ${location.origin}. The call uses a test tone instead.`,
  );
  byId("note").hidden = false;
}
