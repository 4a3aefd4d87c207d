// A second, simpler call client: LiveKit's own library alone. `window.lk` is what the test speaks to.
import { Room, RoomEvent } from "livekit-client";

const room = new Room();
room.on(RoomEvent.TrackSubscribed, (track) => {
  const sound = track.attach();
  sound.dataset.testid = "sound";
  document.body.append(sound);
});

const told = (promise) => promise.then(() => "", (error) => String(error));

window.lk = {
  /** "" or what went wrong. */
  join: (url, token) => told(room.connect(url, token)),
  joinAsOlder: (url, token) => told(new Room({ singlePeerConnection: false }).connect(url, token)),
  microphone: (on) => told(room.localParticipant.setMicrophoneEnabled(on)),
  leave: () => told(room.disconnect()),
  state: () => room.state,
  maySpeak: () => Boolean(room.localParticipant.permissions?.canPublish),
  microphoneOn: () => room.localParticipant.isMicrophoneEnabled,
  plays: () => Boolean(document.querySelector('[data-testid="sound"]')),
  talking: () => room.activeSpeakers.map((each) => each.identity),
};
