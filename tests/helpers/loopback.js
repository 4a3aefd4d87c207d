// The microphone, with the processing that pages ask for, through two peer connections into the audio element.
async function call() {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  });
  const [here, there] = [new RTCPeerConnection({ iceServers: [] }), new RTCPeerConnection({ iceServers: [] })];
  here.onicecandidate = (event) => there.addIceCandidate(event.candidate ?? undefined);
  there.onicecandidate = (event) => here.addIceCandidate(event.candidate ?? undefined);
  there.ontrack = (event) => (document.querySelector("audio").srcObject = new MediaStream([event.track]));
  here.addTrack(stream.getAudioTracks()[0], stream);
  await here.setLocalDescription(await here.createOffer());
  await there.setRemoteDescription(here.localDescription);
  await there.setLocalDescription(await there.createAnswer());
  await here.setRemoteDescription(there.localDescription);
  there.onconnectionstatechange = () => (document.querySelector("p").textContent = there.connectionState);
}
document.querySelector("button").onclick = () => console.log("clicked");
call().catch((error) => (document.querySelector("p").textContent = String(error)));
