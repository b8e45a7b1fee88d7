"""Asks Node, which reads URLs as browsers do, and writes down what it says.

    python -m tests.destinations.node_readings                   writes tests/data/whatwg_urls.json anew
    python -m tests.destinations.node_readings --compare 100000  holds whatwg.py to Node on so many other URLs

Node is needed for this alone: the tests read the file.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

from . import whatwg
from .urls import generate

DATA = Path(__file__).parents[1] / "data"
FILE = DATA / "whatwg_urls.json"
GENERATED, SEED = 500, 20_260
SCRIPT = """
const urls = JSON.parse(require("fs").readFileSync(0, "utf8"));
const read = (text) => {
  let url;
  try { url = new URL(text); } catch { return null; }
  const scheme = url.protocol.slice(0, -1);
  if (scheme !== "http" && scheme !== "https") return null;
  return [scheme, url.hostname, url.port === "" ? (scheme === "http" ? 80 : 443) : Number(url.port)];
};
const { node, ada, unicode } = process.versions;
console.log(JSON.stringify({ node, ada, unicode, readings: urls.map(read) }));
"""


def ask(urls: list[str]) -> dict[str, object]:
    """Node's versions, and its readings in the order of `urls`."""
    done = subprocess.run(
        ["node", "--eval", SCRIPT], input=json.dumps(urls), capture_output=True, text=True, timeout=300, check=True
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def listed() -> list[str]:
    """The URLs of the lists of hostile ones."""
    urls = []
    for name in ("hostile_urls.csv", "more_hostile_urls.csv"):
        with (DATA / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                is_escaped = re.search(r"\\[xurnt]", row["url"])
                urls.append(row["url"].encode("ascii").decode("unicode_escape") if is_escaped else row["url"])
    return urls


def write() -> None:
    urls = list(dict.fromkeys([*listed(), *generate(SEED, GENERATED)]))
    answer = ask(urls)
    readings = answer.pop("readings")
    assert isinstance(readings, list)
    lines = ",\n".join(json.dumps([url, reading]) for url, reading in zip(urls, readings, strict=True))
    FILE.write_text(f'{{"by": {json.dumps(answer)}, "urls": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{len(urls)} URLs, of which Node reads {sum(reading is not None for reading in readings)}")


def compare(count: int) -> int:
    urls = list(generate(SEED + 1, count))
    readings = ask(urls)["readings"]
    assert isinstance(readings, list)
    differ = 0
    for url, reading in zip(urls, readings, strict=True):
        ours = whatwg.read(url)
        if ours != (None if reading is None else tuple(reading)):
            differ += 1
            if differ <= 20:
                print(ascii(url), "is to Node", reading, "and here", ours)
    print(f"{differ} of {count} URLs read otherwise than by Node")
    return 1 if differ else 0


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--compare", type=int, default=0)
    count = options.parse_args().compare
    if count:
        return compare(count)
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
