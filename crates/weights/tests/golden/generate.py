"""Write the golden vectors that tests/golden.rs holds the quantiser and the casts to.

Run with a Python that has numpy and mlx 0.32.2, on x86-64: python generate.py. Rerunning gives the same files.
(Other processors make other NaN of an invalid operation; ours are those of x86-64 everywhere.)

weights.safetensors      the inputs: f32, f16 and bf16, [rows, 128], hard rows first, then random ones
affine.safetensors       mx.quantize and mx.dequantize of them on the CPU, every width and group size:
                         {dtype}.{bits}.{group}.{weight|scales|biases}, and .crc, CRC-32 of the dequantised bytes
                         of the rows whose scales and biases are finite
microscaling.safetensors mx.quantize and mx.dequantize in the modes mxfp4, mxfp8 and nvfp4 of the inputs and of further
                         rows, which are in it as {dtype}: {dtype}.{mode}.{weight|scales}, and .crc, CRC-32 of the
                         dequantised bytes of the rows in which no number is NaN
cast.safetensors         {from} inputs and {from}.{to}, mx.array.astype on the CPU
"""

import json
import struct
import zlib
from pathlib import Path

import mlx.core as mx
import numpy as np

HERE = Path(__file__).parent
COLUMNS = 128
MLX = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}
NAMES = {mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.uint32: "U32", mx.uint8: "U8"}


def raw(array):
    """The bytes of an array, whatever its type."""
    return np.array(mx.contiguous(array).view(mx.uint8)).tobytes()


def write(path, tensors):
    """A safetensors file with its header padded to eight bytes, tensors in the order given."""
    header, body = {}, b""
    for name, array in tensors.items():
        data = raw(array)
        header[name] = {
            "dtype": NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def rows():
    """Rows that break quantisers, then ordinary ones, as float64."""
    random = np.random.default_rng(20260801)
    ramp = np.arange(COLUMNS)

    def normal(scale=1.0):
        return random.standard_normal(COLUMNS) * scale

    spike = np.zeros(COLUMNS)
    spike[::32] = 3.0
    nan, infinite, minus, both = (normal() for _ in range(4))
    nan[5::64] = np.nan
    infinite[7::128] = np.inf
    minus[9::64] = -np.inf
    both[3::64], both[4::64] = np.inf, -np.inf
    hard = [
        np.zeros(COLUMNS),
        -np.zeros(COLUMNS),
        np.full(COLUMNS, 0.7),
        np.full(COLUMNS, -1.3),
        np.abs(normal()) + 0.5,  # positive alone, far from zero
        -np.abs(normal()) - 0.5,
        normal(1e-8),  # below the smallest step
        normal(3e-7),
        normal(1e-40),  # subnormal in f32 and bf16, zero in f16
        normal(6e-6),  # subnormal scales in f16
        (ramp % 16).astype(float),  # ties: codes of four bits half way
        (ramp % 31) / 2.0 - 7.5,
        np.where(ramp % 2 == 0, 1.0, -1.0),  # |min| equals |max|
        np.where(ramp % 3 == 0, 0.5, -0.5) + (ramp % 5) * 0.125,
        spike,
        -spike,
        normal(1e4),
        normal(2e4) + 3e4,  # near the largest f16
        normal(1e38),  # max − min overflows f32
        np.where(ramp % 2 == 0, 3e38, -3e38),
        nan,
        infinite,
        minus,
        both,
        np.full(COLUMNS, np.nan),
        np.full(COLUMNS, np.inf),
        np.full(COLUMNS, -np.inf),
    ]
    return np.stack(hard + [normal(10.0**-k) for k in range(4)])


def further_rows():
    """Rows that break microscaling: exponents outside a byte, invalid divisions, ties, quotients beyond 2^24."""
    random = np.random.default_rng(20260802)

    def normal(scale):
        return random.standard_normal(COLUMNS) * scale

    ramp = np.arange(COLUMNS)
    infinite = np.where(ramp % 3 == 0, 0.0, normal(1.0))
    infinite[1::32] = np.inf
    negative_nan = normal(1.0)
    negative_nan[2::64] = -np.nan
    ties = np.tile([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0], COLUMNS // 8)
    near = np.tile([0.2501, 0.7501, 1.2501, 1.7501, 2.501, 3.501, 5.001, 6.0], COLUMNS // 8)
    fine = np.tile(np.arange(32) / 1024 + 1.0, COLUMNS // 32)
    powers = [np.where(ramp % 16 == 0, 6.0, 1.0) * 2.0**k for k in (-140, -130, -20, -3, 0, 7)]
    return np.stack(
        [normal(s) for s in (1e-44, 1e-42, 1e-39, 1e-6, 1e-5, 3e-4, 1e3, 3e3, 1e6, 1e9, 1e10, 1e12)]
        + [infinite, negative_nan, ties, -ties, near, -near, ties / 3, fine, -fine * 448, *powers]
    )


def main():
    mx.set_default_device(mx.cpu)
    with np.errstate(over="ignore"):
        base = mx.array(rows().astype(np.float32))
    inputs = {name: base.astype(dtype) for name, dtype in MLX.items()}
    write(HERE / "weights.safetensors", inputs)

    affine = {}
    for name, matrix in inputs.items():
        for bits in (2, 3, 4, 5, 6, 8):
            for group in (32, 64, 128):
                weight, scales, biases = mx.quantize(matrix, group_size=group, bits=bits)
                plain = mx.dequantize(weight, scales, biases, group_size=group, bits=bits)
                key = f"{name}.{bits}.{group}"
                affine |= {f"{key}.weight": weight, f"{key}.scales": scales, f"{key}.biases": biases}
                finite = mx.all(mx.isfinite(scales) & mx.isfinite(biases), axis=1).tolist()
                kept = mx.array([i for i, is_finite in enumerate(finite) if is_finite])
                affine[f"{key}.crc"] = mx.array([zlib.crc32(raw(plain[kept]))], dtype=mx.uint32)
    write(HERE / "affine.safetensors", affine)

    with np.errstate(over="ignore"):
        base = mx.concatenate([base, mx.array(further_rows().astype(np.float32))])
    microscaling = {}
    for name, dtype in MLX.items():
        matrix = base.astype(dtype)
        microscaling[name] = matrix
        for mode in ("mxfp4", "mxfp8", "nvfp4"):
            weight, scales = mx.quantize(matrix, mode=mode)
            plain = mx.dequantize(weight, scales, mode=mode, dtype=dtype)
            key = f"{name}.{mode}"
            microscaling |= {f"{key}.weight": weight, f"{key}.scales": scales}
            sound = mx.logical_not(mx.any(mx.isnan(plain), axis=1)).tolist()
            kept = mx.array([i for i, is_sound in enumerate(sound) if is_sound])
            microscaling[f"{key}.crc"] = mx.array([zlib.crc32(raw(plain[kept]))], dtype=mx.uint32)
    write(HERE / "microscaling.safetensors", microscaling)

    random = np.random.default_rng(7)
    bits = random.integers(0, 2**32, 1500, dtype=np.uint64).astype(np.uint32)
    near_f16 = random.integers(0x32000000, 0x47900000, 1500, dtype=np.uint64).astype(np.uint32)
    edges = np.array(
        [0, 1 << 31, 1, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF]
        + [0x477FEFFF, 0x477FF000, 0x33000000, 0x33000001, 0x387FC000, 0x387FE000, 0x3F808000, 0x3F818000],
        dtype=np.uint32,
    )
    f32 = mx.array(np.concatenate([edges, bits, near_f16])).view(mx.float32)
    half = mx.array(np.arange(0, 65536, 37, dtype=np.uint16))
    cast = {}
    for name, array in {"F32": f32, "F16": half.view(mx.float16), "BF16": half.view(mx.bfloat16)}.items():
        cast[name] = array
        for target, dtype in MLX.items():
            if target != name:
                cast[f"{name}.{target}"] = array.astype(dtype)
    write(HERE / "cast.safetensors", cast)


if __name__ == "__main__":
    main()
