"""A backend for the RTP bridge, as a process of its own: it hears of calls and echoes their RTP.

Its answers carry an SSRC and sequence numbers of its own, as a real backend's would. Every webhook
and every source of RTP is one line of JSON on stdout. Stands alone: no line of Turnout in it.
"""

import json
import socket
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - its output is what the test reads


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        say(hook=json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: stdout is for what the test reads."""


def main(rtp_port: int, http_port: int) -> None:
    server = HTTPServer(("127.0.0.1", http_port), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.bind(("127.0.0.1", rtp_port))
    say(ready=True)
    sequences: dict[tuple[str, int], int] = {}
    while True:
        data, source = endpoint.recvfrom(2048)
        first, second, _sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
        if source not in sequences:
            sequences[source] = 65500  # so that they wrap within a second
            say(source=f"{source[0]}:{source[1]}", ssrc=ssrc)
        sequences[source] = sequences[source] + 1 & 0xFFFF
        header = struct.pack(
            "!BBHII", first, second, sequences[source], timestamp + 4711 & 0xFFFFFFFF, ssrc ^ 1
        )
        endpoint.sendto(header + data[12:], source)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
