/** Frames and netlink messages written by hand, and what else only these suites need. */
import { randomBytes, randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';

export const golden = JSON.parse(
  readFileSync(new URL('../../golden/protocol/v1.json', import.meta.url), 'utf8'),
) as Record<string, string>;

/** Whether a process of this number and name runs; a zombie does not. */
export function aliveAs(pid: number, name: string): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.includes(`(${name})`) && !stat.includes(') Z ');
  } catch {
    return false;
  }
}

export const badPlan = {
  containerId: 'bad',
  plan: Buffer.from('this is not a plan, whatever it says about itself'),
  logLineBytes: 0,
  stdin: false,
  stdinOnce: false,
  terminal: false,
  oomFile: '',
};

function frame(type: number, id: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt32LE(8 + payload.length, 0);
  header.writeUInt16LE(type, 4);
  header.writeUInt32LE(id, 8);
  return Buffer.concat([header, payload]);
}

const string = (text: string): Buffer => {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([length, bytes]);
};

export const rawHello = frame(1, 1, Buffer.concat([Buffer.from([1, 0, 0, 0]), string('raw'), Buffer.alloc(4)]));
export const rawAttach = (id: string): Buffer => frame(11, 2, string(id));

/** Golden frames with bytes changed or cut off, in any order, and sometimes bytes that are no frame at all. */
export function nonsense(): Buffer {
  if (randomInt(10) === 0) return randomBytes(200);
  const seeds = Object.entries(golden).filter(([name]) => name !== 'shutdown');
  return Buffer.concat(
    Array.from({ length: 20 }, () => {
      const bytes = Buffer.from(seeds[randomInt(seeds.length)]?.[1] ?? '', 'hex');
      for (let change = randomInt(4); change > 0 && bytes.length > 12; change--) {
        bytes[12 + randomInt(bytes.length - 12)] = randomInt(256);
      }
      const cut = bytes.subarray(
        0,
        randomInt(5) === 0 ? Math.min(bytes.length, 12 + randomInt(bytes.length)) : bytes.length,
      );
      cut.writeUInt32LE(cut.length - 4, 0);
      return cut;
    }),
  );
}

/** RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP. */
export const getLinks = ((): Buffer => {
  const message = Buffer.alloc(32);
  message.writeUInt32LE(32, 0);
  message.writeUInt16LE(18, 4);
  message.writeUInt16LE(0x301, 6);
  message.writeUInt32LE(1, 8);
  return message;
})();

/** IFLA_IFNAME of each RTM_NEWLINK. */
export function linkNames(answer: Buffer): string[] {
  const names: string[] = [];
  for (let at = 0; at + 16 <= answer.length;) {
    const length = answer.readUInt32LE(at);
    for (let attribute = at + 32; answer.readUInt16LE(at + 4) === 16 && attribute + 4 <= at + length;) {
      const size = answer.readUInt16LE(attribute);
      if (answer.readUInt16LE(attribute + 2) === 3)
        names.push(answer.toString('latin1', attribute + 4, attribute + size - 1));
      attribute += (size + 3) & ~3;
    }
    at += (length + 3) & ~3;
  }
  return names;
}
