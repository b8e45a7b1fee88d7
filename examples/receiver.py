"""A receiver of webhooks, with the standard library and `verify`: WEBHOOK_SECRET=whsec_... python receiver.py [port]"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from procore_hooks import VerificationError, verify

SECRET = os.environ["WEBHOOK_SECRET"]
LONGEST_BODY = 1024 * 1024
seen = set()  # in an app: a table with a unique column


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        if length > LONGEST_BODY:
            self.answer(413)
            return
        body = self.rfile.read(length)
        try:
            event = verify(body, self.headers, SECRET)  # the body as it came, not parsed and written again
        except VerificationError as error:
            print("refused:", error, flush=True)
            self.answer(401)
            return
        webhook_id = self.headers["webhook-id"]
        if webhook_id not in seen:  # the same event may come twice
            seen.add(webhook_id)
            print(event["resource_type"], event["reason"], event["resource_id"], flush=True)
        self.answer(204)  # at once; work that takes longer than a second or two goes into a queue

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    with ThreadingHTTPServer(("127.0.0.1", port), Receiver) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
