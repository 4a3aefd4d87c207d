/** Sound, microphone, language, appearance; below, for moderators, topic and end. */
import { useEffect, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import type { StageInfo } from "../messages";
import {
  chooseLang,
  chooseMicrophone,
  chooseSingleKeys,
  chooseSounds,
  chooseTheme,
  chooseVolume,
  lang,
  microphone,
  singleKeys,
  sounds,
  theme,
  volume,
} from "../preferences";
import { t } from "../words";
import { useControls } from "./context";
import { canModerate } from "./dock";
import { Icon } from "./icon";
import type { IconName } from "./icon";
import { Sheet } from "./sheet";

export function SettingsSheet() {
  const { stage, desk, inClient } = useControls();
  const { me, stage: info } = stage.state.value;
  const can = me?.can ?? [];
  return (
    <Sheet title={t(canModerate(can) ? "desk-title" : "settings-title")} testid="settings-sheet" look="settings">
      {(can.includes("topic") || can.includes("end")) && (
        <div class="btns">
          {can.includes("topic") && (
            <button type="button" class="btn btn-line" onClick={() => desk.open({ kind: "topic" })} data-testid="topic-edit">
              <Icon name="pencil" />
              <span>{t("topic-title")}</span>
            </button>
          )}
          {can.includes("end") && <EndButton />}
        </div>
      )}
      {can.includes("sound") && info !== null && <SoundChoice now={info.sound} />}
      <Volume />
      {stage.standing.value !== "audience" && <MicrophoneChoice />}
      {!inClient && <Looks />}
      <Switch testid="sounds" label={t("sounds")} hint={t("sounds-hint")} on={sounds.value} onChoose={chooseSounds} />
      <Switch testid="single-keys" label={t("single-keys")} hint={t("single-keys-hint")} on={singleKeys.value} onChoose={chooseSingleKeys} />
      <p class="small mute-2 settings-foot">
        {me?.user != null && <span>{t("signed-in-as", { user: me.user })}</span>}
        <span>{t("not-e2ee")}</span>
        {info !== null && info.sound !== "voice" && <span data-testid="stage-sound">{t(info.sound === "music" ? "stage-sound-music" : "stage-sound-low")}</span>}
        {info !== null && <RoomLink room={info.room_id} />}
      </p>
    </Sheet>
  );
}

/** Language and appearance; a client's frame has the client's. */
function Looks() {
  return (
    <>
      <Choice label={t("language")} testid="lang" value={lang.value} onChoose={chooseLang} options={[{ value: "fa", label: "فارسی" }, { value: "en", label: "English" }]} />
      <Choice
        label={t("appearance")}
        testid="theme"
        value={theme.value}
        onChoose={chooseTheme}
        options={[
          { value: "light", label: t("theme-light"), icon: "sun" },
          { value: "dark", label: t("theme-dark"), icon: "moon" },
        ]}
      />
    </>
  );
}

export function EndButton() {
  const { desk } = useControls();
  return (
    <button type="button" class="btn btn-live" onClick={() => desk.open({ kind: "end" })} data-testid="end">
      {t("end-stage")}
    </button>
  );
}

/** A `matrix:` link (MSC2312): opens the room in the person's own client, and asks no third party. */
export function RoomLink({ room, look = "" }: { room: string; look?: string }) {
  if (useControls().inClient || !room.startsWith("!")) return null; // a client shows the room already
  return (
    <a class={look} href={`matrix:roomid/${encodeURIComponent(room.slice(1))}`} data-testid="open-room">
      {t("open-room")}
    </a>
  );
}

function Row({ label, hint, children }: { label: string; hint?: string; children: ComponentChildren }) {
  return (
    <div class="set">
      <span class="set-label">
        {label}
        {hint !== undefined && <small class="mute-2">{hint}</small>}
      </span>
      {children}
    </div>
  );
}

interface SwitchProps {
  label: string;
  hint: string;
  testid: string;
  on: boolean;
  onChoose(on: boolean): void;
}

function Switch({ label, hint, testid, on, onChoose }: SwitchProps) {
  return (
    <Row label={label} hint={hint}>
      <input
        type="checkbox"
        role="switch"
        class="switch"
        aria-label={label}
        checked={on}
        onChange={(event) => onChoose(event.currentTarget.checked)}
        data-testid={testid}
      />
    </Row>
  );
}

/** For all who listen; it shows as chosen once the room has it. */
function SoundChoice({ now }: { now: StageInfo["sound"] }) {
  const controls = useControls();
  return (
    <Choice
      label={t("stage-sound")}
      testid="stage-sound-choice"
      value={now}
      onChoose={(sound) => void controls.act("sound", null, sound)}
      options={[
        { value: "voice", label: t("sound-voice") },
        { value: "music", label: t("sound-music") },
        { value: "low", label: t("sound-low") },
      ]}
    />
  );
}

function Volume() {
  return (
    <Row label={t("volume")}>
      <input
        type="range"
        class="slider"
        min={0}
        max={1}
        step={0.01}
        aria-label={t("volume")}
        value={volume.value}
        style={{ "--v": `${Math.round(volume.value * 100)}%` }}
        onInput={(event) => chooseVolume(Number(event.currentTarget.value))}
        data-testid="volume"
      />
    </Row>
  );
}

/** Names come only once the browser has given a microphone. */
function MicrophoneChoice() {
  const controls = useControls();
  const [devices, setDevices] = useState<MediaDeviceInfo[]>([]);
  useEffect(() => {
    const media = navigator.mediaDevices;
    if (media === undefined) return;
    const read = (): void => {
      media.enumerateDevices().then(
        (all) => setDevices(all.filter((each) => each.kind === "audioinput" && each.label !== "" && each.deviceId !== "default")),
        () => setDevices([]),
      );
    };
    read();
    media.addEventListener("devicechange", read);
    return () => media.removeEventListener("devicechange", read);
  }, []);
  const choose = (id: string): void => {
    chooseMicrophone(id);
    void controls.changeMicrophone();
  };
  return (
    <Row label={t("microphone")} hint={devices.length === 0 ? t("microphone-hint") : undefined}>
      <span class="pick">
        <select
          class="field"
          aria-label={t("microphone")}
          value={devices.some((each) => each.deviceId === microphone.value) ? microphone.value : ""}
          onChange={(event) => choose(event.currentTarget.value)}
          data-testid="microphone"
        >
          <option value="">{t("microphone-default")}</option>
          {devices.map((each) => (
            <option key={each.deviceId} value={each.deviceId}>
              {each.label}
            </option>
          ))}
        </select>
        <Icon name="chevron-right" />
      </span>
    </Row>
  );
}

interface ChoiceProps<T extends string> {
  label: string;
  testid: string;
  value: T;
  options: { value: T; label: string; icon?: IconName }[];
  onChoose(value: T): void;
}

function Choice<T extends string>({ label, testid, value, options, onChoose }: ChoiceProps<T>) {
  return (
    <Row label={label}>
      <div class="tabs" role="radiogroup" aria-label={label}>
        {options.map((each) => (
          <button
            key={each.value}
            type="button"
            role="radio"
            aria-checked={each.value === value}
            onClick={() => onChoose(each.value)}
            data-testid={testid}
            data-value={each.value}
          >
            {each.icon !== undefined && <Icon name={each.icon} small />}
            <span>{each.label}</span>
          </button>
        ))}
      </div>
    </Row>
  );
}
