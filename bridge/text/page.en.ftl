# Every sentence of the page. Keys are those of page.fa.ftl; a test compares them.
# Say what is, what it means for the person, what they can do: short, no blame, no exclamation marks.

## Top
app-name = Eyvan
status-live = Live
status-scheduled = Coming
status-none = Not begun
status-ended = Ended
duration-moment = < 1 min
duration-minutes = { $minutes } min
duration-hours = { $hours } h { $minutes } min
duration-short = { $hours } h { $minutes } m
from-to = { $day }, { $start } to { $end }
listening = { $count } listening
more = More: sound, language, appearance
connection-dot-connecting = Connecting
connection-dot-lost = Not connected

## Stage
stage-label = Stage
hall-quiet = The hall is quiet. The host will be here soon.
hall-not-begun = The stage has not begun. This page will open it by itself.
role-host = Host
role-moderator = Moderator
role-speaker = Speaker
role-listener = Listener
you = You
mic-is-on = microphone on
mic-is-off = microphone off
mic-is-muted = muted by a moderator
is-talking = talking
coming-up = Coming up
not-here = Not here at the moment
audience = Audience
hands-are-up = { $hands ->
    [one] hand raised
   *[other] hands raised
  }
audience-tile = { $n ->
    [one] One tile is one listener
   *[other] One tile is { $n } listeners
  }
audience-empty = No listeners yet
talks = is talking
and-more = +{ $count }

## Dock
controls = Controls
leave = Leave
people = People
hands = Hands
desk = Desk
sound = Sound
device = Device
raise-hand = Raise hand
sending = Sending…
take-back = press to take it back
in-line = { $place ->
    [one] { $place }st in line
    [two] { $place }nd in line
    [few] { $place }rd in line
   *[other] { $place }th in line
  }
lower-hand = Lower hand
come-up = Come up
not-now = Not now
hands-closed = Hands are closed
hands-closed-why = for the moment
guest-listens = Listening
guest-how = how to speak
mic-on = Mic on
mic-off = Mic off
mic-asking = Asking the browser
mic-opening = Opening…
mic-silent = No sound
mic-silent-hint = check the mic
mic-muted = Muted
mic-muted-hint = by a moderator

## Sheets
close = Close
hand-title = Raise your hand
hand-note-label = What would you like to say? (optional; moderators see it)
hand-note-hint = A ghazal by Hafez, two minutes
hand-note-left = { $left } left
invited-title = { $name } invites you to speak
invited-text = Your microphone stays off until you turn it on.
door-title = Welcome. { $title } is on.
door-text = { $count ->
    [0] You only listen; no microphone is asked for.
    [one] One person is listening. You only listen; no microphone is asked for.
   *[other] { $count } people are listening. You only listen; no microphone is asked for.
  }
door-text-stage = You are on the stage. Your microphone stays off until you turn it on.
door-listen = Come in and listen
not-e2ee = The server mixes the sound, so it is not end-to-end encrypted.
guest-title = You are here as a guest
guest-text = You hear everything. To raise a hand, join the room in your Matrix app and write this there; the bot sends you a link of your own.
copy-command = Copy the command
copied = Copied

## People
people-title = People
people-search = Search by name
people-on-stage = On the stage
people-listening = Listening
people-none = Nobody by this name
people-not-shown = { $count ->
    [one] and 1 more listener
   *[other] and { $count } more listeners
  }
hand-is-up = hand raised
tab-people = People
tab-hands = Hands

## Hands
hands-title = Raised hands
hands-none = No raised hands
hands-none-text = They appear here, with a note if there is one, whichever app they come from.
bring-up = Bring up
later = Not now
bring-up-name = Bring { $name } up
not-now-name = Not now: { $name }
no-note = no note
waiting-for = waiting { $time }

## One person
person-invite = Invite to the stage
person-invite-hint = They choose whether to come
person-mute = Mute
person-mute-hint = Stays muted until you allow it again
person-unmute = Allow the microphone again
person-unmute-hint = They turn it on themselves
person-to-audience = Move to the audience
person-leave-out = Not for me
person-leave-out-hint = Only you stop hearing them; nobody else notices
person-hear-again = Hear them again
is-left-out = you do not hear them
person-make-moderator = Make a moderator
person-kick = Remove from the room
person-kick-hint = They can come back if the room lets them
person-nothing = This is what others see of { $name } here.
confirm-kick = Remove { $name } from the room?
confirm-kick-text = They stop hearing at once and leave the Matrix room. Others see who removed them.
confirm-end = End this stage?
confirm-end-text = { $count ->
    [0] The stage closes for all.
    [one] One listener and all speakers are disconnected.
   *[other] { $count } listeners and all speakers are disconnected.
  } It cannot be opened again.
end-stage = End the stage
end = End
cancel = Cancel
topic-title = Topic of the stage
topic-label = What is it about now?
topic-save = Save

## Settings
settings-title = Sound and page
desk-title = Desk
volume = Volume
stage-sound = Sound of the stage
sound-voice = Voices
sound-music = Music
sound-low = Save data
stage-sound-music = This stage sounds in stereo, for music.
stage-sound-low = This stage saves data.
microphone = Microphone
microphone-default = System default
microphone-hint = Names appear after its first use.
language = Language
appearance = Appearance
theme-light = Day
theme-dark = Night
sounds = Small sounds
sounds-hint = When you are invited, when your microphone opens or closes
single-keys = Single keys
single-keys-hint = M microphone, H hand
signed-in-as = You are here as { $user }
open-room = Open the room

## Notes
messages = Messages
connecting = Connecting…
connecting-text = Usually less than two seconds.
lost = Connection lost, trying again
lost-text = Your place and your raised hand are kept.
lost-text-mic = Your place is kept. The microphone comes back as you left it.
blocked = This network lets no live sound through
blocked-text = You still see the stage and can raise a hand. To hear it, try another network or mobile data.
copy-details = Copy details for the admin
back = Back again
back-text = { $seconds ->
    [one] You missed 1 second.
   *[other] You missed { $seconds } seconds.
  }
back-mic-off = Your microphone is off.
back-mic-on = Your microphone is on, as before.
full = The server is full for the moment
full-text = You will come in by yourself as soon as there is a place.
to-stage = You are on the stage
to-stage-text = Turn the microphone on when you are ready.
to-audience = You are in the audience again
to-audience-text = Thank you for speaking.
muted = A moderator muted you
muted-by = { $name } muted you
muted-text = Others do not hear you now. When it is opened again, only you can turn your microphone on.
ask-to-speak = Ask to speak
unmuted = You may speak again
unmuted-text = Your microphone is still off; turn it on when you are ready.
hand-not-now = A little later
hand-not-now-text = Your hand moved to the end of the line and stays raised.
invite-declined = The invitation was declined
invite-declined-by = { $name } does not want to come up now
invite-declined-text = They stay in the audience.
confirm = Answer the bot’s message { $code } with 👍
confirm-text = It stands in your direct chat: a widget is told by others who you are, so say once yourself that { $code } is on your screen. Then press again.
confirmed = Confirmed
confirmed-text = From now on you moderate here. Press again.
confirm-failed = The bot could not write to you
confirm-failed-text = It must ask you once in a direct chat before you can moderate here. Allow messages from it, then press again; or use your personal link.
not-written = The room did not take this
not-written-text = Nothing was changed. The bot has written to you why.
cut-not-written = Not written to the room yet
cut-not-written-text = The cut holds on this stage all the same. The bot has written to you why.
silent = Your microphone is on, but silent
silent-text = Nobody hears you. Is it muted on the headset, or is another one chosen?
choose-microphone = Choose microphone
trouble-denied = The browser does not allow the microphone
trouble-denied-text = Press the lock beside the address, allow the microphone, then try again.
trouble-missing = No microphone found
trouble-missing-text = Plug one in or choose another, then try again.
trouble-busy = The microphone is in use
trouble-busy-text = Another app holds it. Close that app, then try again.
trouble-gone = The microphone was unplugged
trouble-gone-text = Others do not hear you. Plug it in or choose another, then turn it on.
trouble-insecure = This page is not on a secure connection
trouble-insecure-text = Browsers give the microphone to https pages alone. Ask the admin to serve the page by https.
try-again = Try again
toast-no-answer = No answer from the server; nothing was changed
toast-muted = { $name } is muted
toast-unmuted = { $name } may speak again
toast-left-out = You do not hear { $name } any more
toast-to-audience = { $name } is in the audience
toast-invited = { $name } was invited
toast-brought-up = { $name } is coming up
toast-not-now = { $name } waits at the end of the line
toast-kicked = { $name } was removed
toast-moderator = { $name } is a moderator now
undo = Undo
invite-back = Invite back

## Spoken by screen readers
say-hand-up = Your hand is raised. { $where }
say-role = You are now: { $role }

## The farewell
thanks = Thank you for coming
lasted = Lasted
most-at-once = Most at once
were-on-stage = On the stage
closed-ended = The stage has ended
closed-ended-text = Thank you for coming.
closed-left = You have left
closed-left-text = The stage goes on, and lets you in again.
closed-removed = You were removed from this stage
closed-removed-text = A moderator did so. The room tells you more.
closed-left_room = You are not in this room
closed-left_room-text = Join the room in your Matrix app, then come back here.
closed-elsewhere = You are listening on another page
closed-elsewhere-text = This one is silent so that you do not hear everything twice.
closed-expired = This link is no longer valid
closed-expired-text = Personal links work for a limited time, and only while their stage is open. Write this in the room for a new one:
closed-over = This stage is over, or there is none here
closed-over-text = Ask in the room whether another one is open.
closed-altered = This link is not whole
closed-altered-text = A part of it was lost on the way. Open it from the bot’s message, or write this in the room for a new one:
closed-revoked = This link was revoked
closed-revoked-text = Write this in the room for a new one:
closed-devices = This link is open on three devices already
closed-devices-text = Write this in the room for a new link; the old devices stay connected.
closed-membership = You are not in this room
closed-membership-text = Join the room in your Matrix app, then write this there for a new link:
closed-unknown = This link does not open
closed-unknown-text = It may be for another stage. Write this in the room for a new one:
closed-identity = Your app did not say who you are
closed-identity-text = To come in, agree when your app asks whether this widget may know it.
closed-client = This page belongs inside a Matrix app
closed-client-text = Open the stage’s widget in the room, or write this there for a link of your own:
closed-guests = This stage needs a link of your own
closed-guests-text = Join the room in your Matrix app and write this there; the bot sends you the link:
come-in-again = Come in again
listen-here = Listen here
