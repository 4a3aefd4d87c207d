"""What the demo does when a process of it ends by itself: the bridge is started again, a homeserver ends the demo."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from bridge.demo.child import ChildEnded
from bridge.demo.local_bridge import LocalBridge
from bridge.demo.synapse import LocalSynapse
from bridge.errors import Unavailable

DEATHS, WITHIN_S = 5, 60.0


async def keep_bridge(bridge: LocalBridge, tell: Callable[[str], None], back: Callable[[], None]) -> NoReturn:
    """Start the bridge again each time it ends. ``tell`` gets a line for each end, ``back`` is called when it is ready.

    Raises Unavailable with the end of its log after five ends in a minute, or where a start hangs."""
    deaths: deque[float] = deque(maxlen=DEATHS)
    while True:
        pid, code = bridge.pid, await bridge.wait()
        what = f"the bridge (pid {pid}) ended with code {code}"
        while True:
            deaths.append(time.monotonic())
            if len(deaths) == DEATHS and deaths[-1] - deaths[0] < WITHIN_S:
                raise Unavailable(f"{what}, the {DEATHS}th end within {WITHIN_S:g} s; {bridge.log_tail()}")
            tell(f"{what}; starting it again")
            try:
                await bridge.start_again()
                break
            except ChildEnded as error:
                what = str(error).partition(";")[0]
        tell(f"the bridge is back (pid {bridge.pid})")
        back()


async def homeserver_end(synapse: LocalSynapse) -> NoReturn:
    """Raises Unavailable when that homeserver has ended by itself: the people of the demo have nowhere to be then."""
    pid, code = synapse.pid, await synapse.wait()
    raise Unavailable(
        f"the homeserver {synapse.server_name} (pid {pid}) ended with code {code}; stopped all; {synapse.log_tail()}"
    )
