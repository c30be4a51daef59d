"""llama.cpp in a process of its own, through its C API: no server, no interpreter start, no logits copied. Started by
`serve.py`, which writes a request a line as JSON and reads an answer a line.

    python peer.py MODEL.gguf THREADS
"""

import ctypes
import json
import os
import sys
import time

import llama_cpp

from memory import private

TOKENS = range(33, 127)
"""Prompts are made of the tokens that mlxserve's prompts have."""


@llama_cpp.llama_log_callback
def silent(_level, _text, _data):
    """llama.cpp tells of its loading at length."""


class Peer:
    def __init__(self, path: str, threads: int):
        self.path, self.threads = path, threads
        self.model = self.context = None

    def load(self) -> dict:
        started = time.perf_counter()
        self.model = llama_cpp.llama_model_load_from_file(self.path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {self.path}")
        return {"seconds": time.perf_counter() - started}

    def open(self, streams: int, tokens: int) -> None:
        """A context of so many sequences of so many tokens."""
        if self.context:
            llama_cpp.llama_free(self.context)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = streams * tokens
        params.n_seq_max = streams
        params.n_batch = max(tokens, 512)
        params.n_threads = params.n_threads_batch = self.threads
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp has no room for {streams} sequences of {tokens} tokens")

    def step(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Computes rows of (sequence, position, token, whether its logits are wanted)."""
        batch = llama_cpp.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for index, (sequence, position, token, wanted) in enumerate(rows):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wanted
        code = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_synchronize(self.context)
        llama_cpp.llama_batch_free(batch)
        if code:
            raise RuntimeError(f"llama_decode gave {code}")

    def prompt(self, sequence: int, tokens: int) -> None:
        self.step([(sequence, at, TOKENS[at % len(TOKENS)], at == tokens - 1) for at in range(tokens)])

    def cold(self, prompt: int) -> dict:
        """Load, and the logits of a short prompt."""
        started = time.perf_counter()
        self.load()
        self.open(1, 512)
        self.prompt(0, prompt)
        return {"seconds": time.perf_counter() - started}

    def prefill(self, tokens: int) -> dict:
        self.open(1, tokens + 8)
        started = time.perf_counter()
        self.prompt(0, tokens)
        return {"seconds": time.perf_counter() - started}

    def decode(self, streams: int, prompt: int, tokens: int) -> dict:
        """Seconds of `tokens` steps of all streams together, after their prompts."""
        self.open(streams, prompt + tokens)
        for stream in range(streams):
            self.prompt(stream, prompt)
        started = time.perf_counter()
        for at in range(prompt, prompt + tokens):
            self.step([(stream, at, TOKENS[at % len(TOKENS)], True) for stream in range(streams)])
        return {"seconds": time.perf_counter() - started}

    def memory(self, prompt: int, tokens: int) -> dict | None:
        """Private memory that loading and then an answer take, and the tokens that the KV cache has room for."""
        room = 1024
        before = private(os.getpid(), self.path)
        if before is None:
            return None
        self.load()
        self.open(1, room)
        mounted = private(os.getpid(), self.path)
        self.prompt(0, prompt)
        for at in range(prompt, prompt + tokens):
            self.step([(0, at, TOKENS[at % len(TOKENS)], True)])
        used = private(os.getpid(), self.path)
        return {
            "mounted": mounted["private"] - before["private"],
            "used": used["private"] - before["private"],
            "mapped": used["mapped"],
            "room": room,
        }

    def about(self) -> dict:
        return {"system": llama_cpp.llama_print_system_info().decode(), "version": llama_cpp.__version__}


def main() -> None:
    peer = Peer(sys.argv[1], int(sys.argv[2]))
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(peer, request.pop("do"))(**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
