"""What mlx-lm 0.32.2 makes of the models that ../mlx_lm.rs converts too.

Reads a list of steps, as JSON, from stdin, and does them in order on the CPU:
{"convert": SOURCE, "to": FOLDER, "options": {…}}         mlx_lm.convert
{"adapter": SOURCE, "to": FOLDER, "keys": […]}            a random LoRA adapter of rank 4 for these modules
{"fuse": SOURCE, "adapter": FOLDER, "to": FOLDER}         mlx_lm.fuse
"""

import json
import sys
from pathlib import Path

import mlx.core as mx

mx.set_default_device(mx.cpu)

from mlx_lm import convert  # noqa: E402
from mlx_lm.fuse import main as fuse  # noqa: E402

RANK, SCALE = 4, 2.5


def make_adapter(source, target, keys):
    weights = {}
    for file in sorted(Path(source).glob("*.safetensors")):
        weights |= mx.load(str(file))
    config = json.loads((Path(source) / "config.json").read_text())
    mx.random.seed(3)
    factors = {}
    for name, weight in weights.items():
        module = name.removesuffix(".weight")
        if not any(module.endswith(key) for key in keys):
            continue
        rows, columns = weight.shape
        first, last = (rows, columns) if "embed" in module else (columns, rows)
        factors[f"{module}.lora_a"] = mx.random.normal((first, RANK)) * 0.1
        factors[f"{module}.lora_b"] = mx.random.normal((RANK, last)) * 0.1
    target = Path(target)
    target.mkdir()
    mx.save_safetensors(str(target / "adapters.safetensors"), factors)
    parameters = {"rank": RANK, "scale": SCALE, "dropout": 0.0, "keys": keys}
    described = {
        "fine_tune_type": "lora",
        "num_layers": config["num_hidden_layers"],
        "lora_parameters": parameters,
    }
    (target / "adapter_config.json").write_text(json.dumps(described))


for step in json.load(sys.stdin):
    if "convert" in step:
        convert(step["convert"], step["to"], **step["options"])
    elif "fuse" in step:
        paths = ["--model", step["fuse"], "--adapter-path", step["adapter"], "--save-path", step["to"]]
        sys.argv = ["fuse", *paths]
        fuse()
    else:
        make_adapter(step["adapter"], step["to"], step["keys"])
