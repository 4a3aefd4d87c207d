"""What the demo shows: steps while it starts, then a panel; plain lines with ``--headless``."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.status import Status
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Facts:
    """All that there is to know of a running demo; ``report`` is the content of ``--json FILE``."""

    homeserver: str
    room_id: str
    stage: str
    web: str
    media_port: int
    users: tuple[Mapping[str, Any], ...]
    pids: Mapping[str, int | None]
    spoken: bool
    address: str
    partner: str | None = None  # URL of the other homeserver

    @property
    def guest_link(self) -> str:
        return f"{self.web}/s/{self.stage}"

    def report(self) -> str:
        partner = {"partner": self.partner} if self.partner else {}
        return json.dumps(
            {
                "homeserver": self.homeserver,
                "room_id": self.room_id,
                "stage": self.stage,
                "web": self.web,
                "whep": f"{self.web}/whep/{self.stage}",
                "media_port": self.media_port,
                "users": [dict(user) for user in self.users],
                "pids": dict(self.pids),
                **partner,
            },
            indent=1,
            ensure_ascii=False,
        )

    def user(self, part: str) -> Mapping[str, Any]:
        """The first user with that part."""
        return next(user for user in self.users if user["role"] == part)

    def curl(self) -> str:
        """The line that puts the listener on air, by a moderator's own token: the partner's where there is one."""
        room, user = quote(self.room_id, safe=""), quote(f"_{self.user('listener')['mxid']}", safe="")
        url = f"{self.partner or self.homeserver}/_matrix/client/v3/rooms/{room}/state/im.eyvan.role/{user}"
        moderators = [user for user in self.users if user["role"] == "moderator"]
        token = moderators[-1 if self.partner else 0]["access_token"]
        words = ("curl", "-sSX", "PUT", "-H", f"Authorization: Bearer {token}", "-d", '{"role": "speaker"}', url)
        return " ".join(shlex.quote(word) for word in words)


class Show:
    """The screen: ``step`` frames a piece of the start-up, ``ready`` shows the facts, ``line`` tells of the play."""

    def __init__(self, headless: bool) -> None:
        self.headless = headless
        self._console = Console(soft_wrap=False, highlight=False)
        self._status: Status | None = None

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        if self.headless:
            self.plain(f"{what} …")
        else:
            self._spin(what)
        self._what = what
        try:
            yield
        finally:
            self._rest()
        took = f"{time.monotonic() - began:.1f} s"
        if self.headless:
            self.plain(f"{what}: done in {took}")
        else:
            self._console.print(Text.assemble(("✓ ", "green"), what, (f"  {took}", "dim")))

    def doing(self, detail: str) -> None:
        """What the present step is at."""
        if self.headless:
            self.plain(f"  {detail}")
        elif self._status is not None:
            self._status.update(f"{self._what}: {detail}")

    def line(self, text: str) -> None:
        """What happens on the stage now. Headless says nothing: that would fill a log for ever."""
        if not self.headless:
            self._rest()
            self._spin(f"on stage · {text}")

    def news(self, text: str) -> None:
        """What has happened to the demo itself, between the lines of the play."""
        if self.headless:
            self.plain(text)
        else:
            self._rest()
            self._console.print(Text(text, "yellow"))

    def plain(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None:
        self._rest()

    def ready(self, facts: Facts) -> None:
        self._rest()
        if self.headless:
            self._ready_plainly(facts)
            return
        self._console.print()
        self._console.print(_panel(facts))
        self._console.print("[bold]Open one in a browser[/]  [dim](listener and guest hear the stage at once)[/]")
        for who, link in _links(facts):
            self._console.print(Text.assemble((f"  {who:<22}", "cyan"), link), soft_wrap=True)
        self._console.print(f"\n[bold]Put the listener on air[/]  [dim]({_who_may(facts)})[/]")
        self._console.print(Text(f"  {facts.curl()}"), soft_wrap=True)
        self._console.print("\n[dim]Ctrl-C stops everything.[/]\n")

    def _ready_plainly(self, facts: Facts) -> None:
        self.plain(f"ready: homeserver {facts.homeserver}, page {facts.web}, sound UDP {facts.media_port}")
        for who, link in _links(facts):
            self.plain(f"{who}: {link}")
        self.plain(facts.curl())

    def _spin(self, text: str) -> None:
        self._status = self._console.status(Text(text))
        self._status.start()

    def _rest(self) -> None:
        status, self._status = self._status, None
        if status is not None:
            status.stop()


def _who_may(facts: Facts) -> str:
    return "from the other homeserver" if facts.partner else "any client or script with the power may"


def _links(facts: Facts) -> list[tuple[str, str]]:
    people = [(f"{part} ({facts.user(part)['name']})", facts.user(part)["link"]) for part in ("moderator", "listener")]
    return [*people, ("guest", facts.guest_link)]


def _panel(facts: Facts) -> Panel:
    running = Table.grid(padding=(0, 2))
    running.add_row("[bold]Homeserver[/]", facts.homeserver, f"[dim]Synapse, pid {facts.pids['homeserver']}[/]")
    if facts.partner:
        running.add_row("[bold]Partner[/]", facts.partner, f"[dim]Synapse, pid {facts.pids['partner']}[/]")
    running.add_row("[bold]Page[/]", facts.web, f"[dim]bridge, pid {facts.pids['bridge']}[/]")
    running.add_row("[bold]Sound[/]", f"UDP {facts.media_port}", f"[dim]at {facts.address}[/]")
    running.add_row("[bold]Room[/]", facts.room_id)
    logins = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Sign in with any Matrix client", title_justify="left")
    for column in ("who", "part", "user", "password"):
        logins.add_column(column)
    for user in facts.users:
        logins.add_row(user["name"], user["role"], user["mxid"], user["password"])
    parts: list[Table | Text] = [running, Text(), logins]
    if not facts.spoken:
        parts.append(Text("espeak-ng is not installed, so strings play instead of voices: apt install espeak-ng"))
    return Panel(Group(*parts), title="[bold]Eyvan · ایوان[/]", border_style="green", expand=False, padding=(1, 2))
