"""What uses the event loop's default executor uses wsoffload's threads instead."""

import asyncio
import socket
import threading

import wsoffload


async def main() -> None:
    # A pool of this loop's own: asyncio.run() shuts it down at the end.
    loop = asyncio.get_running_loop()
    pool = wsoffload.Pool(thread_name_prefix="default")
    loop.set_default_executor(pool)

    thread = await asyncio.to_thread(threading.current_thread)
    print("to_thread runs on", thread.name)

    await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    print("getaddrinfo too:", pool.stats().accepted, "calls so far")


asyncio.run(main())
