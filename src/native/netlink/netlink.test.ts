import assert from 'node:assert/strict';
import { SyscallError } from '../../kit/errors.js';
import type { Library } from '../library.js';
import { decodeFlows, deleteFlow, dumpFlows } from './conntrack.js';
import { exchange } from './exchange.js';
import * as nftables from './nftables.js';
import * as rtnetlink from './rtnetlink.js';
import { openNetlink } from './socket.js';
import {
  acknowledgement,
  attribute,
  cstring,
  expectsAnswer,
  listAttributes,
  message,
  nested,
  numbered,
  parseAttributes,
  parseMessages,
  sequenceOf,
  u32,
} from './wire.js';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytes = (...parts: string[]): Uint8Array => Buffer.from(parts.join('').replaceAll(' ', ''), 'hex');

/** What the kernel answers: an errno, and with `text` its explanation. */
function answer(sequence: number, errno: number, text?: string): Uint8Array {
  const echoed = Buffer.alloc(16);
  const error = Buffer.alloc(4);
  error.writeInt32LE(-errno);
  const tlvs = text === undefined ? [] : [attribute(1, cstring(text))];
  const whole = Buffer.from(message(2, text === undefined ? 0x100 : 0x300, [error, echoed, ...tlvs]));
  whole.writeUInt32LE(sequence, 8);
  return whole;
}

describe('netlink wire format', () => {
  it('pads attributes and says their length without the padding', () => {
    assert.equal(hex(attribute(3, cstring('eth0'))), '09000300 65746830 00000000'.replaceAll(' ', ''));
  });

  it('marks attributes that hold attributes', () => {
    assert.equal(hex(nested(2, [attribute(1, u32(5))])), '0c000280 08000100 05000000'.replaceAll(' ', ''));
  });

  it('reads attributes back, of a list each one', () => {
    const list = Buffer.concat([attribute(1, Uint8Array.of(7)), attribute(1, u32(8)), nested(2, [])]);
    assert.deepEqual(
      listAttributes(list).map(([type, payload]) => [type, hex(payload)]),
      [
        [1, '07'],
        [1, '08000000'],
        [2, ''],
      ],
    );
    assert.equal(hex(parseAttributes(list).get(1) ?? new Uint8Array()), '08000000');
  });

  it('stops at the first attribute or message that is cut off', () => {
    const whole = attribute(1, u32(8));
    assert.equal(listAttributes(whole.subarray(0, 6)).length, 0);
    assert.equal(parseMessages(message(5, 0, [whole]).subarray(0, 20)).length, 0);
    assert.equal(listAttributes(bytes('0000 0100')).length, 0);
  });

  it('numbers copies and leaves the original alone', () => {
    const original = message(16, 4, []);
    const [first, second] = numbered([original, original], 41);
    assert.deepEqual(
      [first, second, original].map((one) => sequenceOf(one ?? original)),
      [41, 42, 0],
    );
  });

  it('knows which messages are answered', () => {
    assert.equal(expectsAnswer(message(16, 0x04, [])), true);
    assert.equal(expectsAnswer(message(18, 0x300, [])), true);
    assert.equal(expectsAnswer(message(16, 0x100, [])), false);
  });

  it('reads refusals with their explanation', () => {
    const [refusal] = parseMessages(answer(9, 22, 'Invalid prefix')).map(acknowledgement);
    assert.deepEqual(refusal, { sequence: 9, errno: 22, text: 'Invalid prefix' });
    const [success] = parseMessages(answer(9, 0)).map(acknowledgement);
    assert.deepEqual(success, { sequence: 9, errno: 0, text: '' });
  });
});

describe('rtnetlink messages', () => {
  const mac = Uint8Array.of(0x0a, 0x58, 10, 199, 0, 2);

  it('creates a bridge', () => {
    const expected = bytes(
      '4c000000 1000 0506 00000000 00000000',
      '00000000 00000000 01000000 01000000', // up
      '0800 0300 62723000', // br0
      '0a00 0100 0a580ac70002 0000',
      '0800 0400 dc050000', // 1500
      '1000 1280 0b00 0100 62726964676500 00', // bridge
    );
    assert.equal(hex(rtnetlink.newBridge('br0', mac, 1500)), hex(expected));
  });

  it('creates a veth pair with its far end in another namespace', () => {
    const pair = { name: 'vb0', masterIndex: 7, mtu: 1400, peer: { name: 'eth0', netnsFd: 9, mac } };
    const expected = bytes(
      '88000000 1000 0506 00000000 00000000',
      '00000000 00000000 01000000 01000000',
      '0800 0300 76623000', // vb0
      '0800 0400 78050000', // 1400
      '0800 0a00 07000000', // master 7
      '5000 1280 0900 0100 7665746800 000000', // veth
      '4000 0280 3c00 0180', // its peer
      '00000000 00000000 00000000 00000000',
      '0900 0300 6574683000 000000', // eth0
      '0800 0400 78050000',
      '0a00 0100 0a580ac70002 0000',
      '0800 1c00 09000000', // namespace descriptor 9
    );
    assert.equal(hex(rtnetlink.newVeth(pair)), hex(expected));
  });

  it('sets hairpin mode of a bridge port', () => {
    const expected = bytes(
      '44000000 1000 0500 00000000 00000000',
      '00000000 00000000 00000000 00000000',
      '0800 0300 76623000',
      '1c00 1280 0b00 0400 62726964676500 00 0c00 0580 0500 0400 01 000000',
    );
    assert.equal(hex(rtnetlink.setHairpin({ name: 'vb0' })), hex(expected));
  });

  it('adds an IPv4 address as iproute2 does', () => {
    const expected = bytes(
      '30000000 1400 0506 00000000 00000000',
      '02 10 00 00 40000000',
      '0800 0200 0ac70002 0800 0100 0ac70002 0800 0400 0ac7ffff',
    );
    assert.equal(hex(rtnetlink.newAddress(64, Uint8Array.of(10, 199, 0, 2), 16)), hex(expected));
  });

  it('adds an IPv6 address without duplicate detection', () => {
    const message = rtnetlink.newAddress(64, bytes('fd00000b000000000000000000000002'), 64);
    assert.equal(hex(message.subarray(16, 24)), '0a40020040000000');
    assert.equal(message.length, 16 + 8 + 2 * 20);
  });

  it('computes broadcast addresses for any prefix length', () => {
    const broadcast = (length: number): string =>
      hex(rtnetlink.newAddress(1, Uint8Array.of(10, 199, 64, 2), length)).slice(-8);
    assert.deepEqual([8, 18, 24, 30].map(broadcast), ['0affffff', '0ac77fff', '0ac740ff', '0ac74003']);
  });

  it('adds a default route', () => {
    const expected = bytes(
      '2c000000 1800 0506 00000000 00000000',
      '02 00 00 00 fe 04 00 01 00000000',
      '0800 0500 0ac70001 0800 0400 40000000',
    );
    assert.equal(hex(rtnetlink.newDefaultRoute(Uint8Array.of(10, 199, 0, 1), 64)), hex(expected));
  });

  it('reads links', () => {
    const parts = [
      bytes('0000 0000 05000000 01000000 00000000'),
      attribute(3, cstring('vb0')),
      attribute(5, u32(2)),
      attribute(10, u32(7)),
      attribute(4, u32(1400)),
      attribute(1, mac),
      nested(18, [attribute(1, cstring('veth'))]),
    ];
    const link = {
      index: 5,
      name: 'vb0',
      up: true,
      peer: 2,
      master: 7,
      kind: 'veth',
      mac: '0a:58:0a:c7:00:02',
      mtu: 1400,
    };
    assert.deepEqual(rtnetlink.decodeLinks([message(16, 0, parts), answer(1, 0)]), [link]);
  });
});

describe('nf_tables messages', () => {
  const at = { family: nftables.NFPROTO.ipv4, table: 'berth' };

  it('adds a table', () => {
    const expected = bytes(
      '28000000 000a 0504 00000000 00000000 02 00 0000',
      '0a00 0100 626572746800 0000',
      '0800 0200 00000000',
    );
    assert.equal(hex(nftables.newTable(at)), hex(expected));
  });

  it('adds a rule as a list of expressions', () => {
    const expected = bytes(
      '68000000 060a 050c 00000000 00000000 02 00 0000',
      '0a00 0100 626572746800 0000 0900 0200 706f737400 000000',
      '3c00 0480',
      '2400 0180 0900 0100 6d65746100 000000 1400 0280 0800 0200 00000007 0800 0100 00000001',
      '1400 0180 0900 0100 6d61737100 000000 0400 0280',
    );
    const rule = [nftables.meta(nftables.META.oifname, nftables.r1), nftables.masquerade()];
    assert.equal(hex(nftables.newRule(at, 'post', rule)), hex(expected));
  });

  it('adds an element to a map', () => {
    const expected = bytes(
      '54000000 0c0a 0504 00000000 00000000 02 00 0000',
      '0a00 0100 626572746800 0000 0a00 0200 706f72747300 0000',
      '2800 0380 2400 0180',
      '1000 0180 0c00 0100 06000000 1f900000',
      '1000 0280 0c00 0100 0ac70002 00500000',
    );
    const element = { key: bytes('06000000 1f900000'), data: bytes('0ac70002 00500000') };
    assert.equal(hex(nftables.addElements(at, 'ports', [element])), hex(expected));
  });

  it('frames batches without asking for answers to the frame', () => {
    assert.equal(hex(nftables.batchBegin()), '140000001000010000000000000000000000000a');
    assert.equal(hex(nftables.batchEnd()), '140000001100010000000000000000000000000a');
  });
});

describe('conntrack messages', () => {
  const tuple = Buffer.concat([
    nested(1, [attribute(1, Uint8Array.of(192, 0, 2, 9)), attribute(2, Uint8Array.of(192, 0, 2, 1))]),
    nested(2, [attribute(1, Uint8Array.of(17)), attribute(2, Uint8Array.of(1, 2)), attribute(3, bytes('14b4'))]),
  ]);

  it('asks for the flows to a port', () => {
    const expected = bytes(
      '40000000 0101 0103 00000000 00000000 02 00 0000',
      '1800 0180 1400 0280 0500 0100 11 000000 0600 0300 14b4 0000',
      '1400 1980 0800 0100 28000000 0800 0200 00000000',
    );
    assert.equal(hex(dumpFlows(2, 17, 5300)), hex(expected));
  });

  it('finds flows in the answer and names them as the kernel did', () => {
    const flows = decodeFlows([message(0x100, 0, [bytes('02000000'), nested(1, [tuple])]), answer(1, 0)]);
    assert.deepEqual(
      flows.map(({ protocol, destinationPort }) => [protocol, destinationPort]),
      [[17, 5300]],
    );
    assert.deepEqual(deleteFlow(2, flows[0]!), message(0x102, 4, [bytes('02000000'), nested(1, [tuple])]));
  });
});

describe('netlink exchange', () => {
  const step = (doing: string, tolerate?: string[]) => ({
    doing,
    message: message(16, 4, []),
    ...(tolerate === undefined ? {} : { tolerate }),
  });

  it('names the step that was refused, in the words of the kernel', async () => {
    const send = (messages: readonly Uint8Array[]) =>
      Promise.resolve(messages.map((one, index) => answer(sequenceOf(one), index === 1 ? 101 : 0, 'Nexthop invalid')));
    await assert.rejects(exchange(send, [step('first'), step('add route')]), (error) => {
      assert.ok(error instanceof SyscallError);
      assert.equal(error.message, 'netlink: add route (Nexthop invalid): ENETUNREACH');
      return true;
    });
  });

  it('lets tolerated refusals pass', async () => {
    const send = (messages: readonly Uint8Array[]) =>
      Promise.resolve(messages.map((one) => answer(sequenceOf(one), 17)));
    await exchange(send, [step('add', ['EEXIST'])]);
    await assert.rejects(exchange(send, [step('add')]), /EEXIST/);
  });

  it('ignores late answers to an earlier request', async () => {
    const send = (messages: readonly Uint8Array[]) => {
      const sequence = sequenceOf(messages[0] ?? new Uint8Array());
      return Promise.resolve([answer(sequence - 1, 22), answer(sequence, 0)]);
    };
    await exchange(send, [step('add')]);
  });
});

describe('netlink socket', () => {
  /** A kernel that answers each request with the datagrams of `script`, in order. */
  function fakeLibrary(script: Uint8Array[]): { library: Library; sent: Uint8Array[]; closed: () => number } {
    const sent: Uint8Array[] = [];
    let closed = 0;
    const now: Library['now'] = (name, _object, ...args) => {
      if (name === 'sendto') sent.push(args[1] as Uint8Array);
      if (name === 'close') closed++;
      if (name !== 'recv') return 3;
      const next = script.shift();
      if (next === undefined) throw new SyscallError('recv', 11, 'EAGAIN');
      (args[1] as Uint8Array).set(next);
      return next.length;
    };
    const later: Library['later'] = (name, object, ...args) => Promise.resolve(now(name, object, ...args));
    return { library: { now, later } as unknown as Library, sent, closed: () => closed };
  }

  it('receives until the last answer of the last message', async () => {
    const link = message(16, 2, [new Uint8Array(16)]);
    const done = Buffer.from(message(3, 2, [new Uint8Array(4)]));
    done.writeUInt32LE(8, 8);
    const { library, sent } = fakeLibrary([answer(7, 0), link, done]);
    const socket = openNetlink(0, library);
    const answers = await socket.send(numbered([message(16, 4, []), message(18, 0x300, [])], 7));
    assert.equal(answers.length, 3);
    assert.equal(sent.length, 1);
  });

  it('goes on after a request that failed, and closes once', async () => {
    const { library, closed } = fakeLibrary([]);
    const socket = openNetlink(0, library);
    await assert.rejects(socket.send([message(16, 4, [])]), /EAGAIN/);
    assert.deepEqual(await socket.send([message(16, 0, [])]), []);
    socket.close();
    socket.close();
    assert.equal(closed(), 1);
  });
});
