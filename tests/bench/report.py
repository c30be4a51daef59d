"""The figures as Markdown, and their place in a document. Called by `serve.py`."""

import os
import platform
from pathlib import Path

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def table(rows: list[tuple[str, str, str, str]]) -> str:
    """Rows of measure, ours, theirs and ratio."""
    head = [("measure", "mlxserve", "llama.cpp", "ratio"), ("---", "---:", "---:", "---:")]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*head, *rows])


def rate(value: float) -> str:
    """Tokens a second, with three figures."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"


def machine() -> str:
    """Processor, cores and memory."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        name = fields.get("model name", name)
        flags = set(fields.get("flags", "").split())
        known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_int8") if flag in flags]
        name += f" ({', '.join(known)})" if known else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()}"


def write(text: str, path: Path) -> None:
    """Puts the text between the markers of a document, which must be there."""
    document = path.read_text()
    before, found, rest = document.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"error: {path}: expected the lines {BEGIN} and {END}, found neither or one")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


class Load:
    """What other processes took of the machine while this one measured."""

    def __init__(self) -> None:
        self.before = self.now()

    @staticmethod
    def now() -> tuple[float, float, float]:
        """Seconds that all processors have been busy, and have been in all; and those of this process's children."""
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        stat = Path("/proc/stat")
        if not stat.is_file():
            return 0.0, 0.0, own
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in stat.read_text().splitlines()[0].split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks), own

    def others(self) -> str:
        """In words; the processes measured must have ended."""
        busy, all_, own = (after - before for after, before in zip(self.now(), self.before, strict=True))
        if not all_:
            return "Other processes' share of the machine is not known here."
        share = max(0.0, (busy - own) / all_)
        quiet = "a quiet machine" if share < 0.05 else "A BUSY MACHINE: compare with care"
        return f"Other processes took {share:.0%} of the processors' time meanwhile ({quiet})."
