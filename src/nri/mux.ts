import type { Duplex } from 'node:stream';
import { RuntimeError, messageOf } from '../kit/errors.js';

/**
 * Several logical connections over one: each piece of data goes in a frame of channel id and length, both 32 bits and
 * big-endian. Channels need no opening on the wire; both sides know their numbers.
 */
export interface Mux {
  /** Data of a channel nobody listens to is dropped. */
  channel(id: number, onData: (bytes: Buffer) => void): MuxChannel;
  /** Ends the connection with all its channels. */
  close(reason?: Error): void;
  /** Called once, when the connection has ended for whatever reason; at once when it has already. */
  onClose(listener: (reason: Error) => void): void;
}

export interface MuxChannel {
  send(bytes: Uint8Array): void;
}

/** Channel of the calls a runtime makes to its plugin. */
export const pluginChannel = 1;
/** Channel of the calls a plugin makes to its runtime. */
export const runtimeChannel = 2;

const headerBytes = 8;
/** A whole ttrpc message with its own header; nothing longer is ever in one frame. */
const maxPayloadBytes = 10 + 4 * 2 ** 20;
/** Bytes that may wait for a peer which does not read, before it is given up. */
const maxBacklogBytes = 64 * 2 ** 20;

export function openMux(trunk: Duplex): Mux {
  const channels = new Map<number, (bytes: Buffer) => void>();
  const listeners: ((reason: Error) => void)[] = [];
  let ended: Error | undefined;
  const close = (reason = new RuntimeError('unavailable', 'the connection was closed')): void => {
    if (ended !== undefined) return;
    ended = reason;
    trunk.destroy();
    for (const listener of listeners) listener(reason);
  };
  const frames = muxFrames((id, payload) => channels.get(id)?.(payload));
  trunk.on('data', (chunk: Buffer) => {
    try {
      frames(chunk);
    } catch (error) {
      close(new RuntimeError('unavailable', messageOf(error)));
    }
  });
  trunk.on('error', (error) => close(new RuntimeError('unavailable', messageOf(error), { cause: error })));
  trunk.on('close', () => close(new RuntimeError('unavailable', 'the other side closed the connection')));
  trunk.on('end', () => close(new RuntimeError('unavailable', 'the other side closed the connection')));

  const send = (id: number, bytes: Uint8Array): void => {
    if (ended !== undefined) throw ended;
    for (const frame of toMuxFrames(id, bytes)) trunk.write(frame);
    if (trunk.writableLength > maxBacklogBytes)
      close(new RuntimeError('unavailable', `the other side left more than ${maxBacklogBytes} bytes unread`));
  };
  return {
    channel(id, onData) {
      channels.set(id, onData);
      return { send: (bytes) => send(id, bytes) };
    },
    close,
    onClose(listener) {
      if (ended !== undefined) listener(ended);
      else listeners.push(listener);
    },
  };
}

/** The frames that carry `bytes`; one unless they are longer than a frame may be. */
export function toMuxFrames(id: number, bytes: Uint8Array): Buffer[] {
  const frames: Buffer[] = [];
  for (let start = 0; start < bytes.length; start += maxPayloadBytes) {
    const payload = bytes.subarray(start, start + maxPayloadBytes);
    const header = Buffer.allocUnsafe(headerBytes);
    header.writeUInt32BE(id, 0);
    header.writeUInt32BE(payload.length, 4);
    frames.push(header, Buffer.from(payload.buffer, payload.byteOffset, payload.length));
  }
  return frames;
}

/** Takes a stream in pieces and gives each frame's payload. Throws for a frame that is too long. */
export function muxFrames(onFrame: (id: number, payload: Buffer) => void): (chunk: Buffer) => void {
  return cutter(
    headerBytes,
    (header) => {
      const length = header.readUInt32BE(4);
      if (length > maxPayloadBytes)
        throw new Error(`a frame of ${length} bytes; at most ${maxPayloadBytes} are allowed`);
      return length;
    },
    (header, payload) => onFrame(header.readUInt32BE(0), payload),
  );
}

/**
 * Cuts a stream into messages of a header of `headerLength` bytes and a body whose length `bodyLength` reads from it.
 * Pieces are joined only when a message is complete, so that one that comes in many pieces costs no more.
 */
export function cutter(
  headerLength: number,
  bodyLength: (header: Buffer) => number,
  onMessage: (header: Buffer, body: Buffer) => void,
): (chunk: Buffer) => void {
  let pieces: Buffer[] = [];
  let held = 0;
  let needed = headerLength;
  return (chunk) => {
    pieces.push(chunk);
    held += chunk.length;
    while (held >= needed) {
      const bytes = pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces, held);
      const header = bytes.subarray(0, headerLength);
      const whole = headerLength + bodyLength(header);
      needed = whole;
      pieces = [bytes];
      if (held < whole) return;
      pieces = held === whole ? [] : [bytes.subarray(whole)];
      held -= whole;
      needed = headerLength;
      onMessage(header, bytes.subarray(headerLength, whole));
    }
  };
}
