import { expect, it } from "vitest";
import { lightOf, Lights } from "../src/lights";

const PEOPLE = [
  { user: "@a:x", csrc: [1], mic: "on" as const },
  { user: "@b:x", csrc: [2, 3], mic: "on" as const },
];

function run(lights: Lights, ms: number): void {
  for (let t = 0; t < ms; t += 20) lights.step(20, performance.now());
}

function lit(heard: () => ReadonlySet<number> | null = () => null): { lights: Lights; a: HTMLElement; b: HTMLElement } {
  const lights = new Lights(heard);
  const a = document.createElement("i");
  const b = document.createElement("i");
  lights.setPeople(PEOPLE);
  lights.attach("@a:x", a);
  lights.attach("@b:x", b);
  return { lights, a, b };
}

it("maps −dBov to light as designed", () => {
  expect([lightOf(0), lightOf(15), lightOf(37.5), lightOf(60), lightOf(127)]).toEqual([1, 1, 0.5, 0, 0]);
});

it("lights the one who talks, and only their node", () => {
  const { lights, a, b } = lit();
  lights.take({ "3": 20 });
  run(lights, 400);
  expect([...lights.talking.value]).toEqual(["@b:x"]);
  expect(Number(b.style.getPropertyValue("--level"))).toBeGreaterThan(0.7);
  expect(a.style.getPropertyValue("--level")).toBe("");
  lights.stop();
});

it("does not take a click for talking, and lets pauses be", () => {
  const { lights } = lit();
  lights.take({ "1": 20 });
  run(lights, 60);
  expect(lights.talking.value.size).toBe(0);
  run(lights, 400);
  expect(lights.talking.value.size).toBe(1);
  lights.take({});
  run(lights, 400);
  expect(lights.talking.value.size).toBe(1);
  run(lights, 1_600);
  expect(lights.talking.value.size).toBe(0);
  lights.stop();
});

it("follows the sound where the browser tells who is in it", () => {
  let heard = new Set([9]);
  const { lights } = lit(() => heard);
  lights.take({ "1": 10 });
  run(lights, 500);
  expect(lights.talking.value.size).toBe(0);
  heard = new Set([1]);
  run(lights, 500);
  expect([...lights.talking.value]).toEqual(["@a:x"]);
  lights.stop();
});

it("is dark at once, and stays so, when a moderator mutes", () => {
  const { lights, a } = lit();
  lights.take({ "1": 10 });
  run(lights, 500);
  lights.setPeople([{ ...PEOPLE[0]!, mic: "muted" }]);
  expect([lights.talking.value.size, a.style.getPropertyValue("--level")]).toEqual([0, "0.00"]);
  run(lights, 500);
  expect([lights.talking.value.size, a.style.getPropertyValue("--level")]).toEqual([0, "0.00"]);
  lights.stop();
});

it("forgets who has left the stage", () => {
  const { lights } = lit();
  lights.take({ "1": 10 });
  run(lights, 500);
  lights.setPeople([PEOPLE[1]!]);
  expect(lights.talking.value.size).toBe(0);
  lights.stop();
});
