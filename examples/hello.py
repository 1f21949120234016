"""The shortest useful program: a blocking call that does not block the event loop."""

import asyncio
import hashlib

import wsoffload


def digest(password: bytes) -> str:
    """Some tens of milliseconds of work, by intention."""
    return hashlib.scrypt(password, salt=b"example", n=2**14, r=8, p=1).hex()


async def main() -> None:
    first, second = await asyncio.gather(
        wsoffload.run(digest, b"correct horse"),
        wsoffload.run(digest, password=b"battery staple"),
    )
    print(first[:16], second[:16])


asyncio.run(main())
