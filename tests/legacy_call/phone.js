// A Matrix client that only calls, on matrix-js-sdk as Element Web has it. `window.phone` is what the test speaks to.
import { createClient, createNewMatrixCall } from "matrix-js-sdk";

let client, call;
const incoming = [];
const ended = [];

function watch(one) {
  call = one;
  one.on("hangup", () => ended.push(one.hangupReason));
  one.on("error", (error) => console.error(`call: ${error.code} ${error.message}`));
  one.on("feeds_changed", play);
  return one;
}

/** The stage as an element of this document, where the test's recorder looks. A new stream after each hold. */
function play() {
  const feed = call.remoteUsermediaFeed ?? call.getRemoteFeeds()[0];
  if (!feed) return;
  let sound = document.querySelector('[data-testid="sound"]');
  if (!sound) {
    sound = document.createElement("audio");
    sound.dataset.testid = "sound";
    document.body.append(sound);
  }
  if (sound.srcObject !== feed.stream) sound.srcObject = feed.stream;
  sound.play(); // Firefox keeps the stream over a hold, and its element has ended
}

window.phone = {
  ended,
  get incoming() {
    return { length: incoming.length };
  },
  async start({ homeserver, user, device, token }) {
    client = createClient({ baseUrl: homeserver, userId: user, deviceId: device, accessToken: token });
    client.on("Call.incoming", (one) => incoming.push(watch(one)));
    await client.startClient({ initialSyncLimit: 1 });
    await new Promise((done) => client.on("sync", (state) => state === "PREPARED" && done()));
    return true;
  },
  async call(room) {
    await watch(createNewMatrixCall(client, room)).placeVoiceCall();
    return true;
  },
  async answer() {
    await call.answer(true, false);
    return true;
  },
  decline: () => (call.reject(), true),
  hangup: () => (call.hangup("user_hangup", false), true),
  press: (key) => (call.sendDtmfDigit(key), true),
  mute: async (muted) => (await call.setMicrophoneMuted(muted), true),
  hold: (on) => (call.setRemoteOnHold(on), true),
  restart: () => (call.peerConn.restartIce(), true),
  get state() {
    return call?.state ?? "";
  },
  /** Changes with each ICE restart that was answered. */
  get ufrag() {
    return call?.peerConn?.currentRemoteDescription?.sdp.match(/a=ice-ufrag:(\S+)/)[1] ?? "";
  },
};
