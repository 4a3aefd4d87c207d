"""Transactions from the homeserver (Matrix application service API v1.15, "Pushing events").

::

    PUT transactions/{txnId} → token → JSON → [one at a time: store, commit] → deliver in order → 200

A transaction is kept before it is answered and handed on in the order of the commits, so that neither a crash nor a
repeated or concurrent PUT loses, doubles or reorders an event. mautrix's handler is not used: it drops the rest after
an exception while answering 200, and runs events of one transaction at the same time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web

from bridge.errors import BadInput, shown
from bridge.ids import RoomId, parse_event, parse_room, parse_user
from bridge.live.ports import Clock, InboxRow, JsonObject, Store

log = logging.getLogger(__name__)

Deliver = Callable[[RoomId, InboxRow], None]
Wanted = Callable[[JsonObject], bool]
Handler = Callable[[web.Request], Awaitable[web.Response]]
MAX_BODY = 64 * 1024 * 1024  # bytes: 100 events of 64 KiB, and as much again for what a server adds
MAX_WAITING = 16  # transactions in hand at once; a homeserver sends one after the other
_NOT_AN_OBJECT = "im.eyvan.not_an_object"  # how an event that is no object is kept: under this one key


class _Answer(Exception):
    """A refusal: status, errcode and text in the form of the client-server API's standard error response."""

    def __init__(self, status: int, errcode: str, text: str) -> None:
        super().__init__(text)
        self.response = web.json_response({"errcode": errcode, "error": text}, status=status)


def check_event(event: JsonObject) -> RoomId:
    """The room of an event that has what every event must have. Raises BadInput naming the first bad field."""
    if _NOT_AN_OBJECT in event:
        raise BadInput("event", event[_NOT_AN_OBJECT], "an event is a JSON object")
    room = parse_room(event.get("room_id"))
    parse_event(event.get("event_id"))
    parse_user(event.get("sender"), "sender")
    kind = event.get("type")
    if not isinstance(kind, str) or not kind:
        raise BadInput("type", kind, "the type of an event is a text that is not empty")
    if not isinstance(event.get("content"), Mapping):
        raise BadInput("content", event.get("content"), "the content of an event is a JSON object")
    if not isinstance(event.get("state_key", ""), str):
        raise BadInput("state_key", event["state_key"], "a state key is a text")
    return room


class Incoming:
    """The homeserver's way in.

    ``wanted(event)`` is asked of each good event: what nobody reads is not kept, least of all what people say to each
    other. ``deliver(room, row)`` is called once for each new wanted event, in order, on the event loop; it only queues.
    Each transaction is worked on by a task of its own, which outlives its request (a homeserver that hangs up must not
    part the commit from the delivery) and is joined by ``close``. The lock makes the order of commits the order of
    deliveries. Counters are plain attributes, read by ``/metrics``.
    """

    def __init__(
        self,
        hs_token: str,
        store: Store,
        deliver: Deliver,
        clock: Clock,
        *,
        wanted: Wanted = lambda event: True,
        max_body: int = MAX_BODY,
    ) -> None:
        self._hs_token, self._store, self._deliver, self._clock = hs_token.encode(), store, deliver, clock
        self._wanted, self._max_body = wanted, max_body
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.last_transaction_ms: int | None = None
        """When the homeserver last reached us with a transaction that was kept, or known already."""
        self.last_ping_ms: int | None = None
        self.transactions = self.duplicates = self.events = self.malformed = self.refused = 0

    def routes(self) -> list[web.RouteDef]:
        """All of ``/_matrix/app/v1``, and the paths of servers older than Matrix v1.4."""
        answers: list[web.RouteDef] = []
        for prefix in ("/_matrix/app/v1", ""):
            answers += [
                web.put(prefix + "/transactions/{txn_id}", self._guarded(self._put_transaction)),
                web.get(prefix + "/users/{id}", self._guarded(self._unknown)),
                web.get(prefix + "/rooms/{alias}", self._guarded(self._unknown)),
            ]
        return [
            *answers,
            web.post("/_matrix/app/v1/ping", self._guarded(self._ping)),
            web.route("*", "/_matrix/app/{rest:.*}", self._unrecognized),
        ]

    async def replay(self) -> int:
        """Hand on what a crash left between commit and apply, oldest first. Call once, before the listener opens.

        Returns how many events were handed on."""
        async with self._one_at_a_time:
            return await self._hand_on(await self._store.unapplied())

    async def close(self) -> None:
        """Join the transactions in hand. Call after the listener is closed; harmless twice."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # Requests

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.Response:
            try:
                self._check_token(request)
                return await handler(request)
            except _Answer as answer:
                self.refused += 1
                log.warning("%s %s refused: %s", request.method, request.rel_url.raw_path, answer)
                return answer.response

        return guarded

    def _check_token(self, request: web.Request) -> None:
        """Header first; the query parameter is what servers before Matrix v1.4 send."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = request.query.get("access_token", "")
        if not token:
            raise _Answer(401, "M_MISSING_TOKEN", "send the hs_token of the registration as Authorization: Bearer")
        if not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._hs_token):
            raise _Answer(403, "M_FORBIDDEN", "this is not the hs_token of the registration")

    async def _put_transaction(self, request: web.Request) -> web.Response:
        if len(self._tasks) >= MAX_WAITING:
            raise _Answer(503, "M_LIMIT_EXCEEDED", f"{MAX_WAITING} transactions are in hand; try again")
        events = _events_of(await self._read(request))
        task = asyncio.create_task(self._keep_and_hand_on(request.match_info["txn_id"], events))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        try:
            await asyncio.shield(task)
        except Exception as error:
            # Whatever the store's trouble is, the homeserver keeps the transaction and sends it again.
            log.exception("transaction %s could not be kept", shown(request.match_info["txn_id"]))
            raise _Answer(503, "M_UNAVAILABLE", "the transaction could not be kept; send it again") from error
        return web.json_response({})

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told by the request that waits for it; here only marked as seen

    async def _read(self, request: web.Request) -> bytes:
        """The body, up to our own limit (aiohttp's is one for the whole application)."""
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > self._max_body:
                raise _Answer(413, "M_TOO_LARGE", f"the body has more than {self._max_body} bytes")
        return bytes(body)

    async def _ping(self, request: web.Request) -> web.Response:
        """The homeserver's half of an appservice ping (MSC2659)."""
        self.last_ping_ms = self._clock.now_ms()
        return web.json_response({})

    async def _unknown(self, request: web.Request) -> web.Response:
        """No user or alias is made on demand."""
        return web.json_response({"errcode": "M_NOT_FOUND", "error": "no such user or alias here"}, status=404)

    async def _unrecognized(self, request: web.Request) -> web.Response:
        return web.json_response({"errcode": "M_UNRECOGNIZED", "error": "no such endpoint"}, status=404)

    # Events

    async def _keep_and_hand_on(self, txn_id: str, events: Sequence[JsonObject]) -> None:
        async with self._one_at_a_time:
            now_ms = self._clock.now_ms()
            kept = [event for event in events if self._is_kept(event)]
            rows = await self._store.add_transaction(_name_of(txn_id, events), kept, now_ms)
            self.last_transaction_ms = now_ms
            self.transactions += 1
            if kept and not rows:
                self.duplicates += 1
            await self._hand_on(rows)

    def _is_kept(self, event: JsonObject) -> bool:
        """One that cannot be used is: it is told of, once, where the others are handed on."""
        try:
            check_event(event)
        except BadInput:
            return True
        return self._wanted(event)

    async def _hand_on(self, rows: Sequence[InboxRow]) -> int:
        skipped = [row.row for row in rows if not self._hand_on_one(row)]
        if skipped:
            try:
                await self._store.mark_applied(skipped)
            except Exception:
                # They stay unapplied: the next start looks at them again, and skips them again.
                log.exception("%d skipped events could not be marked", len(skipped))
        return len(rows) - len(skipped)

    def _hand_on_one(self, row: InboxRow) -> bool:
        event = row.event
        try:
            room = check_event(event)
        except BadInput as error:
            self.malformed += 1
            log.warning(
                "event skipped: room %s, event %s, field %s: %s",
                shown(event.get("room_id")),
                shown(event.get("event_id")),
                error.field,
                error,
            )
            return False
        try:
            self._deliver(room, row)
        except Exception:
            self.malformed += 1
            log.exception("event skipped: room %s, event %s: it could not be handed on", room, event["event_id"])
            return False
        self.events += 1
        return True


def _name_of(txn_id: str, events: Sequence[JsonObject]) -> str:
    """What a transaction is known by: its id *and* what it holds. Synapse counts again from 1 when it starts with no
    transaction left to send (``get_max_as_txn_id`` on an empty table): the same id with other events is a new one.
    A repeat has the same event ids; ``unsigned.age`` and the like may differ."""
    held = [event.get("event_id") or json.dumps(event, sort_keys=True) for event in events]
    return f"{txn_id}:{hashlib.sha256(json.dumps(held).encode()).hexdigest()[:32]}"


def _events_of(body: bytes) -> Sequence[JsonObject]:
    """The events of a transaction, each an object at least in form."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Answer(400, "M_NOT_JSON", f"the body is not JSON: {error}") from None
    events = content.get("events") if isinstance(content, dict) else None
    if not isinstance(events, list):
        raise _Answer(400, "M_BAD_JSON", f"events: {shown(events)} cannot be used; it must be a list of events")
    return [event if isinstance(event, dict) else {_NOT_AN_OBJECT: event} for event in events]
