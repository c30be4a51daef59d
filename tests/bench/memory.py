"""Memory of a process that is its own. Called by `ours.py` for mlxserve and by `peer.py` for itself."""

import re
from pathlib import Path

MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)$")


def private(pid: int, weights: str) -> dict[str, int] | None:
    """Resident bytes that no other process shares, from `/proc/PID/smaps`: `Private_Clean` and `Private_Dirty` of all
    mappings but those of files whose path starts with `weights`, and as `mapped` the resident bytes of those. `None`
    where the system has no such file."""
    path = Path(f"/proc/{pid}/smaps")
    if not path.is_file():
        return None
    total = {"private": 0, "mapped": 0}
    ours = True
    for line in path.read_text().splitlines():
        if found := MAPPING.match(line):
            ours = not found[1].startswith(weights)
            continue
        key, value, *_ = line.split()
        if ours and key in ("Private_Clean:", "Private_Dirty:"):
            total["private"] += int(value) << 10
        elif not ours and key == "Rss:":
            total["mapped"] += int(value) << 10
    return total
