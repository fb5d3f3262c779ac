#!/usr/bin/env python3
"""Makes the small safetensors files of this folder, and what the Python package says is in them.

    pip install safetensors==0.8.0 numpy && python3 make.py

NAME.safetensors   written by the package
NAME.tsv           one line per tensor, sorted by name: dtype, shape, first byte in the file, bytes, name (in hex, since
                   names may hold anything).  Names, dtypes and shapes are the package's answers; offsets are found by
                   looking for the tensor's bytes, which differ between tensors, so nothing here parses a header.
"""
import os

import numpy as np
from safetensors import TensorSpec, safe_open, serialize
from safetensors.numpy import save

HERE = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(1)


def noise(n):
    return rng.integers(1, 256, n, dtype=np.uint8).tobytes()


def numpy_types():
    shapes = {"BOOL": (5,), "U8": (3, 4), "I8": (7,), "U16": (2, 2), "I16": (9,), "F16": (3, 3), "U32": (5,),
              "I32": (2, 1, 2), "F32": (4, 4), "U64": (3,), "I64": (2, 2), "F64": (3, 2), "C64": (2, 2)}
    names = {"BOOL": "bool", "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64"}
    tensors = {}
    for name, shape in shapes.items():
        dtype = np.dtype(names.get(name, name.replace("U", "uint").replace("I", "int")))
        data = noise(int(np.prod(shape)) * dtype.itemsize)
        if name == "BOOL":
            data = bytes(b & 1 for b in data)
        tensors["layer." + name.lower()] = np.frombuffer(data, dtype=dtype).reshape(shape)
    return save(tensors, metadata={"format": "np", "note": "all of numpy's"})


keep = []  # the package takes addresses, so the buffers must live


def spec(dtype, shape, size):
    data = np.frombuffer(noise(size), dtype=np.uint8)
    keep.append(data)
    return TensorSpec(dtype=dtype, shape=shape, data_ptr=data.ctypes.data, data_len=size)


def model_types():
    return serialize({
        "model.layers.0.weight": spec("bfloat16", [8, 6], 96),
        "model.layers.0.scale": spec("float8_e8m0fnu", [6], 6),
        "model.layers.0.a": spec("float8_e4m3fn", [3, 5], 15),
        "model.layers.0.b": spec("float8_e5m2", [1, 1, 7], 7),
        "model.embed": spec("bfloat16", [11, 3], 66),
    })


def odd_names():
    names = ["", " ", "ä ö ü", "雪", "😀", 'quote " and \\ and /', "tab\tnewline\n", "\x01\x1f\x7f", "a" * 300,
             "__metadata", "{\"dtype\":1}", "\u2028\ufeff\uffff"]
    return save({name: np.frombuffer(noise(24), dtype=np.float32).reshape(2, 3) for name in names},
                metadata={"": "", "é\"\\\n": "😀"})


def edges():
    return save({
        "scalar": np.array(1.5, dtype=np.float32),
        "empty": np.zeros((0,), dtype=np.float32),
        "empty too": np.zeros((4, 0, 3), dtype=np.int64),
        "one": np.frombuffer(noise(2), dtype=np.float16),
        "many dimensions": np.frombuffer(noise(32), dtype=np.uint8).reshape((1, 2) * 5),
    })


def nothing():
    return save({}, metadata={"only": "metadata"})


def listing(path, raw):
    rows = []
    with safe_open(path, "np") as f:
        for name in f.keys():
            part = f.get_slice(name)
            rows.append([part.get_dtype(), part.get_shape(), name])
    from safetensors import deserialize
    data = {name: bytes(info["data"]) for name, info in deserialize(raw)}
    header_end = 8 + int.from_bytes(raw[:8], "little")
    lines, at = [], header_end
    for dtype, shape, name in rows:
        body = data[name]
        if body:
            at = raw.index(body, header_end)
            assert raw.find(body, at + 1) < 0 or len(body) < 4
        lines.append((at if body else None, len(body), name, dtype, shape))
    return lines, header_end, len(raw)


def main():
    for make in (numpy_types, model_types, odd_names, edges, nothing):
        name = make.__name__
        path = os.path.join(HERE, name + ".safetensors")
        raw = bytes(make())
        with open(path, "wb") as f:
            f.write(raw)
        lines, header_end, end = listing(path, raw)
        with open(os.path.join(HERE, name + ".tsv"), "w", encoding="ascii") as f:
            # Empty tensors have no bytes to look for: the test takes any offset for "-".
            for at, size, tensor, dtype, shape in sorted(lines, key=lambda r: r[2]):
                f.write("\t".join([dtype, ",".join(map(str, shape)), "-" if at is None else str(at), str(size),
                                   tensor.encode().hex()]) + "\n")


main()
