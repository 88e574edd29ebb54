/** Which pod has which host port; pure. */
import { RuntimeError } from '../../kit/errors.js';
import type { PortMapping } from '../model.js';
import type { PublishedPort } from './firewall.js';
import { familyOf, formatIp, parseIp } from './ip.js';

/**
 * The ports to publish for a pod: one entry per mapping and per address of the pod whose family the host address has.
 * Throws `invalid-argument` for a host address that is none or that no address of the pod can serve.
 */
export function publishedPorts(mappings: readonly PortMapping[], podIps: readonly string[]): PublishedPort[] {
  return mappings
    .filter((mapping) => mapping.hostPort > 0)
    .flatMap((mapping) => {
      const host = hostAddress(mapping.hostIp ?? '');
      const ports = podIps
        .filter((ip) => host.family === undefined || familyOf(parseIp(ip) ?? new Uint8Array()) === host.family)
        .map((podIp) => ({
          protocol: mapping.protocol,
          hostIp: host.ip,
          hostPort: mapping.hostPort,
          podIp,
          containerPort: mapping.containerPort,
        }));
      if (ports.length > 0) return ports;
      throw new RuntimeError(
        'invalid-argument',
        `host port ${mapping.hostPort}: the pod has no address for host IP ${mapping.hostIp}`,
      );
    });
}

/** `0.0.0.0` and `::` mean every address of their family, '' every address of both. */
function hostAddress(text: string): { ip: string; family: 4 | 6 | undefined } {
  if (text === '') return { ip: '', family: undefined };
  const bytes = parseIp(text);
  if (bytes === undefined) throw new RuntimeError('invalid-argument', `host IP "${text}" is no IP address`);
  const everywhere = bytes.every((byte) => byte === 0);
  return { ip: everywhere ? '' : formatIp(bytes), family: familyOf(bytes) };
}

/** Identity of a published port; two pods cannot share one. */
export const portKey = (port: PublishedPort): string =>
  `${familyOf(parseIp(port.podIp) ?? new Uint8Array())} ${port.protocol} ${port.hostIp} ${port.hostPort}`;

/** Throws `already-exists` when another sandbox has published one of the ports. */
export function refuseTakenPorts(
  ports: readonly PublishedPort[],
  others: Iterable<{ readonly sandboxId: string; readonly ports: readonly PublishedPort[] }>,
): void {
  const wanted = new Map(ports.map((port) => [portKey(port), port]));
  if (wanted.size < ports.length) throw new RuntimeError('invalid-argument', 'a host port is given twice');
  if (wanted.size === 0) return;
  for (const { sandboxId, ports: taken } of others) {
    const clash = taken.find((port) => wanted.has(portKey(port)));
    if (clash === undefined) continue;
    throw new RuntimeError(
      'already-exists',
      `host port ${clash.hostPort}/${clash.protocol} belongs to sandbox ${sandboxId}`,
    );
  }
}
