"""Measures workflows of eight empty steps on dbos: the cost of a durable engine without any work.

Arguments: URL of an empty database, workflows in flight, workflows per run, runs, sequential workflows.
Prints one JSON document.
"""

import asyncio
import json
import statistics
import sys
import time

from dbos import DBOS

STEPS = 8


@DBOS.step()
async def nothing() -> None:
    """A step: dbos records that it ran."""


@DBOS.workflow()
async def workflow() -> None:
    for _ in range(STEPS):
        await nothing()


async def many(count: int, in_flight: int) -> float:
    """Workflows per second."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await workflow()

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return count / (time.perf_counter() - started)


async def alone(count: int) -> list[float]:
    """Milliseconds of each of several sequential workflows."""
    took = []
    for _ in range(count):
        started = time.perf_counter()
        await workflow()
        took.append((time.perf_counter() - started) * 1e3)
    return took


async def measure(in_flight: int, count: int, runs: int, one_by_one: int) -> dict:
    await many(in_flight, in_flight)
    rates = [await many(count, in_flight) for _ in range(runs)]
    return {"rates": rates, "alone_p50_ms": statistics.median(await alone(one_by_one))}


def main() -> None:
    url, *numbers = sys.argv[1:]
    in_flight, count, runs, one_by_one = map(int, numbers)
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "sys_db_pool_size": in_flight,
            "log_level": "ERROR",
            "run_admin_server": False,
        }
    )
    DBOS.launch()
    found = asyncio.run(measure(in_flight, count, runs, one_by_one))
    DBOS.destroy()
    print(json.dumps(found))


main()
