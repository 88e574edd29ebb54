import type { Duplex, Writable } from 'node:stream';
import { messageOf } from '../../kit/errors.js';

/** Connects to a port of the pod that a session is about. */
export type DialPort = (port: number) => Promise<Duplex>;

/** Port numbers as they come in headers and queries; undefined for what is none. */
export function readPort(text: string | undefined): number | undefined {
  const port = /^\d{1,5}$/.test(text ?? '') ? Number(text) : 0;
  return port > 0 && port <= 65_535 ? port : undefined;
}

/** Carries one forwarded connection; failures to connect are told in `errors`, which ends with it. */
export async function forwardPort(port: number, data: Duplex, errors: Writable, dial: DialPort): Promise<void> {
  try {
    const socket = await dial(port);
    if (data.destroyed) socket.destroy();
    else await join(data, socket);
  } catch (error) {
    if (errors.writable) errors.write(`error forwarding port ${port} to pod: ${messageOf(error)}`);
    data.end();
    data.resume();
  }
  errors.end();
}

/** Bytes both ways, each end of sending passed on; when one side breaks, so does the other. Resolves when both are over. */
function join(data: Duplex, socket: Duplex): Promise<void> {
  return new Promise((resolve) => {
    data.once('close', () => {
      if (!data.readableEnded || !data.writableFinished) socket.destroy();
    });
    socket.once('error', () => data.destroy());
    socket.once('close', () => {
      if (!socket.readableEnded) data.destroy();
      resolve();
    });
    data.pipe(socket);
    socket.pipe(data);
  });
}
