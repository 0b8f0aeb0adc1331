// One call: an offer by WHIP (RFC 9725), ICE, DTLS, and its end. Knows nothing of the page.
//
// Events: "state" (see `state`), "stream" (what comes back, in `remoteStream`), "over" (`failure` says
// why; null after a hang-up).

import * as failures from "./failures.js";

// No check answered by then: with UDP open the first answer takes one round trip.
const PATH_PATIENCE_MS = 10_000;
const HANDSHAKE_PATIENCE_MS = 10_000;
const REQUEST_PATIENCE_MS = 15_000;
// ICE calls a path disconnected after some 5 s of silence; it often comes back.
const INTERRUPTED_PATIENCE_MS = 8_000;
const FIRST_PACKET_POLL_MS = 10;

export class Call extends EventTarget {
  // states: offering, asking, checking, securing, connected, interrupted, over
  state = "new";
  failure = null;
  remoteStream = null;
  connectedAt = 0;
  marks = {}; // phase -> performance.now() at its end
  #pc;
  #endpoint;
  #token;
  #resource = null;
  #timer = 0;

  constructor({ endpoint, token, iceServers }) {
    super();
    this.#endpoint = endpoint;
    this.#token = token;
    this.triedRelay = iceServers.length > 0;
    this.offeredServers = [];
    this.#pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.#pc.addEventListener("track", ({ streams, track }) => {
      this.remoteStream = streams[0] ?? new MediaStream([track]);
      this.dispatchEvent(new Event("stream"));
    });
    this.#pc.addEventListener("iceconnectionstatechange", () => this.#followIce());
    this.#pc.addEventListener("connectionstatechange", () => this.#followConnection());
  }

  get iceState() {
    return this.#pc.iceConnectionState;
  }

  get isOver() {
    return this.state === "over";
  }

  stats() {
    return this.#pc.getStats();
  }

  // Resolves when the answer is in place; what follows comes as events. Never rejects.
  async place(stream) {
    this.marks.start = performance.now();
    try {
      this.#enter("offering");
      for (const track of stream.getAudioTracks()) this.#pc.addTrack(track, stream);
      await this.#pc.setLocalDescription();
      this.marks.offer = performance.now();
      if (this.isOver) return;
      this.#enter("asking");
      // At once, without waiting for candidates: the edge answers checks from wherever they come.
      const answer = await this.#ask(this.#pc.localDescription.sdp);
      this.marks.answer = performance.now();
      if (this.isOver) {
        this.#delete(); // hung up while the edge was answering
        return;
      }
      this.#enter("checking");
      this.#wait(PATH_PATIENCE_MS, () => failures.noPath(this.#remotes(), this.triedRelay));
      await this.#pc.setRemoteDescription({ type: "answer", sdp: answer }).catch((error) => {
        throw failures.badAnswer(error);
      });
      this.#followHandshake(this.#pc.getSenders()[0]?.transport);
    } catch (error) {
      if (this.isOver) return;
      if (!(error instanceof failures.Failure)) console.error(error);
      this.#end(error instanceof failures.Failure ? error : failures.badAnswer(error));
    }
  }

  hangUp() {
    this.#end(null);
  }

  async #ask(offer) {
    const reply = await this.#request(this.#endpoint, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: offer,
    });
    if (reply.status !== 201) throw await failures.refused(reply);
    const location = reply.headers.get("Location");
    if (location !== null) this.#resource = new URL(location, reply.url).href;
    this.offeredServers = parseIceServers(reply.headers.get("Link") ?? "");
    return reply.text();
  }

  #request(url, options = {}) {
    const headers = { ...options.headers };
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    const signal = AbortSignal.timeout(REQUEST_PATIENCE_MS);
    return fetch(url, { cache: "no-store", signal, ...options, headers }).catch(() => {
      throw failures.unreachable(new URL(url).origin);
    });
  }

  #followIce() {
    const ice = this.iceState;
    if ((ice === "connected" || ice === "completed") && this.state === "checking") {
      this.marks.path = performance.now();
      this.#enter("securing");
      this.#wait(HANDSHAKE_PATIENCE_MS, failures.handshakeFailed);
    }
    this.dispatchEvent(new Event("state"));
  }

  #followHandshake(transport) {
    const look = () => {
      // The edge said close_notify: it has ended the session.
      if (transport.state === "closed") this.#end(failures.endedByEdge());
    };
    transport?.addEventListener("statechange", look);
  }

  #followConnection() {
    switch (this.#pc.connectionState) {
      case "connected":
        clearTimeout(this.#timer);
        this.marks.path ??= performance.now();
        this.marks.secured ??= performance.now();
        this.connectedAt ||= performance.now();
        if (this.marks.packet === undefined) this.#awaitPacket();
        this.#enter("connected");
        break;
      case "disconnected":
        if (this.state !== "connected") break;
        this.#enter("interrupted");
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#diagnose(), INTERRUPTED_PATIENCE_MS);
        break;
      case "failed":
        if (this.state === "checking") {
          this.#end(failures.noPath(this.#remotes(), this.triedRelay));
        } else if (this.state === "securing") {
          this.#end(failures.handshakeFailed());
        } else {
          this.#diagnose();
        }
        break;
    }
  }

  async #awaitPacket() {
    while (!this.isOver && this.marks.packet === undefined) {
      const report = await this.stats();
      const heard = [...report.values()].some((one) => one.type === "inbound-rtp" && one.packetsReceived > 0);
      if (heard) this.marks.packet = performance.now();
      else await new Promise((wake) => setTimeout(wake, FIRST_PACKET_POLL_MS));
    }
    this.dispatchEvent(new Event("state"));
  }

  // A call that worked is silent: is it the path, the session, or the edge?
  async #diagnose() {
    if (this.isOver) return;
    clearTimeout(this.#timer);
    try {
      const reply = await this.#request(this.#resource ?? this.#endpoint);
      const isGone = reply.status === 404 || reply.status === 410;
      this.#end(isGone ? failures.endedByEdge() : failures.pathLost());
    } catch (failure) {
      this.#end(failure);
    }
  }

  #wait(patience, makeFailure) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#end(makeFailure()), patience);
  }

  #enter(state) {
    if (this.isOver || this.state === state) return;
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  #end(failure) {
    if (this.isOver) return;
    clearTimeout(this.#timer);
    this.#enter("over");
    this.failure = failure;
    // The session first: the goodbye of a closed connection would make its DELETE a 404.
    this.#delete();
    this.#pc.close();
    this.dispatchEvent(new Event("over"));
  }

  // Also while the page goes away: keepalive lets the request outlive it.
  #delete() {
    if (this.#resource === null) return;
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    // Whether it arrives or not: the edge ends a silent session by itself.
    fetch(this.#resource, { method: "DELETE", keepalive: true, headers }).catch(() => {});
    this.#resource = null;
  }

  #remotes() {
    const lines = this.#pc.remoteDescription?.sdp.match(/^a=candidate:.*$/gm) ?? [];
    const named = lines.map((line) => {
      const [, , , , address, port] = line.split(" ");
      return formatAddress(address, port);
    });
    return named.length ? named : ["the edge"];
  }
}

export function formatAddress(address, port) {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

// `Link: <turn:host>; rel="ice-server"; username="u"; credential="c"` (RFC 9725 section 4.6).
export function parseIceServers(header) {
  const servers = [];
  for (const [, url, rest] of header.matchAll(/<([^>]*)>((?:\s*;\s*[\w*-]+\s*=\s*(?:"[^"]*"|[^\s;,]+))*)/g)) {
    const pairs = [...rest.matchAll(/([\w*-]+)\s*=\s*(?:"([^"]*)"|([^\s;,]+))/g)];
    const parameters = Object.fromEntries(pairs.map(([, name, quoted, bare]) => [name, quoted ?? bare]));
    if (parameters.rel !== "ice-server") continue;
    const { username, credential } = parameters;
    servers.push(username === undefined ? { urls: url } : { urls: url, username, credential });
  }
  return servers;
}
