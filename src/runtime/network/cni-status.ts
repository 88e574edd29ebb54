/** Whether CNI could serve a pod now: a configuration in force, and plugins that say so when asked (STATUS, 1.1.0). */
import { messageOf } from '../../kit/errors.js';
import { statusOfChain } from './cni-chain.js';
import { type CniDirectoryState, atLeast } from './cni-config.js';
import type { PluginRunner } from './cni-plugin.js';
import { type NetworkStatus, networkReady } from './pod-network.js';

/** An answer of the plugins is good for this long, in milliseconds; the kubelet asks every few seconds. */
const freshMs = 10_000;

export interface CniReadiness {
  /** Never waits: plugins are asked in the background, and their last answer counts. */
  status(): NetworkStatus;
}

export function cniReadiness(directory: () => CniDirectoryState, runner: PluginRunner): CniReadiness {
  let asked = { text: '', at: 0 };
  let answer = networkReady;
  const ask = (config: NonNullable<CniDirectoryState['config']>): void => {
    asked = { text: config.text, at: Date.now() };
    statusOfChain(config, runner).then(
      () => (answer = networkReady),
      (error: unknown) => (answer = notReady(messageOf(error))),
    );
  };
  return {
    status() {
      const { config, message } = directory();
      if (config === undefined) return notReady(message);
      if (!atLeast(config.cniVersion, '1.1.0')) return networkReady;
      if (config.text !== asked.text) answer = networkReady;
      if (config.text !== asked.text || Date.now() - asked.at > freshMs) ask(config);
      return answer;
    },
  };
}

const notReady = (message: string): NetworkStatus => ({ ready: false, reason: 'NetworkPluginNotReady', message });
