"""Print who is seen and how they look: a subscriber as an HMI or a fleet service would have it.

    python subscriber.py ipc:///run/cabinsense/events.sock
    python subscriber.py tcp://car:5555 --key tablet.key_secret --server 'PUBLIC KEY OF THE DAEMON'

Needs pyzmq and nothing of Cabinsense.
"""

import argparse
import json
from collections.abc import Iterator

import zmq
import zmq.auth


def connect(endpoint: str, topics: list[str], key: str | None, server: str | None) -> zmq.Socket:
    """A socket that gets these topics; it goes on by itself when the daemon goes and comes back."""
    socket = zmq.Context.instance().socket(zmq.SUB)
    if key and server:
        socket.curve_publickey, socket.curve_secretkey = zmq.auth.load_certificate(key)
        socket.curve_serverkey = server.encode()
    socket.heartbeat_ivl, socket.heartbeat_timeout = 2000, 6000  # ms; or a lost network is noticed by nobody
    for topic in topics:
        socket.subscribe(topic)
    socket.connect(endpoint)
    return socket


def events(socket: zmq.Socket) -> Iterator[dict]:
    """Events that may be believed, each once; tells when some were missed."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    while True:
        topic, body = (part.decode() for part in socket.recv_multipart())
        event = json.loads(body)
        seq = event["seq"]
        if seq <= last.get(topic, 0):
            print(f"{topic}: the daemon was started anew")
            first[topic] = seq
        elif topic in last and seq > last[topic] + 1:
            print(f"{topic}: {seq - last[topic] - 1} messages missed")
        last[topic] = seq
        known = event["repeats"] >= first.setdefault(
            topic, seq
        )  # said again for somebody who has just subscribed
        if not known and (event["valid"] or event.get("change") == "lost"):
            yield event


def driver(event: dict) -> str:
    """How the driver is, in a line. Whether a warning is passed on is up to who knows the car's speed."""
    if not event["present"]:
        return "driver: nobody" if event["present"] is False else "driver: not seen"
    warning = f", warning {event['warning']}" if event["warning"] else ""
    return f"driver: {event['person'] or 'somebody'}, {event['attention']}{warning}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("endpoint")
    parser.add_argument("--key", help="file with both halves of our key; for tcp://")
    parser.add_argument("--server", help="the daemon's public key; for tcp://")
    asked = parser.parse_args()
    socket = connect(asked.endpoint, ["identity", "emotion", "driver", "health"], asked.key, asked.server)
    last = ""
    for event in events(socket):
        match event["topic"]:
            case "identity":
                who = event["person"] or event["change"]
                print(
                    f"camera {event['camera']}, track {event['track']}: {event['change']} {who}", flush=True
                )
            case "emotion":
                print(f"camera {event['camera']}, track {event['track']}: {event['label']}", flush=True)
            case "driver":
                if driver(event) != last:
                    last = driver(event)
                    print(last, flush=True)
            case "health":
                print("; ".join(event["problems"]) or "all is well", flush=True)


if __name__ == "__main__":
    main()
