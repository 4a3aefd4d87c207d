/** A socket, a peer connection and a microphone of our own: they keep what they were told and say what a test wants said. */

export class FakeSocket {
  static readonly OPEN = 1;
  static all: FakeSocket[] = [];
  readyState = 0;
  sent: Record<string, unknown>[] = [];
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: (() => void) | null = null;

  constructor(readonly url: URL) {
    FakeSocket.all.push(this);
  }
  static get last(): FakeSocket {
    return FakeSocket.all[FakeSocket.all.length - 1]!;
  }
  send(text: string): void {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }
  closedWith: number | undefined;
  close(code?: number): void {
    this.closedWith = code;
    this.readyState = 3;
    this.onclose?.();
  }
  accept(): void {
    this.readyState = 1;
    this.onopen?.();
  }
  say(frame: object): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
}

export class FakeSender {
  track: FakeTrack | null = null;
  replaceTrack(track: FakeTrack | null): Promise<void> {
    this.track = track;
    return Promise.resolve();
  }
}

export class FakePeer extends EventTarget {
  static all: FakePeer[] = [];
  connectionState = "new";
  signalingState = "stable";
  iceGatheringState = "complete";
  localDescription: { sdp: string } | null = null;
  onconnectionstatechange: (() => void) | null = null;
  ontrack: unknown = null;
  packets = 0;
  restarts = 0;
  readonly sender = new FakeSender();
  readonly directions: string[] = [];

  constructor(readonly configuration: RTCConfiguration) {
    super();
    FakePeer.all.push(this);
  }
  static get last(): FakePeer {
    return FakePeer.all[FakePeer.all.length - 1]!;
  }
  addTransceiver(what: string | FakeTrack, init: { direction: string }): void {
    this.directions.push(init.direction);
    if (typeof what !== "string") this.sender.track = what;
  }
  getTransceivers(): { sender: FakeSender }[] {
    return [{ sender: this.sender }];
  }
  getReceivers(): unknown[] {
    return [];
  }
  getStats(): Promise<Map<string, object>> {
    return Promise.resolve(new Map([["in", { type: "inbound-rtp", packetsReceived: this.packets }]]));
  }
  createOffer(options: { iceRestart?: boolean }): Promise<{ type: string; sdp: string }> {
    if (options.iceRestart) this.restarts++;
    return Promise.resolve({ type: "offer", sdp: `offer ${FakePeer.all.indexOf(this)}.${this.restarts}` });
  }
  setLocalDescription(description: { sdp: string }): Promise<void> {
    this.localDescription = description;
    this.signalingState = "have-local-offer";
    return Promise.resolve();
  }
  setRemoteDescription(): Promise<void> {
    this.signalingState = "stable";
    return Promise.resolve();
  }
  become(state: string): void {
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }
  close(): void {
    this.connectionState = "closed";
  }
}

export class FakeTrack extends EventTarget {
  enabled = true;
  readyState = "live";
  onended: (() => void) | null = null;
  stop(): void {
    this.readyState = "ended";
  }
}

/** An AudioContext whose analyser hears `peak`. */
export class FakeAudioContext {
  static peak = 0.2;
  state = "running";
  resume(): Promise<void> {
    return Promise.resolve();
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
  createMediaStreamSource(): { connect(): void } {
    return { connect: () => undefined };
  }
  createAnalyser(): { fftSize: number; getFloatTimeDomainData(samples: Float32Array): void } {
    return { fftSize: 0, getFloatTimeDomainData: (samples) => samples.fill(FakeAudioContext.peak) };
  }
}
