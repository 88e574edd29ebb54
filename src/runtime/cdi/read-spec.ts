import { parse as parseYaml } from 'yaml';
import { invalid, messageOf } from '../../kit/errors.js';
import {
  deviceFault,
  kindFault,
  type CdiDevice,
  type CdiDeviceNode,
  type CdiEdits,
  type CdiSpec,
} from '../spec/cdi.js';
import { fields, integer, integerOf, list, optional, text, texts, type Fields } from './read-fields.js';

/** Oldest first. The specification's own tools take no earlier ones. */
const versions = ['0.3.0', '0.4.0', '0.5.0', '0.6.0', '0.7.0', '0.8.0', '1.0.0', '1.1.0'] as const;
type Version = (typeof versions)[number];

/**
 * A CDI spec file, checked as the specification wants it: fields it does not know, and fields that are newer than the
 * version it gives, make it no spec. Errors: invalid-argument with the field.
 */
export function readCdiSpec(content: string, format: 'json' | 'yaml'): CdiSpec {
  const spec = fields(parse(content, format), '', ['cdiVersion', 'kind', 'annotations', 'devices', 'containerEdits']);
  const kind = text(spec, 'kind');
  const fault = kindFault(kind);
  if (fault !== undefined) throw invalid('kind', fault);
  const since = versionCheck(text(spec, 'cdiVersion'));
  if (kind.slice(kind.indexOf('/')).includes('.')) since('0.6.0', 'kind', 'a dot in the class');
  checkAnnotations(spec, since);
  const devices = list(spec, 'devices', (value, at) => readDevice(value, at, since));
  if (devices.length === 0) throw invalid('devices', 'there is none');
  const names = devices.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw invalid('devices', `"${twice}" is there twice`);
  return { cdiVersion: text(spec, 'cdiVersion'), kind, devices, containerEdits: readEdits(spec, since) };
}

/**
 * Of YAML only the structure is asked for, and every scalar stays text: what it means is for the field to say, so that
 * neither a device named `on` nor a mode of `0660` depends on YAML's version.
 */
function parse(content: string, format: 'json' | 'yaml'): unknown {
  try {
    return format === 'json' ? JSON.parse(content) : parseYaml(content, { schema: 'failsafe', logLevel: 'error' });
  } catch (error) {
    throw invalid(format.toUpperCase(), messageOf(error).split('\n', 1)[0] ?? '');
  }
}

/** Refuses what the version given does not have yet. */
type Since = (version: Version, field: string, what?: string) => void;

function versionCheck(given: string): Since {
  const index = versions.findIndex((version) => version === given.replace(/^v/, ''));
  if (index < 0) throw invalid('cdiVersion', `"${given}" is none of ${versions.join(', ')}`);
  return (version, field, what = 'it') => {
    if (index < versions.indexOf(version)) throw invalid(field, `${what} needs cdiVersion ${version}, not ${given}`);
  };
}

function checkAnnotations(from: Fields, since: Since): void {
  const annotations = optional(from, 'annotations', (value, at) => fields(value, at));
  if (annotations === undefined || Object.keys(annotations.values).length === 0) return;
  since('0.6.0', `${from.at}annotations`);
  for (const key of Object.keys(annotations.values)) text(annotations, key, { empty: true });
}

function readDevice(value: unknown, at: string, since: Since): CdiDevice {
  const device = fields(value, at, ['name', 'annotations', 'containerEdits']);
  const name = text(device, 'name');
  const fault = deviceFault(name);
  if (fault !== undefined) throw invalid(`${at}.name`, fault);
  if (/^\d/.test(name)) since('0.5.0', `${at}.name`, 'a digit in the first place');
  checkAnnotations(device, since);
  return { name, containerEdits: readEdits(device, since) };
}

const editFields = [
  'env',
  'deviceNodes',
  'netDevices',
  'hooks',
  'mounts',
  'intelRdt',
  'additionalGids',
  'additionalGIDs',
];

const noEdits: CdiEdits = { env: [], deviceNodes: [], netDevices: [], hooks: [], mounts: [], additionalGids: [] };

function readEdits(from: Fields, since: Since): CdiEdits {
  const edits = optional(from, 'containerEdits', (value, at) => fields(value, at, editFields));
  if (edits === undefined) return noEdits;
  const intelRdt = optional(edits, 'intelRdt', (value, at) => readRdt(value, at, since));
  // The specification's text writes it both ways.
  const gids = ['additionalGids', 'additionalGIDs'].flatMap((name) =>
    list(edits, name, (value, at) => integerOf(value, at, 0xffff_fffe)),
  );
  if (gids.length > 0) since('0.7.0', `${edits.at}additionalGids`);
  return {
    env: environment(edits),
    deviceNodes: list(edits, 'deviceNodes', (value, at) => readNode(value, at, since)),
    netDevices: list(edits, 'netDevices', (value, at) => readNetDevice(value, at, since)),
    hooks: list(edits, 'hooks', readHook),
    mounts: list(edits, 'mounts', (value, at) => readMount(value, at, since)),
    ...(intelRdt === undefined ? {} : { intelRdt }),
    additionalGids: gids,
  };
}

function environment(from: Fields): readonly string[] {
  const entries = texts(from, 'env');
  const wrong = entries.findIndex((entry) => entry.indexOf('=') <= 0);
  if (wrong >= 0) throw invalid(`${from.at}env[${wrong}]`, `"${entries[wrong]}" is not NAME=value`);
  return entries;
}

const nodeFields = ['path', 'hostPath', 'type', 'major', 'minor', 'fileMode', 'permissions', 'uid', 'gid'];

function readNode(value: unknown, at: string, since: Since): CdiDeviceNode {
  const node = fields(value, at, nodeFields);
  const hostPath = optional(node, 'hostPath', () => absolute(node, 'hostPath'));
  if (hostPath !== undefined) since('0.5.0', `${at}.hostPath`);
  const type = optional(node, 'type', () => text(node, 'type'));
  if (type !== undefined && !/^[bcup]$/.test(type)) throw invalid(`${at}.type`, `"${type}" is none of b, c, u, p`);
  const permissions = optional(node, 'permissions', () => text(node, 'permissions'));
  if (permissions !== undefined && !/^([rwm]+|none)$/.test(permissions))
    throw invalid(`${at}.permissions`, `"${permissions}" is neither letters of rwm nor none`);
  const numbers = {
    major: integer(node, 'major', 0xfff),
    minor: integer(node, 'minor', 0xf_ffff),
    fileMode: integer(node, 'fileMode', 0xffff_ffff),
    uid: integer(node, 'uid', 0xffff_fffe),
    gid: integer(node, 'gid', 0xffff_fffe),
  };
  return {
    path: absolute(node, 'path'),
    ...(hostPath === undefined ? {} : { hostPath }),
    ...(type === undefined ? {} : { type: type as 'b' | 'c' | 'u' | 'p' }),
    ...(permissions === undefined ? {} : { permissions: permissions === 'none' ? '' : permissions }),
    ...(Object.fromEntries(Object.entries(numbers).filter(([, number]) => number !== undefined)) as Partial<
      Record<keyof typeof numbers, number>
    >),
  };
}

function readNetDevice(value: unknown, at: string, since: Since): CdiEdits['netDevices'][number] {
  since('1.1.0', at);
  const device = fields(value, at, ['hostInterfaceName', 'name']);
  return { hostInterfaceName: text(device, 'hostInterfaceName'), name: text(device, 'name') };
}

const hookNames = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop'];

function readHook(value: unknown, at: string): CdiEdits['hooks'][number] {
  const hook = fields(value, at, ['hookName', 'path', 'args', 'env', 'timeout']);
  const hookName = text(hook, 'hookName');
  if (!hookNames.includes(hookName))
    throw invalid(`${at}.hookName`, `"${hookName}" is none of ${hookNames.join(', ')}`);
  texts(hook, 'args');
  environment(hook);
  integer(hook, 'timeout', 0x7fff_ffff);
  return { hookName, path: absolute(hook, 'path') };
}

function readMount(value: unknown, at: string, since: Since): CdiEdits['mounts'][number] {
  const mount = fields(value, at, ['hostPath', 'containerPath', 'type', 'options']);
  const type = optional(mount, 'type', () => text(mount, 'type'));
  if (type !== undefined) since('0.4.0', `${at}.type`);
  return {
    hostPath: text(mount, 'hostPath'),
    containerPath: absolute(mount, 'containerPath'),
    ...(type === undefined ? {} : { type }),
    options: texts(mount, 'options'),
  };
}

function readRdt(value: unknown, at: string, since: Since): { readonly closID: string } {
  since('0.7.0', at);
  const rdt = fields(value, at, ['closID', 'l3CacheSchema', 'memBwSchema', 'schemata', 'enableMonitoring']);
  for (const name of ['schemata', 'enableMonitoring'])
    if (optional(rdt, name, () => true) === true) since('1.1.0', `${at}.${name}`);
  const closID = optional(rdt, 'closID', () => text(rdt, 'closID')) ?? '';
  if (closID !== '/' && (closID.length >= 4096 || /^\.{1,2}$|[/\n]/.test(closID)))
    throw invalid(`${at}.closID`, `"${closID}" is no name of a class`);
  return { closID };
}

function absolute(from: Fields, name: string): string {
  const path = text(from, name);
  if (path.startsWith('/') && !path.includes('\0')) return path;
  throw invalid(`${from.at}${name}`, `"${path}" is not an absolute path`);
}
