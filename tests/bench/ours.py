"""mlxserve as a client sees it: started, asked over HTTP, looked at in memory, stopped. Called by `serve.py`."""

import http.client
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

from memory import private

STARTED_WITHIN = 60
"""Seconds within which mlxserve is ready."""


class Ours:
    """A running mlxserve with one model mounted."""

    def __init__(self, program: Path, home: Path, model: str, threads: int):
        self.model, self.home = model, home
        self.random = random.Random(1)
        self.started = time.perf_counter()
        command = [program, model, "--port", "0", "--home", home, "--offline", "--threads", str(threads)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLXCTL_", "MLX_"))}
        environment["MLXCTL_LOG"] = "warn"
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
        )
        address = self.process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"{program} did not start (exit code {self.process.wait()})")
        self.address = address.removeprefix("http://")
        while self.request("GET", "/healthz")[0] != 200:
            if self.process.poll() is not None or time.perf_counter() - self.started > STARTED_WITHIN:
                self.stop()
                raise RuntimeError(f"{program} did not mount {model} (exit code {self.process.poll()})")
            time.sleep(0.001)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def request(self, method: str, path: str, body: dict | None = None) -> tuple[int, dict]:
        connection = http.client.HTTPConnection(self.address, timeout=300)
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"{}")
        finally:
            connection.close()

    def generate(self, prompt: int, tokens: int) -> dict:
        """An answer of `tokens` tokens to a random prompt of `prompt` tokens: a letter is a token."""
        text = "".join(self.random.choices("abcdefghijklmnopqrstuvwxyz", k=prompt))
        options = {"temperature": 0, "num_predict": tokens}
        body = {"model": self.model, "prompt": text, "raw": True, "stream": False, "options": options}
        status, answer = self.request("POST", "/api/generate", body)
        if status != 200 or (answer["prompt_eval_count"], answer["eval_count"]) != (prompt, tokens):
            raise RuntimeError(f"expected {prompt} and {tokens} tokens, mlxserve answered {status}: {answer}")
        return answer

    def cold(self, prompt: int) -> float:
        """Seconds from the start of the process to the first token."""
        self.generate(prompt, 1)
        return time.perf_counter() - self.started

    def prefill(self, tokens: int) -> float:
        """Seconds from the admission of a prompt to its first token."""
        return self.generate(tokens, 1)["prompt_eval_duration"] / 1e9

    def decode(self, streams: int, prompt: int, tokens: int) -> float:
        """Seconds of `tokens` steps of all streams together: of the slowest, from its first token to its last."""
        answers: list[dict] = []
        threads = [
            threading.Thread(target=lambda: answers.append(self.generate(prompt, tokens + 1))) for _ in range(streams)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(answers) < streams:
            raise RuntimeError(f"{streams - len(answers)} of {streams} streams failed")
        return max(answer["eval_duration"] for answer in answers) / 1e9

    def memory(self) -> dict[str, int] | None:
        """See `memory.private`; the weights are those of the store."""
        return private(self.process.pid, str(self.home.resolve() / "store"))
