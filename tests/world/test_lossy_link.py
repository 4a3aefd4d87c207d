"""A real Chromium listens over a link that loses one in ten packets, and makes up little of the sound (decisions 1.7).

Firefox takes no copies of packets; what in-band FEC gives it is measured by ``python -m bench.loss``.
"""

from __future__ import annotations

import pytest

from bridge.media.control import WorkerSettings
from tests.helpers.lossy import lossy_link
from tests.helpers.netns import require_root

LOST, CONCEALED = 10, 0.03
"""Percent, and a fraction. Copies leave what is lost twice in a row, 1 %; the rest is room for a busy machine. Without
copies more than what is lost is concealed."""


@pytest.mark.timeout(240)
async def test_ten_percent_loss_on_a_listeners_link() -> None:
    require_root()
    async with lossy_link("chromium", WorkerSettings()) as link:
        await link.lose(LOST)
        await link.until_copies()
        await link.listen(2)  # its buffer learns to wait for them
        for _ in range(3):  # a stall of the machine would be heard too
            found = await link.listen(12)
            if found.concealed <= CONCEALED:
                break
        assert 0.05 < found.lost < 0.16, "200 packets"
        assert found.concealed <= CONCEALED
        stats = await link.stats()
        assert stats.remote_loss > 0
        assert stats.rtt_s is not None
