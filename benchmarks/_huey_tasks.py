"""What a Huey user would write to send webhooks. Imported by the benchmark and by its consumers."""

import os

import requests
from huey import SqliteHuey

huey = SqliteHuey(filename=os.environ["BENCHMARK_HUEY_FILE"])


@huey.task(retries=10, retry_delay=1)
def post(url: str, body: str) -> None:
    answer = requests.post(url, data=body, headers={"content-type": "application/json"}, timeout=5)
    answer.raise_for_status()
