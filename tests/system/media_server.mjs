// A media server that is not ours, for tests of [[upstream]]: libdatachannel by its Node binding
// (npm: node-datachannel), unchanged, all sessions on ONE UDP port (libjuice's mux). It has no WHIP
// itself: what stands here is no more than that, and an echo of the RTP that comes.
//
// node media_server.mjs ADDRESS UDP-PORT HTTP-PORT, with the package where NODE_DATACHANNEL says.

import http from "node:http";
import { createRequire } from "node:module";

const [address, udpPort, httpPort] = process.argv.slice(2);
const { PeerConnection } = createRequire(import.meta.url)(process.env.NODE_DATACHANNEL);
const sessions = new Map();
let number = 0;

function answer(offer) {
  const id = String(++number);
  const peer = new PeerConnection(`session-${id}`, {
    iceServers: [],
    bindAddress: address,
    enableIceUdpMux: true,
    portRangeBegin: Number(udpPort),
    portRangeEnd: Number(udpPort),
  });
  const session = { peer, tracks: [] };
  sessions.set(id, session);
  peer.onTrack((track) => {
    session.tracks.push(track); // collected, it would fall silent
    track.onMessage((packet) => {
      const isRtcp = packet[1] >= 192 && packet[1] <= 223;
      if (isRtcp) return;
      // Another source than the client's own: nobody sends under somebody else's SSRC.
      const echoed = Buffer.from(packet);
      echoed.writeUInt32BE((echoed.readUInt32BE(8) ^ 1) >>> 0, 8);
      track.sendMessageBinary(echoed);
    });
  });
  return new Promise((resolve) => {
    peer.onGatheringStateChange((state) => {
      if (state === "complete") resolve({ id, sdp: peer.localDescription().sdp });
    });
    peer.setRemoteDescription(offer, "offer");
  });
}

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  const id = request.url.match(/^\/resource\/(\d+)$/)?.[1];
  console.log(JSON.stringify({ method: request.method, url: request.url, sessions: sessions.size }));
  if (request.url === "/whip" && request.method === "OPTIONS") {
    response.writeHead(204, { "Accept-Post": "application/sdp" }).end();
  } else if (request.url === "/whip" && request.method === "POST") {
    const made = await answer(body);
    response.writeHead(201, {
      "Content-Type": "application/sdp",
      Location: `/resource/${made.id}`,
      ETag: `"${made.id}"`,
    });
    response.end(made.sdp);
  } else if (id && sessions.has(id) && request.method === "PATCH") {
    for (const [, candidate] of body.matchAll(/^a=(candidate:.*?)\r?$/gm)) {
      sessions.get(id).peer.addRemoteCandidate(candidate, "0");
    }
    response.writeHead(204).end();
  } else if (id && sessions.has(id) && request.method === "DELETE") {
    sessions.get(id).peer.close();
    sessions.delete(id);
    response.writeHead(200).end();
  } else {
    response.writeHead(404).end("no such thing");
  }
});
server.listen(Number(httpPort), "127.0.0.1", () => console.log(JSON.stringify({ ready: true })));
