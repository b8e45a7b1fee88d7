"""What a Celery user would write to send webhooks. Imported by the benchmark and by its workers."""

import os

import requests
from celery import Celery

app = Celery("benchmark", broker=os.environ["BENCHMARK_BROKER"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(autoretry_for=(requests.RequestException,), retry_backoff=True, max_retries=10)
def post(url: str, body: str) -> None:
    answer = requests.post(url, data=body, headers={"content-type": "application/json"}, timeout=5)
    answer.raise_for_status()
