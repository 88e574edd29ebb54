import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

/** The client's first protocol that the server knows. A client that names none gets `fallback`. */
export function chooseProtocol(
  offered: readonly string[],
  known: readonly string[],
  fallback: string,
): string | undefined {
  return offered.length === 0 ? fallback : offered.find((protocol) => known.includes(protocol));
}

/** All values of a header that may come several times or as a list. */
export function headerList(request: IncomingMessage, name: string): readonly string[] {
  return (request.headersDistinct[name] ?? [])
    .flatMap((value) => value.split(','))
    .map((value) => value.trim())
    .filter((value) => value !== '');
}

/** Milliseconds a refused client may take to hang up; at once would lose it the answer if it has sent more already. */
const farewellMs = 5000;

/** Answers a request that was to be upgraded with plain HTTP, and hangs up. */
export function refuse(socket: Socket, status: string, message: string, headers: readonly string[] = []): void {
  const body = `${message}\n`;
  const lines = [
    `HTTP/1.1 ${status}`,
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
    ...headers,
  ];
  socket.end(`${lines.join('\r\n')}\r\n\r\n${body}`);
  socket.setTimeout(farewellMs, () => socket.destroy());
  socket.resume();
}

const versionHeader = 'X-Stream-Protocol-Version';

/** Switches the connection to SPDY/3.1; returns the protocol spoken over it, or undefined when it was refused. */
export function upgradeToSpdy(
  request: IncomingMessage,
  socket: Socket,
  known: readonly string[],
  fallback: string,
): string | undefined {
  const offered = headerList(request, versionHeader.toLowerCase());
  const protocol = chooseProtocol(offered, known, fallback);
  if (protocol === undefined) {
    const accepted = known.map((name) => `X-Accepted-Stream-Protocol-Versions: ${name}`);
    refuse(socket, '403 Forbidden', `none of the client's protocols is known here: ${offered.join(', ')}`, accepted);
    return undefined;
  }
  const named = offered.length === 0 ? '' : `${versionHeader}: ${protocol}\r\n`;
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n${named}\r\n`);
  return protocol;
}
