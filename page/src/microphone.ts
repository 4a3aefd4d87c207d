/**
 * The microphone of this device. Asked for when the person first turns it on, never before; let go when the person
 * leaves the stage, so that the browser's recording light goes out.
 *
 * Owner of the track, the meter's AudioContext and its timer. `release` lets all go, harmless twice.
 */
import type { MicTrouble } from "./stage";

export interface MicrophoneDeps {
  /** Three seconds of digital silence, and its end. */
  silent(silent: boolean): void;
  /** The device went away by itself. */
  gone(): void;
}

/** Opening failed; `trouble` says what to tell the person. */
export class MicrophoneRefused extends Error {
  constructor(readonly trouble: MicTrouble) {
    super(trouble);
  }
}

const LOOK_EVERY = 100; // ms
const SILENT_AFTER = 3_000; // ms of samples that are all but zero: a hardware switch, or the wrong device
const DIGITAL_SILENCE = 1e-5; // full scale 1; below half a step of 16 bits: noise of any live microphone is above
const QUIET_DB = -60;

export class Microphone {
  /** 0 … 1, for the meter. Read it in an animation frame. */
  level = 0;
  private track: MediaStreamTrack | null = null;
  private context: AudioContext | null = null;
  private timer: ReturnType<typeof setInterval> | undefined;
  private loudAt = 0;
  private isSilent = false;
  private music = false;

  constructor(private readonly deps: MicrophoneDeps) {}

  /** The live track, enabled. Throws MicrophoneRefused. */
  async open(deviceId: string): Promise<MediaStreamTrack> {
    if (this.track?.readyState === "live") {
      this.track.enabled = true;
      this.listen(this.track);
      return this.track;
    }
    if (navigator.mediaDevices === undefined) throw new MicrophoneRefused("insecure");
    const track = await capture(deviceId, this.music);
    this.track = track;
    track.onended = () => {
      if (track !== this.track) return;
      this.release();
      this.deps.gone();
    };
    this.listen(track);
    return track;
  }

  /** For music: two channels and nothing filtered. True where an open track must be opened anew for it. */
  tune(music: boolean): boolean {
    const changed = music !== this.music;
    this.music = music;
    return changed && this.track !== null;
  }

  /** Off: nothing leaves this device. The track stays, so that turning on again is instant. */
  mute(): void {
    if (this.track !== null) this.track.enabled = false;
    this.stopListening();
  }

  release(): void {
    this.stopListening();
    this.track?.stop();
    this.track = null;
    void this.context?.close().catch(() => undefined);
    this.context = null;
  }

  private listen(track: MediaStreamTrack): void {
    this.stopListening();
    this.context ??= new AudioContext();
    void this.context.resume();
    const source = this.context.createMediaStreamSource(new MediaStream([track]));
    const analyser = this.context.createAnalyser();
    analyser.fftSize = 1024;
    source.connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    this.loudAt = Date.now();
    this.timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      this.measure(samples);
    }, LOOK_EVERY);
  }

  private measure(samples: Float32Array): void {
    let peak = 0;
    let sum = 0;
    for (const sample of samples) {
      peak = Math.max(peak, Math.abs(sample));
      sum += sample * sample;
    }
    const db = 10 * Math.log10(sum / samples.length + 1e-12);
    this.level = Math.min(1, Math.max(0, (db - QUIET_DB) / -QUIET_DB) * 1.25);
    // a context that the browser holds back tells nothing of the microphone
    if (peak > DIGITAL_SILENCE || this.context?.state !== "running") this.loudAt = Date.now();
    const silent = Date.now() - this.loudAt > SILENT_AFTER;
    if (silent !== this.isSilent) {
      this.isSilent = silent;
      this.deps.silent(silent);
    }
  }

  private stopListening(): void {
    clearInterval(this.timer);
    this.level = 0;
    if (this.isSilent) this.deps.silent(false);
    this.isSilent = false;
  }
}

async function capture(deviceId: string, music: boolean): Promise<MediaStreamTrack> {
  const filtered = { echoCancellation: !music, noiseSuppression: !music, autoGainControl: !music };
  const clean = music ? { ...filtered, channelCount: { ideal: 2 } } : filtered;
  const audio = deviceId === "" ? clean : { ...clean, deviceId: { ideal: deviceId } };
  try {
    const track = (await navigator.mediaDevices.getUserMedia({ audio })).getAudioTracks()[0];
    if (track === undefined) throw new MicrophoneRefused("missing");
    return track;
  } catch (error) {
    throw error instanceof MicrophoneRefused ? error : new MicrophoneRefused(troubleOf(error));
  }
}

function troubleOf(error: unknown): MicTrouble {
  switch (error instanceof DOMException ? error.name : "") {
    case "NotAllowedError":
    case "SecurityError":
      return "denied";
    case "NotReadableError":
    case "AbortError":
      return "busy";
    default:
      return "missing";
  }
}
