"""The pool in a program without an event loop: it is an Executor."""

import hashlib
import itertools

import wsoffload


def key(number: int) -> str:
    """hashlib lets the GIL go while it works, so these calls run in parallel."""
    return hashlib.pbkdf2_hmac("sha256", b"secret", str(number).encode(), 20_000).hex()


with wsoffload.Pool(max_workers=4) as pool:
    # The numbers never end: with buffersize they are read only a little ahead of the results.
    keys = pool.map(key, itertools.count(1), buffersize=8)
    for number, result in zip(range(1, 6), keys, strict=False):
        print(number, result[:16])
