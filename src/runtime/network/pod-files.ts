/**
 * The content of a pod's /etc/hosts, /etc/hostname and /etc/resolv.conf. The `render…` functions are pure; the others
 * also read the node's files, for pods that share the node's network or name no servers.
 */
import { readFile } from 'node:fs/promises';
import { invalid, isErrno } from '../../kit/errors.js';
import type { DnsConfig } from '../model.js';
import { parseIp } from './ip.js';

export interface NamesOfPod {
  /** '' gives the pod no name of its own. */
  readonly hostname: string;
  readonly ips: readonly string[];
}

const nodeResolvConf = '/etc/resolv.conf';
/** The real servers of a node whose resolv.conf names only systemd-resolved on its loopback. */
const upstreamResolvConf = '/run/systemd/resolve/resolv.conf';

const localNames = [
  '127.0.0.1\tlocalhost',
  '::1\tlocalhost ip6-localhost ip6-loopback',
  'fe00::0\tip6-localnet',
  'ff00::0\tip6-mcastprefix',
  'ff02::1\tip6-allnodes',
  'ff02::2\tip6-allrouters',
];

/** Throws `invalid-argument` for a host name that would not stay on its line. */
export function renderHosts({ hostname, ips }: NamesOfPod): string {
  const own = hostname === '' ? [] : ips.map((ip) => `${ip}\t${word(hostname, 'hostname')}`);
  return lines([...localNames, ...own]);
}

export const renderHostname = (hostname: string): string => lines(hostname === '' ? [] : [word(hostname, 'hostname')]);

/**
 * resolv.conf(5) from what the pod asks for. Nothing of the node's is mixed in. Throws `invalid-argument` with the
 * field's path for a server that is no address and for words that hold blanks or line ends.
 */
export function renderResolvConf(dns: DnsConfig): string {
  const servers = dns.servers.map(
    (server, index) => `nameserver ${serverAddress(server, `dns_config.servers[${index}]`)}`,
  );
  const searches = dns.searches.map((search, index) => word(search, `dns_config.searches[${index}]`));
  const options = dns.options.map((option, index) => word(option, `dns_config.options[${index}]`));
  return lines([
    ...(searches.length === 0 ? [] : [`search ${searches.join(' ')}`]),
    ...servers,
    ...(options.length === 0 ? [] : [`options ${options.join(' ')}`]),
  ]);
}

/** `host`: the pod shares the node's network and with it the node's file. */
export async function hostsFile(pod: NamesOfPod & { readonly host: boolean }): Promise<string> {
  return pod.host ? readNode('/etc/hosts') : renderHosts(pod);
}

export async function hostnameFile(pod: { readonly hostname: string; readonly host: boolean }): Promise<string> {
  return pod.host ? readNode('/etc/hostname') : renderHostname(pod.hostname);
}

/** The node's file when the pod asks for nothing. */
export async function resolvConf(dns: DnsConfig | undefined): Promise<string> {
  if (dns !== undefined && dns.servers.length + dns.searches.length + dns.options.length > 0) {
    return renderResolvConf(dns);
  }
  const node = await readNode(nodeResolvConf);
  return (onlyLoopbackServers(node) && (await readNode(upstreamResolvConf))) || node;
}

/** True when no server of a resolv.conf can be reached from another network namespace. */
export function onlyLoopbackServers(text: string): boolean {
  const servers = text.split('\n').flatMap((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? []);
  return servers.length > 0 && servers.every((server) => server.startsWith('127.') || server === '::1');
}

async function readNode(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return '';
    throw error;
  }
}

const lines = (all: readonly string[]): string => all.map((line) => `${line}\n`).join('');

function word(text: string, field: string): string {
  // eslint-disable-next-line no-control-regex -- control bytes are exactly what must not pass
  if (text === '' || /[\s\u0000-\u001f\u007f]/.test(text)) throw invalid(field, `"${text}" is not one word`);
  return text;
}

/** An address, of IPv6 also with a zone (`fe80::1%eth0`). */
function serverAddress(text: string, field: string): string {
  const address = text.includes(':') ? text.replace(/%[\w.-]+$/, '') : text;
  if (parseIp(address) === undefined) throw invalid(field, `"${text}" is no IP address`);
  return text;
}
