// What can go wrong, in words that say what to do. A Failure is what every part of the page throws
// or reports; `offer` names a button the page can show beside it: "tone" or "again".

export class Failure extends Error {
  constructor(title, detail, { advice = "", offer = "again", needsToken = false } = {}) {
    super(`${title}: ${detail}`);
    Object.assign(this, { title, detail, advice, offer, needsToken });
  }
}

export function noWebRtc() {
  return new Failure(
    "This browser cannot place calls",
    "It has no RTCPeerConnection: WebRTC is missing or switched off.",
    { advice: "Use a current Chrome, Firefox, Safari or Edge.", offer: null },
  );
}

// `error` is what getUserMedia rejected with.
export function microphoneFailed(error) {
  const tone = { offer: "tone" };
  switch (error.name) {
    case "NotAllowedError":
      return new Failure("Microphone denied", "The browser did not let this page use a microphone.", {
        ...tone,
        advice: "Allow it in the site settings beside the address, then call again; or use the test tone.",
      });
    case "NotFoundError":
      return new Failure("No microphone", "The browser found no microphone on this device.", {
        ...tone,
        advice: "Plug one in, then call again; or use the test tone.",
      });
    case "NotReadableError":
      return new Failure("Microphone busy", "The system did not hand the microphone over.", {
        ...tone,
        advice: "Close the program that uses it, then call again; or use the test tone.",
      });
    default:
      return new Failure("Microphone failed", `${error.name}: ${error.message}`, tone);
  }
}

// Nothing came back from `url` at all.
export function unreachable(url) {
  if (!navigator.onLine) {
    return new Failure("This device is offline", "The browser says that there is no network.", {
      advice: "Connect to a network, then call again.",
    });
  }
  return new Failure("The edge does not answer", `No reply from ${url}.`, {
    advice: "It may be stopped or starting again, or something between here and there blocks the connection.",
  });
}

// A reply other than 201; RFC 9457 problems carry the edge's own words.
export async function refused(reply) {
  const body = await reply.text().catch(() => "");
  const problem = parseProblem(reply, body);
  const title = problem?.title ?? `The edge said ${reply.status} ${reply.statusText}`.trim();
  const detail = problem?.detail ?? (body.trim().slice(0, 300) || "It gave no reason.");
  const seconds = Number(reply.headers.get("Retry-After"));
  if (reply.status === 401 || reply.status === 403) {
    const advice = "Enter the access token that the operator of this edge gave you.";
    return new Failure(title, detail, { advice, offer: null, needsToken: true });
  }
  const advice = seconds > 0 ? `Worth another try in ${seconds} s.` : `HTTP status ${reply.status}.`;
  return new Failure(title, detail, { advice });
}

function parseProblem(reply, body) {
  if (!(reply.headers.get("Content-Type") ?? "").startsWith("application/problem+json")) return null;
  try {
    const { title, detail } = JSON.parse(body);
    return typeof title === "string" && typeof detail === "string" ? { title, detail } : null;
  } catch {
    return null; // cut off on the way: its text is shown as it is
  }
}

export function badAnswer(error) {
  return new Failure("The answer cannot be used", `The browser refused it: ${error.message}`);
}

// Signaling worked, but no check was answered at `remotes`.
export function noPath(remotes, triedRelay) {
  const advice = triedRelay
    ? "The TURN server that this edge names did not help either. Ask its operator."
    : "Most likely this network or its firewall blocks UDP. Try another network, or ask the operator " +
      "of this edge for a TURN server: one set up as ice_server is used by itself.";
  return new Failure("No way through for UDP", `Nothing came back from ${remotes.join(" or ")}.`, { advice });
}

export function handshakeFailed() {
  return new Failure("Encryption failed", "The path works, but the DTLS handshake did not end.", {
    advice: "Something on the way drops or changes packets larger than a ping. Try another network.",
  });
}

export function endedByEdge() {
  return new Failure("The edge ended the call", "The session is over on its side.", {
    advice: "Its operator may have stopped it, or its media server was started again. Calling again is safe.",
  });
}

export function pathLost() {
  return new Failure("The path broke", "The edge still has the call, but no packet comes through any more.", {
    advice: "The network may have changed or blocks UDP now. Call again from where you are.",
  });
}
