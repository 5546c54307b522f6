"""Verifies an exported ledger with nothing of DaemonEye's: hashes from hashlib, Ed25519 from cryptography.

Usage: verify_tiles.py DIRECTORY VKEY
"""
import base64
import hashlib
import os
import struct
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def root(leaves):
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\x01", root(leaves[:split]), root(leaves[split:]))


def part(directory, path, wanted):
    """A full tile or bundle, or the partial one."""
    full = os.path.join(directory, path)
    with open(full if wanted == 256 else f"{full}.p/{wanted}", "rb") as file:
        return file.read()


def name(index):
    text = f"{index % 1000:03}"
    while index >= 1000:
        index //= 1000
        text = f"x{index % 1000:03}/{text}"
    return text


directory, vkey = sys.argv[1:]
signer, key_id, key = vkey.split("+", 2)
key = base64.b64decode(key)
assert key[0] == 1 and sha(signer.encode(), b"\n", key)[:4].hex() == key_id, "the key's id"

with open(os.path.join(directory, "checkpoint"), encoding="utf-8") as file:
    text, signatures = file.read().rsplit("\n\n", 1)
dash, by, signature = signatures.rstrip("\n").split(" ")
signature = base64.b64decode(signature)
assert (dash, by, signature[:4].hex()) == ("\u2014", signer, key_id), "who signed"
Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], (text + "\n").encode())
origin, size, root_hash = text.split("\n")
assert origin == signer, "whose ledger"

leaves, size = [], int(size)
for bundle in range((size + 255) // 256):
    data = part(directory, f"tile/entries/{name(bundle)}", min(256, size - 256 * bundle))
    while data:
        (length,) = struct.unpack(">H", data[:2])
        leaves.append(sha(b"\x00", data[2 : 2 + length]))
        data = data[2 + length :]
assert len(leaves) == size, "how many entries"
assert root(leaves) == base64.b64decode(root_hash), "the root"

level, hashes = 0, leaves
while hashes:
    for tile in range((len(hashes) + 255) // 256):
        wanted = hashes[256 * tile : 256 * (tile + 1)]
        assert part(directory, f"tile/{level}/{name(tile)}", len(wanted)) == b"".join(wanted), f"tile {level}/{tile}"
    hashes = [root(hashes[at : at + 256]) for at in range(0, len(hashes) // 256 * 256, 256)]
    level += 1
print(f"verified {size} entries")
