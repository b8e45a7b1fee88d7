"""Gives this machine public addresses, in a network namespace that nobody else sees, and tries to deliver to them.

Prints what came of it; test_own_addresses.py runs it and reads that.
"""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
from pathlib import Path

from procore_hooks import DestinationPolicy, Dispatcher, HookRegistry
from procore_hooks._dialling import is_own_address
from procore_hooks.testing import ManualClock

OWN = ["8.8.4.4", "::ffff:8.8.4.4", "64:ff9b::808:404", "9.9.9.1", "9.9.9.2", "2606:4700::7"]
NONLOCAL_BIND = Path("/proc/sys/net/ipv4/ip_nonlocal_bind")


def have_addresses() -> None:
    for address in ("8.8.4.4/32", "9.9.9.1/30", "9.9.9.2/30", "2606:4700::7/128"):
        subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def own_when_any_can_be_bound() -> dict[str, bool] | None:
    """What is known to be own where a socket may be bound to any address; None where that cannot be set."""
    try:
        NONLOCAL_BIND.write_text("1")
    except OSError:
        return None
    try:
        return {address: is_own_address(address) for address in ("8.8.4.4", "1.1.1.1")}
    finally:
        NONLOCAL_BIND.write_text("0")


def deliver(policy: DestinationPolicy, url: str) -> str:
    """The status of a delivery to `url`, or what its first attempt says of why not."""
    clock = ManualClock()
    with HookRegistry(destinations=policy, clock=clock) as registry:
        hook = registry.hooks.create(url, namespace="own")
        registry.triggers.create(hook.id, "RFIs", "update")
        registry.emit("RFIs", "update", {})
        Dispatcher(registry).drain(timeout=20)
        (delivery,) = registry.deliveries.list(hook.id)
        attempt = delivery.last_attempt
        return delivery.status if attempt is None or attempt.response_error is None else attempt.response_error


class Receiver(http.server.ThreadingHTTPServer):
    """Says yes to each POST, and counts the connections."""

    connections = 0

    def get_request(self) -> tuple[socket.socket, object]:
        self.connections += 1
        return super().get_request()


class SaysYes(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def main() -> None:
    have_addresses()
    found: dict[str, object] = {
        "own": {address: is_own_address(address) for address in (*OWN, "1.1.1.1", "2606:4700::8")},
        "own_when_any_can_be_bound": own_when_any_can_be_bound(),
    }
    with Receiver(("8.8.4.4", 0), SaysYes) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        port = receiver.server_address[1]
        policies = [
            DestinationPolicy(("http",), resolve=lambda host, answer=answer: [answer])
            for answer in ("8.8.4.4", "::ffff:8.8.4.4", "64:ff9b::808:404")
        ]
        attempts = [deliver(policy, f"http://self.example:{port}/") for policy in policies]
        attempts.append(deliver(DestinationPolicy(("http",)), f"http://8.8.4.4:{port}/"))
        with HookRegistry(destinations=DestinationPolicy(("http",))) as registry:
            report = registry.hooks.check(f"http://8.8.4.4:{port}/")
        found["attempts"], found["check"] = attempts, [report.stage, report.problem]
        found["connections_before_allow"] = receiver.connections
        found["with_allow"] = deliver(DestinationPolicy(("http",), allow=("8.8.4.4",)), f"http://8.8.4.4:{port}/")
        found["connections"] = receiver.connections
        receiver.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
