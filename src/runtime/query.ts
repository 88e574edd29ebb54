import { notFound } from '../kit/errors.js';
import type { ContainerFilter, ContainerView, SandboxFilter, SandboxView } from './facade.js';
import type { StringMap } from './model.js';
import type { Registry } from './registry.js';

/** Reads, from memory alone. Objects whose first request is still under way are not shown: they may yet be undone. */
export function listSandboxes(registry: Registry, filter: SandboxFilter): SandboxView[] {
  const views: SandboxView[] = [];
  for (const { record, view } of registry.sandboxes()) {
    if (record.stage === 'creating') continue;
    if (filter.id !== undefined && !record.id.startsWith(filter.id)) continue;
    if (filter.state !== undefined && view.state !== filter.state) continue;
    if (!labelsMatch(record.config.labels, filter.labels)) continue;
    views.push(view);
  }
  return views;
}

export function listContainers(registry: Registry, filter: ContainerFilter): ContainerView[] {
  const views: ContainerView[] = [];
  for (const { record, view } of registry.containers()) {
    if (record.stage === 'creating') continue;
    if (filter.id !== undefined && !record.id.startsWith(filter.id)) continue;
    if (filter.sandboxId !== undefined && !record.sandboxId.startsWith(filter.sandboxId)) continue;
    if (filter.state !== undefined && view.state !== filter.state) continue;
    if (!labelsMatch(record.config.labels, filter.labels)) continue;
    views.push(view);
  }
  return views;
}

/** `not-found` for what lists do not show either. */
export function sandboxStatus(registry: Registry, idOrPrefix: string): SandboxView {
  const { record, view } = registry.sandbox(idOrPrefix);
  if (record.stage === 'creating') throw notFound('pod sandbox', idOrPrefix);
  return view;
}

export function containerStatus(registry: Registry, idOrPrefix: string): ContainerView {
  const { record, view } = registry.container(idOrPrefix);
  if (record.stage === 'creating') throw notFound('container', idOrPrefix);
  return view;
}

function labelsMatch(labels: StringMap, wanted: StringMap | undefined): boolean {
  return wanted === undefined || Object.entries(wanted).every(([key, value]) => labels[key] === value);
}
