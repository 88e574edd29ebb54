/** The runtime's own state as the answers show it. */
import * as wire from '../../../api/cri/v1/generated/api.js';
import type { Runtime, RuntimeStatus } from '../../runtime/facade.js';
import type { StringMap } from '../../runtime/model.js';

type Handler = RuntimeStatus['handlers'][number];

const wireHandler = (handler: Handler): wire.RuntimeHandler => ({
  name: handler.name,
  features: {
    recursiveReadOnlyMounts: handler.recursiveReadOnlyMounts,
    userNamespaces: handler.userNamespaces,
  },
});

/** The first handler is the default one; the kubelet looks it up under the empty name as well. */
function wireHandlers(handlers: readonly Handler[]): wire.RuntimeHandler[] {
  const [first] = handlers;
  const named = handlers.map(wireHandler);
  if (first === undefined || handlers.some((handler) => handler.name === '')) return named;
  return [wireHandler({ ...first, name: '' }), ...named];
}

export function wireStatus(status: RuntimeStatus): Omit<wire.StatusResponse, 'info'> {
  return {
    status: { conditions: status.conditions.map((condition) => ({ ...condition })) },
    runtimeHandlers: wireHandlers(status.handlers),
    features: { ...status.features },
  };
}

export const wireCgroupDriver = (config: ReturnType<Runtime['runtimeConfig']>): wire.CgroupDriver =>
  config.cgroupDriver === 'systemd' ? wire.CgroupDriver.SYSTEMD : wire.CgroupDriver.CGROUPFS;

/** Verbose facts: each value as JSON, which is what crictl expects to unpack. */
export function wireInfo(facts: Readonly<Record<string, unknown>>): StringMap {
  const entries = Object.entries(facts).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries.map(([key, value]) => [key, json(value)]));
}

/** Facts of one object go under the one key `info`, where crictl's templates look for them. */
export const wireObjectInfo = (facts: Readonly<Record<string, unknown>>): StringMap => ({ info: json(facts) });

function json(value: unknown): string {
  return JSON.stringify(value, plain);
}

/** Runs before JSON.stringify's own view of a member would win: a Buffer turns itself into a list of numbers. */
function plain(this: unknown, key: string, member: unknown): unknown {
  if (typeof member === 'bigint') return member.toString();
  const original = (this as Readonly<Record<string, unknown>>)[key];
  return original instanceof Uint8Array ? Buffer.from(original).toString('utf8') : member;
}
