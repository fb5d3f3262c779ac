#!/usr/bin/env python3
"""Makes the tar archives of this folder with the tools that people use, and what Python's tarfile says is in them.

    python3 make.py        (needs GNU tar 1.34 or later and zstd)

NAME.tar.zst   by GNU tar (gnu, pax) or Python's tarfile (py_pax, py_ustar).  Contents repeat, so they compress to
               little.
NAME.tsv       the archive's length, then one line per member: first byte (of its extension headers), end of its data with padding, size, name in
               hex.
"""
import io
import os
import random
import subprocess
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
KIB = 1024


def body(rng, size):
    block = rng.randbytes(64)
    return (block * (size // 64 + 1))[:size]


def contents():
    """(name, bytes) of about 12 MiB: samples of a shard, names of every length, and one long member."""
    rng = random.Random(1)
    files = [("shard/%05d.%s" % (i // 2, ("json", "png")[i % 2]),
              body(rng, rng.randrange(300, 900) if i % 2 == 0 else rng.randrange(20, 250) * KIB + rng.randrange(512)))
             for i in range(70)]
    files += [
        ("empty", b""),
        ("exactly one block", body(rng, 512)),
        ("long/" + "n" * 99 + ".txt", body(rng, 1000)),
        ("long/" + "d" * 120 + "/" + "n" * 200 + ".txt", body(rng, 1000)),
        ("names/ä ö 雪.txt", body(rng, 70 * KIB)),
        ("weights.bin", body(rng, 5 * KIB * KIB + 77)),
        ("zz/after the long one", body(rng, 300 * KIB)),
    ]
    return files


def write_tree(root):
    for name, data in contents():
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
    os.symlink("shard/00000.json", os.path.join(root, "symbolic"))
    os.link(os.path.join(root, "shard/00000.png"), os.path.join(root, "zz/hard"))
    with open(os.path.join(root, "sparse"), "wb") as f:  # more holes than fit into one header
        for i in range(40):
            f.seek(i * 256 * KIB)
            f.write(b"x" * 4096)
        f.truncate(11 * KIB * KIB)


def gnu_tar(root, *options):
    return subprocess.run(["tar", "-c", "-f", "-", "--sort=name", "--mtime=2020-01-01 00:00:00Z", "--owner=0",
                           "--group=0", "--numeric-owner", "--mode=u=rw,go=r,a+X", *options, "-C", root, "."],
                          check=True, stdout=subprocess.PIPE).stdout


def python_tar(fmt):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as tar:
        for name, data in contents():
            if fmt == tarfile.USTAR_FORMAT and max(map(len, name.split("/"))) > 100:
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1577836800 if fmt == tarfile.USTAR_FORMAT else 1577836800.25
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type = tarfile.SYMTYPE
        link.linkname = "x" * 90
        tar.addfile(link)
    return out.getvalue()


def save(name, raw):
    packed = subprocess.run(["zstd", "-19", "--long=24", "-q", "-c"], input=raw, check=True,
                            stdout=subprocess.PIPE).stdout
    with open(os.path.join(HERE, name + ".tar.zst"), "wb") as f:
        f.write(packed)
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar, \
            open(os.path.join(HERE, name + ".tsv"), "w", encoding="ascii") as f:
        members = tar.getmembers()
        last = members[-1]
        blocks = (last.size + tarfile.BLOCKSIZE - 1) // tarfile.BLOCKSIZE if last.isreg() else 0
        ends = [m.offset for m in members[1:]] + [last.offset_data + blocks * tarfile.BLOCKSIZE]
        assert raw[ends[-1]:] == bytes(len(raw) - ends[-1])
        f.write("%d\n" % len(raw))
        for m, end in zip(members, ends):
            f.write("%d\t%d\t%d\t%s\n" % (m.offset, end, m.size, m.name.encode("utf-8", "surrogateescape").hex()))


def main():
    with tempfile.TemporaryDirectory() as root:
        write_tree(root)
        save("gnu", gnu_tar(root, "--format=gnu", "--sparse"))
        save("pax", gnu_tar(root, "--format=posix", "--sparse", "--pax-option=delete=atime,delete=ctime"))
    save("py_pax", python_tar(tarfile.PAX_FORMAT))
    save("py_ustar", python_tar(tarfile.USTAR_FORMAT))


main()
