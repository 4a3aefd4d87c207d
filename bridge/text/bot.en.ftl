# Sentences of the bot. Commands stand in `…`. Names come as people write them.

hello =
    Hello. I turn this room into a live audio stage. A moderator starts it:
    `{ $prefix }stage start <topic>` · `{ $prefix }help` tells the rest.
hello-needs-power =
    Hello. I turn this room into a live audio stage. First I need the power level of a moderator, so that roles can stand in the room: an administrator types `/op { $bot } 50`.
    Then: `{ $prefix }stage start <topic>`
hello-encrypted =
    Hello. This room is end-to-end encrypted: I cannot read commands here, and sound that a server mixes cannot be end-to-end encrypted. Please make an unencrypted room for the stage and invite me there.

help =
    For everyone
    `{ $prefix }link` – your personal link to listen, by direct message
    `{ $prefix }hand [note]` – raise your hand (or ✋ on the stage card) · `{ $prefix }lower` – lower it
    `{ $prefix }accept` / `{ $prefix }decline` – answer an invitation to the stage
    `{ $prefix }call` – listen by your client's call button (or 📞 on the stage card)
    `{ $prefix }link player` – an address for VLC, OBS, GStreamer and other players
    `{ $prefix }link revoke` – make your earlier links void
    For moderators
    `{ $prefix }stage start [topic]` · `end` · `status` · `topic <text>` · `sound voice|music|low` · `language en|fa`
    `{ $prefix }stage speaker|listener|moderator|mute|unmute|invite|ring|kick @user:server`
    `{ $prefix }hands` – who wants to speak

# Why not
not-in-room = You are not in this room (any more), so this is not possible.
not-permitted = The operator of this server does not let your account do that.
not-moderator = Only a moderator of this room may do that.
not-self = You cannot do that to yourself. To step down: `{ $prefix }stage listener` with your own id.
no-stage = No stage is live in this room.
already-live = A stage is live in this room already.
encrypted = This room is end-to-end encrypted. A stage's sound is mixed by the server, so please use an unencrypted room.
roles-open = I will not start here: too many people could hand out roles (level { $level }; removing a person needs { $kick }). An administrator sets `im.eyvan.role` to { $kick } or more in the room's power levels.
bot-needs-power = I need power level { $level } in this room first. An administrator types `/op { $bot } { $level }`.
call-encrypted = You tried to come to a stage by Element Call. Its room is end-to-end encrypted, and a stage's sound is mixed by the server, so that call cannot be made. The stage's page works; your link to it follows.
call-needs-power = People with Element Call cannot come to this stage yet: each of them writes `org.matrix.msc3401.call.member` into the room, and its power levels do not let them. An administrator sets that event to the level of everybody (0) in the room's power levels. Links work as ever.
other-bot = This stage is hosted by { $bot }; please ask there.
who = For whom? Give a full user id, such as `@ava:example.org`.
target-not-here = { $name } is not in this room.
target-higher = { $name } is at least as high as you in this room.
target-not-permitted = The operator of this server does not let { $name } speak.
stage-full = The stage is full: { $limit } people. Somebody must step down first.
no-hand = { $name } has no hand up.
hands-closed = Hands are closed at the moment.
on-stage-already = You are on the stage already.
no-invitation = There is no invitation for you to answer.
guests-closed = This stage is for members of the room. Join the room and ask the bot for a link with `{ $prefix }link`.
which-language = I speak English, `{ $prefix }stage language en`, and Persian, `{ $prefix }stage language fa`.
which-sound = How should it sound? `{ $prefix }stage sound voice`, `music` (stereo, 128 kbit/s, as it comes) or `low` (24 kbit/s).
left-out-full = So many people leave out different people here that no further mix can be made for you. Leave out one person only, or try later.
unknown-command = I do not know that command. `{ $prefix }help` lists them.
too-old = This came { $seconds } seconds late, so I did nothing. Please send it again if you still want it.

# Done
done-start = The stage is starting. Members get their link with `{ $prefix }link`.
done-end = The stage is ended.
done-topic = The topic is changed.
done-language = { $language ->
    [fa] From now on I speak Persian in this room.
   *[en] From now on I speak English in this room.
  }
done-sound = { $sound ->
    [music] The sound is for music: stereo, 128 kbit/s, as it comes. Speakers should wear headphones.
    [low] The sound saves data: 24 kbit/s.
   *[voice] The sound is for voices: one channel, everybody equally loud.
  }
done-bring-up = { $name } comes up to the stage, microphone off.
done-invite = { $name } is invited to the stage.
done-to-audience = { $name } is in the audience.
done-mute = { $name } is muted.
done-unmute = { $name } may speak again.
done-kick = { $name } is removed from the room.
done-make-moderator = { $name } is a moderator of this stage.
done-raise = Your hand is up.
done-lower = Your hand is down.
done-not-now = { $name } is at the end of the line.
done-accept = You are coming up to the stage, microphone off.
done-decline = All right, you stay in the audience.
done-revoke-links = Your earlier links open nothing any more.
status-none = No stage is live in this room.
status-live =
    Live: { $topic }
    On the stage: { $speakers }
    { $listeners ->
        [one] one listener
       *[other] { $listeners } listeners
    } · { $hands ->
        [one] one hand up
       *[other] { $hands } hands up
    }
hands-none = No hand is up.
hands-list =
    Hands up: { $count }
    { $list }
link-sent = { $name }, your personal link is in our direct chat.
link-refused = { $name }, I could not open a direct chat with you. Please allow messages from me and try `{ $prefix }link` again.
link-later = { $name }, the direct chat with you is not to be had now. Please try `{ $prefix }link` again in a moment.
link-intro = Your personal link to “{ $topic }”:
player-intro =
    To hear “{ $topic }” in a player
    VLC, ffplay, a browser: { $stream }
    WHEP (OBS, GStreamer): { $whep }
    Bearer token: { $token }
link-after = It is yours alone: whoever opens it is there in your name. `{ $prefix }link revoke` in the room makes it void.

# Told to one person
tell-invited = { $by } invites you to speak in “{ $topic }”. Type `{ $prefix }accept` or `{ $prefix }decline` in the room, or open your link.
tell-cut-not-written = “{ $topic }”: the homeserver refused to record your last cut. It holds for this stage all the same: the person is not heard.
tell-cut-not-kept = “{ $topic }”: your last cut acts, and is being recorded in the room, but our database does not answer: should we have to restart before it does, please look again.
tell-not-written = “{ $topic }”: the homeserver refused what you asked for, so nothing changed.
session-over = This session is over. Open your link again, or ask the bot for a new one with `{ $prefix }link`.
moved-from = This room was upgraded, and the stage went on in the new one: { $to }
moved-to = The stage “{ $topic }” goes on here. Your earlier link is void: `{ $prefix }link` brings a new one.
moved-not = This room was upgraded. The stage goes on in the old room; to have it here I need an invitation and power level { $level }.
join-failed = I was invited to { $to } and could not join it: no server of that room answered. Please invite me again in a few minutes.
encrypted-now = This room is end-to-end encrypted now: I can no longer read commands here. The stage goes on; its page and its state events still work.
stage-ended = The stage is over. Thank you for coming.

# The card
card-untitled = Stage
card-live = 🔴 Live: { $topic }
card-ended = The stage “{ $topic }” is over.
card-speakers =
    On the stage: { $names }{ $more ->
        [0] {""}
       *[other] {" "}and { $more } more
    }
card-audience =
    { $listeners ->
        [one] one listener
       *[other] { $listeners } listeners
    } · { $hands ->
        [0] no hand up
        [one] one hand up
       *[other] { $hands } hands up
    }
card-join = Listen: `{ $prefix }link` brings your personal link, 📞 a call in our chat. Speak: react with ✋, or `{ $prefix }hand`.
card-guest = As a guest, listening only: { $url }

# 1:1 calls. Keys can also be typed into the chat.
call-intro =
    To listen to “{ $topic }” by telephone: press the call button of this chat (a voice call). I answer at once.
    Keys during the call, or typed here: 1 hand · 2 microphone · 3 who listens · 0 help
call-sent = { $name }, press the call button in our direct chat: I answer.
call-refused = { $name }, I could not open a direct chat with you. Please allow messages from me and try `{ $prefix }call` again.
call-later = { $name }, the direct chat with you is not to be had now. Please try `{ $prefix }call` again in a moment.
done-call = Press the call button in our direct chat: I answer.
call-welcome = You are listening to “{ $topic }”; nobody hears you. 1 raises your hand · 3 who listens · 0 help
call-welcome-stage = You are on the stage of “{ $topic }” and are heard. 2 switches your microphone off · 0 help
call-help =
    Keys, or digits typed here
    1 – raise your hand, lower it again, or come up when you are invited
    2 – your microphone off or on, when you are on the stage
    3 – how many listen
    0 – this help
call-to-stage = You are on the stage, your microphone is off. 2 opens it.
call-to-audience = You are in the audience: nobody hears you any more.
call-muted = A moderator has muted you. You can speak again when a moderator allows it.
call-unmuted = You may speak again. Your microphone is off; 2 opens it.
call-invited = { $by } invites you to speak. 1 brings you up, microphone off.
call-hand-not-now = Not now: you are at the end of the line. Your hand stays up.
call-mic-on = Your microphone is on: everybody hears you. 2 switches it off.
call-mic-off = Your microphone is off. 2 opens it.
call-mic-audience = You are in the audience; nobody hears you. 1 raises your hand.
call-count =
    { $listeners ->
        [one] one listener
       *[other] { $listeners } listeners
    } · { $hands ->
        [0] no hand up
        [one] one hand up
       *[other] { $hands } hands up
    }
call-which =
    Which stage? Type its number here, then call again.
    { $list }
call-chosen = “{ $topic }”: press the call button now.
call-no-stage = No stage is live in a room that you are in, so there is nothing to hear.
call-unreadable = I could not read what your client sent for the call. Please try another client, or your personal link: `{ $prefix }link` in the room.
call-full = All places are taken at the moment. Please call again later.
call-unavailable = The stage cannot be reached at the moment. Please call again.
call-over-ended = The stage “{ $topic }” is over. Thank you for calling.
call-over-removed = Your call to “{ $topic }” is over: you are not in that room any more, or your access was made void.
call-over-restart = I have to restart. Please call again in a moment.
call-over-lost = The connection of your call was lost. Please call again.
call-somebody = A moderator

# The widget
widget-name = Live stage
confirm-first = Not yet: the bot has written to you in your direct chat. Answer its message { $code } there with 👍, then press again.
confirm-question = Somebody moderates “{ $topic }” in your name, by the widget in the room: code { $code }. Is this code on your own screen? Then answer this message with { $yes }. If it is not you, do nothing; nothing is done in your name then.
confirm-thanks = { $code }: confirmed. You can moderate by the widget now.
call-ringing = { $by } invites you to speak in “{ $topic }”. Answer the call to come up (your microphone stays off until you press 2), or decline it.
done-ring = I am calling { $name }.
ring-declined = { $name } declined the call, and with it the invitation.
ring-busy = { $name } is busy.
ring-no-answer = { $name } did not answer. The invitation stands.
ring-there = { $name } is connected already and sees the invitation.
ring-failed = { $name } could not be called. The invitation stands: `{ $prefix }accept`
