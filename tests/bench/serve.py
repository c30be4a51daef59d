"""Measures mlxserve beside llama.cpp on one shape, in one run. Called by `cargo xtask bench`, which builds both.

    python serve.py --programs FOLDER [--quick] [--bits 4|8] [--rounds N] [--threads N] [--write DOCUMENT]

Rounds alternate between the two, and medians are reported. The measures are described in docs/benchmarks.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import report
from models import make
from ours import Ours
from report import megabytes, rate
from shape import Shape

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "target"
MODEL, LARGE = "bench:1", "bench-large:1"
SHORT = 5
"""Tokens of a prompt where the prompt is not what is measured."""
PROMPT, ANSWER = 512, 64
"""Tokens that the KV cache holds when memory is measured."""
PROMPTS = (128, 512, 2048)
STREAMS = (1, 4, 8)
LONGEST = 60
"""Seconds that one prefill may take; longer ones are left out."""
BLOCK = 32
"""Tokens of a block of mlxserve's KV pool."""


class Peer:
    """llama.cpp in a process of its own; `peer.py` says what it does."""

    def __init__(self, model: Path, threads: int):
        command = [sys.executable, HERE / "peer.py", model, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def ask(self, what: str, **request) -> dict:
        print(json.dumps({"do": what, **request}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"llama.cpp ended in the middle of '{what}' (exit code {self.process.wait()})")
        return json.loads(answer)


class Bench:
    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.shape = Shape()
        self.rows: list[tuple[str, str, str, str]] = []
        self.notes: list[str] = []
        self.home, self.gguf = make(
            self.shape, arguments.bits, TARGET / "bench" / f"q{arguments.bits}", arguments.programs / "mlxctl"
        )

    def ours(self, model: str = MODEL) -> Ours:
        return Ours(self.arguments.programs / "mlxserve", self.home, model, self.arguments.threads)

    def peer(self) -> Peer:
        return Peer(self.gguf, self.arguments.threads)

    def compare(self, name: str, ours: list[float], theirs: list[float], tokens: int) -> None:
        """Rows of speed, from the seconds that so many tokens took."""
        mine, other = tokens / statistics.median(ours), tokens / statistics.median(theirs)
        self.rows.append((name, f"{rate(mine)} tok/s", f"{rate(other)} tok/s", f"{mine / other:.3g}×"))

    def memory(self) -> None:
        with self.ours() as ours:
            mounted = ours.memory()
            if mounted is None:
                self.notes.append("Memory is not measured: this system has no `/proc/PID/smaps`.")
                return
            ours.generate(PROMPT, ANSWER)
            used = ours.memory()
        with self.peer() as peer:
            theirs = peer.ask("memory", prompt=PROMPT, tokens=ANSWER)
        # The last token is told, never stored.
        stored = -(-(PROMPT + ANSWER - 1) // BLOCK) * BLOCK
        kv, kv_theirs = self.shape.kv_bytes(stored, 4), self.shape.kv_bytes(theirs["room"], 2)
        ours_beyond, theirs_beyond = used["private"] - kv, theirs["used"] - kv_theirs
        self.row_of_bytes("private memory after mounting", mounted["private"], theirs["mounted"] - kv_theirs)
        self.row_of_bytes(f"… after {PROMPT} + {ANSWER} tokens, beyond KV", ours_beyond, theirs_beyond)
        self.row_of_bytes("mapped weights, resident", used["mapped"], theirs["mapped"])
        with self.ours(LARGE) as ours:
            tokenizer = ours.memory()["private"] - mounted["private"]
        verdict = "below" if ours_beyond < 60e6 else "ABOVE"
        self.notes += [
            f"KV: mlxserve holds {stored} tokens in blocks of {BLOCK}, f32, {megabytes(kv)}; llama.cpp allots "
            f"{theirs['room']} at once, f16, {megabytes(kv_theirs)}.",
            f"mlxserve's private memory beyond KV is {megabytes(ours_beyond)}, {verdict} the 60 MB set for it, its "
            f"tokenizer of 256 tokens counted in. A BPE of 151,643 tokens takes {megabytes(tokenizer)} more.",
        ]

    def row_of_bytes(self, name: str, ours: float, theirs: float) -> None:
        ratio = f"{ours / theirs:.3g}×" if theirs > 0 else "–"
        self.rows.append((name, megabytes(ours), megabytes(theirs), ratio))

    def cold(self) -> None:
        ours, theirs = [], []
        for _ in range(self.arguments.rounds):
            with self.ours() as server:
                ours.append(server.cold(SHORT))
            with self.peer() as peer:
                theirs.append(peer.ask("cold", prompt=SHORT)["seconds"])
        mine, other = statistics.median(ours), statistics.median(theirs)
        self.rows.append(
            (f"start to first token of {SHORT} + 1", f"{mine:.3g} s", f"{other:.3g} s", f"{mine / other:.3g}×")
        )

    def speed(self) -> None:
        quick = self.arguments.quick
        steps = 8 if quick else 32
        with self.ours() as ours, self.peer() as peer:
            peer.ask("load")
            self.notes.append(f"llama.cpp (llama-cpp-python {peer.ask('about')['version']}), built for this machine.")
            # Both touch all weights once before anything is timed.
            ours.prefill(SHORT)
            peer.ask("prefill", tokens=SHORT)
            for streams in STREAMS:
                mine, other = [], []
                for _ in range(self.arguments.rounds):
                    mine.append(ours.decode(streams, SHORT, steps))
                    other.append(peer.ask("decode", streams=streams, prompt=SHORT, tokens=steps)["seconds"])
                self.compare(f"decode, {streams} stream{'s' * (streams > 1)}", mine, other, streams * steps)
                if streams == 1:
                    read = steps * self.shape.matrix_bytes(self.arguments.bits) / 1e9
                    bandwidths = [f"{read / statistics.median(seconds):.1f}" for seconds in (mine, other)]
                    self.notes.append(f"One stream reads {' and '.join(bandwidths)} GB/s of weights.")
            slowest = 0.0
            for tokens in PROMPTS[:1] if quick else PROMPTS:
                # A token costs more the longer the prompt: half as much again is on the safe side.
                if slowest * 1.5 * tokens > LONGEST:
                    self.notes.append(f"A prefill of {tokens} tokens would take longer than {LONGEST} s: left out.")
                    continue
                rounds = self.arguments.rounds
                if slowest * tokens > 10 and rounds > 1:
                    rounds = 1
                    self.notes.append(f"The prefill of {tokens} tokens was measured once.")
                mine, other = [], []
                for _ in range(rounds):
                    mine.append(ours.prefill(tokens))
                    other.append(peer.ask("prefill", tokens=tokens)["seconds"])
                slowest = max(*mine, *other) / tokens
                self.compare(f"prefill, {tokens} tokens", mine, other, tokens)

    def run(self) -> str:
        load = report.Load()
        self.memory()
        self.cold()
        self.speed()
        arguments = self.arguments
        flags = [word for word in sys.argv[1:] if word in ("--quick",)]
        flags += [f"--{name} {getattr(arguments, name)}" for name in ("bits", "rounds", "threads")]
        size = megabytes(self.shape.matrix_bytes(arguments.bits))
        formats = f"affine {arguments.bits} bits in groups of 64 / Q{arguments.bits}_0, {size} in both"
        return "\n".join(
            [
                report.table(self.rows),
                "",
                f"- Machine: {report.machine()}; {arguments.threads} threads for both. {load.others()}",
                f"- Model: the shape of Qwen3-0.6B, random weights, {formats}.",
                f"- Command: `cargo xtask bench {' '.join(flags)}`; medians of {arguments.rounds}, alternating.",
                *(f"- {note}" for note in self.notes),
            ]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures mlxserve beside llama.cpp on one shape.")
    parser.add_argument("--programs", type=Path, required=True, help="the folder of mlxserve and mlxctl")
    parser.add_argument("--quick", action="store_true", help="one round of few tokens: whether it runs at all")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=4, help="bits a weight")
    parser.add_argument("--rounds", type=int, help="rounds of each measure (default: 3, quick: 1)")
    parser.add_argument("--threads", type=int, default=2, help="threads of both")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="put the figures between the document's markers")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    text = Bench(arguments).run()
    print(text)
    if arguments.write:
        report.write(text, arguments.write)


if __name__ == "__main__":
    main()
