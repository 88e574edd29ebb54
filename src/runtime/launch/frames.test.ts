import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { isKind } from '../../kit/errors.js';
import { FrameSplitter, PayloadReader, PayloadWriter, encodeFrame, frameTypes, okBit } from './frames.js';

/** Frames of version 1 as released: name to hexadecimal bytes. They never change; a newer version adds a file. */
const golden = JSON.parse(
  readFileSync(new URL('../../../test/golden/protocol/v1.json', import.meta.url), 'utf8'),
) as Record<string, string>;

const plan = Buffer.from('a plan');

const requests: Record<string, Buffer> = {
  hello: encodeFrame(frameTypes.hello, 1, new PayloadWriter().u32(1).string('berth').u32(1).parts),
  hold: encodeFrame(frameTypes.hold, 2, new PayloadWriter().plan(plan).parts),
  start: encodeFrame(
    frameTypes.start,
    3,
    new PayloadWriter().plan(plan).string('c1').string('/log').u32(16384).u8(7).string('/oom').string('/cgroup').parts,
  ),
  exec: encodeFrame(
    frameTypes.exec,
    4,
    new PayloadWriter().plan(plan).string('c1').u32(1000).u32(200).u64(16777216n).u8(4).u16(24).u16(80).parts,
  ),
  signal: encodeFrame(frameTypes.signal, 5, new PayloadWriter().string('c1').u32(15).u8(1).parts),
  reopenLog: encodeFrame(frameTypes.reopenLog, 6, new PayloadWriter().string('c1').parts),
  netlink: encodeFrame(frameTypes.netlink, 7, new PayloadWriter().u32(1).bytes(Buffer.from([1, 2, 3])).parts),
  state: encodeFrame(frameTypes.state, 8, []),
  forget: encodeFrame(frameTypes.forget, 9, new PayloadWriter().string('c1').parts),
  shutdown: encodeFrame(frameTypes.shutdown, 10, []),
  attach: encodeFrame(frameTypes.attach, 11, new PayloadWriter().string('c1').parts),
  input: encodeFrame(frameTypes.input, 12, new PayloadWriter().u32(0).bytes(Buffer.from('hi')).parts),
  closeInput: encodeFrame(frameTypes.closeInput, 13, new PayloadWriter().u32(0).parts),
  resize: encodeFrame(frameTypes.resize, 14, new PayloadWriter().u32(0).string('c1').u16(24).u16(80).parts),
  cancel: encodeFrame(frameTypes.cancel, 15, new PayloadWriter().u32(4).parts),
  dial: encodeFrame(frameTypes.dial, 16, new PayloadWriter().u16(8080).parts),
  startedEvent: encodeFrame(frameTypes.startedEvent, 4, new PayloadWriter().u32(77).parts),
  exitEvent: encodeFrame(
    frameTypes.exitEvent,
    0,
    new PayloadWriter().string('c1').u32(137).u8(1).u64(1700000000123456789n).parts,
  ),
  startAnswer: encodeFrame(
    frameTypes.start | okBit,
    3,
    new PayloadWriter().u32(77).u64(99n).u64(1700000000000000000n).u32(0).u32(2).u64(5n).u64(6n).parts,
  ),
  error: encodeFrame(frameTypes.error, 3, new PayloadWriter().u32(3).u32(4).u32(2).u32(1).string('what').parts),
};

describe('shim frames', () => {
  for (const [name, frame] of Object.entries(requests)) {
    it(`writes ${name} as version 1 has it`, () => assert.equal(frame.toString('hex'), golden[name]));
  }

  it('knows every golden frame', () => assert.deepEqual(Object.keys(golden).sort(), Object.keys(requests).sort()));

  it('cuts a stream into frames, however it arrives', () => {
    const stream = Buffer.concat(Object.values(requests));
    for (const size of [1, 2, 7, 64, stream.length]) {
      const splitter = new FrameSplitter();
      const frames = [];
      for (let at = 0; at < stream.length; at += size) frames.push(...splitter.push(stream.subarray(at, at + size)));
      const again = frames.map(({ type, id, payload }) => encodeFrame(type, id, [payload]).toString('hex'));
      assert.deepEqual(again, Object.values(golden));
    }
  });

  it('reads fields back and refuses to read past the end', () => {
    const bytes = Buffer.concat(new PayloadWriter().u8(1).u32(2).u64(3n).string('four').parts);
    const reader = new PayloadReader(bytes);
    assert.deepEqual([reader.u8(), reader.u32(), reader.u64(), reader.string()], [1, 2, 3n, 'four']);
    assert.throws(
      () => reader.u8(),
      (error) => isKind(error, 'corrupt'),
    );
    assert.throws(
      () => new PayloadReader(Buffer.from([9, 0, 0, 0, 1])).bytes(),
      (error) => isKind(error, 'corrupt'),
    );
  });

  it('refuses lengths no peer sends', () => {
    for (const length of [0, 7, 0x7fffffff]) {
      const header = Buffer.alloc(12);
      header.writeUInt32LE(length);
      assert.throws(
        () => new FrameSplitter().push(header),
        (error) => isKind(error, 'corrupt'),
      );
    }
  });
});
