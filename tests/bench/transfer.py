"""Pull and push on loopback beside other tools and beside the floor, in one run: `cargo xtask bench transfer`.

The registry is Debian's `docker-registry` over a folder. The floor of a pull is a GET whose bytes are written and
hashed as they come, that of a push one PUT of the file; both by `curl`, and in plain Python, whichever is faster.
Every tool starts with nothing and must leave the whole blob on disk. Rounds are interleaved and the fastest of each
counts. Called by `xtask`; prints ratios, and writes them as JSON with `--json FILE`.
"""

import argparse
import hashlib
import http.client
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

CHUNK = 1 << 20
EMPTY = b"{}"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Registry:
    """A `docker-registry` over a folder, on a port that the system chose."""

    def __init__(self, folder):
        config = os.path.join(folder, "config.yml")
        with open(config, "w") as file:
            file.write(
                "version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\n"
                f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
                "http: {addr: '127.0.0.1:0', secret: bench}\n"
            )
        command = ["docker-registry", "serve", config]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "listening on " in line:
                self.address = line.split("listening on ")[1].split('"')[0].split(",")[0].strip()
                break
        # The pipe is read to its end, so that the program never waits for room in it.
        import threading

        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.address)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {content[:200]}")
        return answer

    def session(self, name):
        location = self.request("POST", f"/v2/{name}/blobs/uploads/").getheader("Location")
        return location if location.startswith("http") else f"http://{self.address}{location}"

    def stop(self):
        self.process.terminate()
        self.process.wait()


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak(command, **options):
    """Runs a command and gives the seconds it took and its peak of memory in bytes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command}: {message.decode()[-600:]}")
    return seconds, usage.ru_maxrss * 1024


def get_with_python(registry, name, blob, target):
    connection = http.client.HTTPConnection(registry.address)
    connection.request("GET", f"/v2/{name}/blobs/{blob}")
    answer = connection.getresponse()
    found, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    with open(target, "wb", buffering=0) as file:
        while count := answer.readinto(buffer):
            found.update(buffer[:count])
            file.write(buffer[:count])
    assert "sha256:" + found.hexdigest() == blob


def get_with_curl(registry, name, blob, target):
    url = f"http://{registry.address}/v2/{name}/blobs/{blob}"
    script = 'set -o pipefail; curl -sS --fail "$1" | tee "$2" | sha256sum'
    found = subprocess.run(["bash", "-c", script, "get", url, target], check=True, capture_output=True, text=True)
    assert "sha256:" + found.stdout.split()[0] == blob


def put_with_curl(registry, name, blob, source):
    url = registry.session(name)
    url += ("&" if "?" in url else "?") + f"digest={blob}"
    command = ["curl", "-sS", "--fail", "-o", "/dev/null", "-T", source, "-H", "Content-Type: application/octet-stream"]
    subprocess.run([*command, url], check=True)


def put_with_python(registry, name, blob, source):
    url = registry.session(name)
    path = url.split(registry.address, 1)[1]
    path += ("&" if "?" in path else "?") + f"digest={blob}"
    with open(source, "rb") as file:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(os.path.getsize(source))}
        connection = http.client.HTTPConnection(registry.address, blocksize=CHUNK)
        connection.request("PUT", path, file, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201, answer.status


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", required=True, help="the folder with mlxctl")
    parser.add_argument("--tools", default="", help="a folder with oras, where it was built")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="mlxctl-bench-")
    registry = Registry(folder)
    try:
        results = measure(options, folder, registry)
    finally:
        registry.stop()
        shutil.rmtree(folder, ignore_errors=True)
    report(results, options)


def measure(options, folder, registry):
    mlxctl = os.path.join(options.programs, "mlxctl")
    oras = shutil.which("oras", path=options.tools or None) or shutil.which("oras")
    skopeo = shutil.which("skopeo")
    source = os.path.join(folder, "model.safetensors")
    generator, hashed = random.Random(7), hashlib.sha256()
    with open(source, "wb") as file:
        for _ in range(options.mib):
            piece = generator.randbytes(CHUNK)
            hashed.update(piece)
            file.write(piece)
    blob, size = "sha256:" + hashed.hexdigest(), os.path.getsize(source)
    put_with_curl(registry, "bench/model", blob, source)
    empty = digest(EMPTY)
    config = os.path.join(folder, "config")
    with open(config, "wb") as file:
        file.write(EMPTY)
    put_with_curl(registry, "bench/model", empty, config)
    title = {"org.opencontainers.image.title": "model.safetensors", "org.cncf.model.filepath": "model.safetensors"}
    layer = {"mediaType": "application/vnd.cncf.model.weight.v1.raw", "digest": blob, "size": size, "annotations": title}
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.cncf.model.manifest.v1+json",
        "config": {"mediaType": "application/vnd.cncf.model.config.v1+json", "digest": empty, "size": len(EMPTY)},
        "layers": [layer],
    }).encode()
    registry.request("PUT", "/v2/bench/model/manifests/v1", manifest, {"Content-Type": MANIFEST})
    reference = f"{registry.address}/bench/model:v1"

    kept = os.path.join(folder, "kept")
    peak([mlxctl, "--home", kept, "pull", "--quiet", reference, "--as", "bench:v1"])
    layout = os.path.join(folder, "layout")
    if skopeo:
        peak([skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{reference}", f"oci:{layout}:v1"])

    counter = iter(range(1 << 30))
    fresh = lambda: os.path.join(folder, f"fresh-{next(counter)}")

    def pulled(command_of):
        def run():
            target = fresh()
            try:
                return peak(command_of(target))
            finally:
                shutil.rmtree(target, ignore_errors=True)
        return run

    def raw_get(get):
        def run():
            target = fresh()
            try:
                return timed(lambda: get(registry, "bench/model", blob, target)), 0
            finally:
                os.unlink(target)
        return run

    def forget():
        """Takes away what the last push stored, so that the next one sends its bytes again."""
        for below in ("blobs", "repositories"):
            path = os.path.join(folder, "data/docker/registry/v2", below)
            if below == "blobs":
                shutil.rmtree(os.path.join(path, "sha256"), ignore_errors=True)
            else:
                for repository in os.listdir(os.path.join(path, "push")) if os.path.isdir(os.path.join(path, "push")) else []:
                    shutil.rmtree(os.path.join(path, "push", repository), ignore_errors=True)

    def pushed(command_of):
        def run():
            forget()
            return peak(command_of(f"{registry.address}/push/{next(counter)}:v1"))
        return run

    def raw_put(put):
        def run():
            forget()
            return timed(lambda: put(registry, f"push/{next(counter)}", blob, source)), 0
        return run

    pulls = {
        "floor: curl | tee | sha256sum": raw_get(get_with_curl),
        "floor: Python": raw_get(get_with_python),
        "mlxctl": pulled(lambda target: [mlxctl, "--home", target, "pull", "--quiet", reference]),
    }
    pushes = {
        "floor: curl": raw_put(put_with_curl),
        "floor: Python": raw_put(put_with_python),
        "mlxctl": pushed(lambda target: [mlxctl, "--home", kept, "push", "--quiet", "bench:v1", target]),
    }
    if skopeo:
        copy = [skopeo, "--insecure-policy", "copy", "--quiet"]
        pulls["skopeo"] = pulled(lambda target: [*copy, "--src-tls-verify=false", f"docker://{reference}", f"dir:{target}"])
        pushes["skopeo"] = pushed(lambda target: [*copy, "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{target}"])
    if oras:
        pulls["oras"] = pulled(lambda target: [oras, "pull", "--plain-http", "-o", target, reference])
        pushes["oras"] = pushed(lambda target: [oras, "cp", "--from-oci-layout", "--to-plain-http", f"{layout}:v1", target])
    results = {}
    for kind, tools in (("pull", pulls), ("push", pushes)):
        tools = {name: run for name, run in tools.items() if options.only in name or name.startswith("floor")}
        for _ in range(options.rounds):
            for name, run in tools.items():
                seconds, memory = run()
                best = results.setdefault(kind, {}).setdefault(name, {"seconds": seconds, "memory": memory})
                best["seconds"], best["memory"] = min(best["seconds"], seconds), max(best["memory"], memory)
        floor = min(result["seconds"] for name, result in results[kind].items() if name.startswith("floor"))
        for result in results[kind].values():
            result["of_floor"] = floor / result["seconds"]
    return {"bytes": size, **results}


def report(results, options):
    print(f"{results['bytes'] / 2**30:.2f} GiB of random weights on loopback, the fastest of {options.rounds} rounds")
    for kind in ("pull", "push"):
        ours = results[kind].get("mlxctl", {}).get("seconds")
        print(f"\n{kind:31} seconds   GiB/s  of the floor  mlxctl is faster by   peak MB")
        for name, result in sorted(results[kind].items(), key=lambda pair: pair[1]["seconds"]):
            rate = results["bytes"] / 2**30 / result["seconds"]
            faster = f"{result['seconds'] / ours:.2f}" if ours else "-"
            memory = f"{result['memory'] / 1e6:.0f}" if result["memory"] else "-"
            print(f"{name:31} {result['seconds']:7.2f} {rate:7.2f} {result['of_floor']:13.2f} {faster:>20} {memory:>9}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
