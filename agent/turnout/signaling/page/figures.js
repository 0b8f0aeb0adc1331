// What getStats() knows of a call, as the few figures that the page shows.

import { formatAddress } from "./call.js";

// `before` is what this returned last time, or null: loss is that of the time since.
export function readFigures(report, before) {
  const all = [...report.values()];
  const transport = all.find((one) => one.type === "transport");
  const pair =
    report.get(transport?.selectedCandidatePairId) ??
    all.find((one) => one.type === "candidate-pair" && (one.selected || one.nominated));
  const inbound = all.find((one) => one.type === "inbound-rtp");
  const outbound = all.find((one) => one.type === "outbound-rtp");
  const echoed = all.find((one) => one.type === "remote-inbound-rtp");
  const figures = {
    roundTripMs: milliseconds(echoed?.roundTripTime ?? pair?.currentRoundTripTime),
    jitterMs: milliseconds(inbound?.jitter),
    sent: outbound?.packetsSent ?? 0,
    received: inbound?.packetsReceived ?? 0,
    lost: Math.max(0, inbound?.packetsLost ?? 0),
    lossToPercent: echoed?.fractionLost === undefined ? null : 100 * echoed.fractionLost,
    remote: describe(report.get(pair?.remoteCandidateId)),
    local: describe(report.get(pair?.localCandidateId)),
    codec: describeCodec(report.get(inbound?.codecId ?? outbound?.codecId)),
    cipher: describeCipher(transport),
  };
  figures.lossBackPercent = lossBetween(before, figures);
  return figures;
}

function milliseconds(seconds) {
  return seconds === undefined ? null : seconds * 1000;
}

function lossBetween(before, now) {
  const lost = now.lost - (before?.lost ?? 0);
  const expected = now.received - (before?.received ?? 0) + lost;
  if (expected <= 0) return null;
  // A late packet takes its loss back.
  return Math.max(0, (100 * lost) / expected);
}

function describe(candidate) {
  if (candidate === undefined) return null;
  const address = candidate.address ?? candidate.ip;
  const where = address ? formatAddress(address, candidate.port) : `port ${candidate.port}`;
  return candidate.candidateType === "relay" ? `${where}, by TURN` : where;
}

function describeCodec(codec) {
  return codec ? `${codec.mimeType.replace("audio/", "")}, ${codec.clockRate / 1000} kHz` : null;
}

function describeCipher(transport) {
  if (!transport?.srtpCipher) return null;
  const versions = { FEFF: "DTLS 1.0", FEFD: "DTLS 1.2", FEFC: "DTLS 1.3" };
  const version = versions[transport.tlsVersion?.toUpperCase()];
  const cipher = transport.srtpCipher.replace(/^(SRTP_)?(AEAD_)?/, "").replaceAll("_", "-");
  return version ? `${version}, ${cipher}` : cipher;
}
