/** What CNI plugins answer, in the versions they answer in (CNI spec, section 5); pure. */
import { RuntimeError } from '../../kit/errors.js';
import { type CniVersion, atLeast, cniVersions } from './cni-config.js';

/** A result of version 0.3.0 or newer; fields we do not read are passed on as they are. */
export type CniResult = Readonly<Record<string, unknown>>;

interface CniInterface {
  readonly name?: unknown;
  readonly mac?: unknown;
  readonly sandbox?: unknown;
}

/** Throws `unavailable` for an answer that is no result. */
export function parseResult(value: unknown, plugin: string): CniResult {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as CniResult;
  throw new RuntimeError('unavailable', `CNI plugin ${plugin} answered ADD with no result`);
}

/**
 * The result in another version, as the next plugin of the chain must get it. Between 0.3.0 and 1.1.0 all that changed
 * for the worse is the field `version` of an address: needed before 1.0.0, gone since.
 */
export function convertResult(result: CniResult, to: CniVersion): CniResult {
  const from = result['cniVersion'];
  if (from === to || !cniVersions.includes(from as CniVersion)) return { ...result, cniVersion: to };
  const ips = listOf(result['ips']).map((ip) => convertIp(ip, to));
  return { ...result, ...(result['ips'] === undefined ? {} : { ips }), cniVersion: to };
}

function convertIp(ip: Record<string, unknown>, to: CniVersion): Record<string, unknown> {
  const { version: _version, ...rest } = ip;
  if (atLeast(to, '1.0.0')) return rest;
  return { version: String(ip['address']).includes(':') ? '6' : '4', ...rest };
}

/** Addresses of the pod's interface without prefix lengths, in the order of the plugins. */
export function podIps(result: CniResult, interfaceName: string): string[] {
  const interfaces = listOf(result['interfaces']) as CniInterface[];
  return listOf(result['ips']).flatMap((ip) => {
    const address = ip['address'];
    const owner = typeof ip['interface'] === 'number' ? interfaces[ip['interface']] : undefined;
    if (typeof address !== 'string' || (owner !== undefined && owner.name !== interfaceName)) return [];
    return [address.replace(/\/\d+$/, '')];
  });
}

/** MAC address of the pod's interface; '' when the plugins do not say. */
export function podMac(result: CniResult, interfaceName: string): string {
  const interfaces = listOf(result['interfaces']) as CniInterface[];
  const mine = interfaces.find(
    (one) => one.name === interfaceName && typeof one.sandbox === 'string' && one.sandbox !== '',
  );
  return typeof mine?.mac === 'string' ? mine.mac : '';
}

function listOf(value: unknown): Record<string, unknown>[] {
  if (!Array.isArray(value)) return [];
  return value.filter((entry): entry is Record<string, unknown> => typeof entry === 'object' && entry !== null);
}
