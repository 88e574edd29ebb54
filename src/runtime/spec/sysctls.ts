import { invalid } from '../../kit/errors.js';
import type { StringMap } from '../model.js';
import type { OwnNamespace } from './namespaces.js';

/** Sysctls that belong to a namespace, with the kind they need (kernel Documentation/admin-guide/sysctl). */
const namespacedSysctls: readonly { readonly pattern: RegExp; readonly needs: OwnNamespace }[] = [
  { pattern: /^kernel\.(sem|msgmax|msgmnb|msgmni|shmall|shmmax|shmmni|shm_rmid_forced)$/, needs: 'ipc' },
  { pattern: /^fs\.mqueue\./, needs: 'ipc' },
  { pattern: /^net\./, needs: 'net' },
  { pattern: /^kernel\.domainname$/, needs: 'uts' },
];

/**
 * Admits the sysctls of a pod: only ones that live in a namespace which the pod owns, named with dots or slashes, with
 * no way out of /proc/sys in the name. Values are written as they are, alone (CVE-2022-0811).
 *
 * @param own the namespaces the pod owns
 * @returns names with dots, in the order given
 */
export function admitSysctls(sysctls: StringMap, own: readonly OwnNamespace[]): [string, string][] {
  return Object.entries(sysctls).map(([name, value]) => {
    const field = `config.linux.sysctls["${name}"]`;
    const { dotted, needs } = checkSysctl(name, value, field);
    if (!own.includes(needs)) throw invalid(field, `needs a ${needs} namespace of the pod's own`);
    return [dotted, value];
  });
}

/** Those of the configuration's defaults that a pod can have: they apply to pods which own the namespace. */
export function admitDefaultSysctls(sysctls: StringMap, own: readonly OwnNamespace[]): [string, string][] {
  return Object.entries(sysctls).flatMap(([name, value]): [string, string][] => {
    const { dotted, needs } = checkSysctl(name, value, `runtime.defaultSysctls["${name}"]`);
    return own.includes(needs) ? [[dotted, value]] : [];
  });
}

function checkSysctl(name: string, value: string, field: string): { dotted: string; needs: OwnNamespace } {
  const dotted = normalizeSysctl(name);
  if (!/^[a-z0-9_]+(\.[A-Za-z0-9_/@-]+)+$/.test(dotted) || dotted.includes('..')) {
    throw invalid(field, 'is no sysctl name');
  }
  if (/[\n\0]/.test(value)) throw invalid(field, 'the value holds a line break or a zero byte');
  const rule = namespacedSysctls.find(({ pattern }) => pattern.test(dotted));
  if (rule === undefined) throw invalid(field, 'is not a sysctl of any namespace');
  return { dotted, needs: rule.needs };
}

/** As sysctl(8): with a slash before the first dot, slashes separate; a dot is then part of a name. */
function normalizeSysctl(name: string): string {
  const slash = name.indexOf('/');
  const dot = name.indexOf('.');
  if (slash < 0 || (dot >= 0 && dot < slash)) return name;
  return name.replace(/[./]/g, (separator) => (separator === '/' ? '.' : '/'));
}

/** Path below /proc/sys of a dotted sysctl name; a slash inside a name stands for a dot (`net.ipv4.conf.eth0/1.x`). */
export const sysctlPath = (dotted: string): string =>
  dotted.replace(/[./]/g, (separator) => (separator === '.' ? '/' : '.'));
