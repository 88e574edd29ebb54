import type { JoinTemplate, JoinTemplates, Parts } from '../parts.js';
import type { ContainerRecord } from '../state/records.js';
import { bundleSpec } from './bundle.js';

export type JoinTemplateDeps = Pick<Parts, 'paths' | 'seccomp'>;

/**
 * Join templates by container: a probe that runs every second should not read and parse a bundle each time. Small (the
 * profile and the mounts are left out), read again from the bundle after a restart, dropped with the container.
 */
export class JoinTemplateCache implements JoinTemplates {
  readonly #templates = new Map<string, JoinTemplate>();
  readonly #deps: JoinTemplateDeps;

  constructor(deps: JoinTemplateDeps) {
    this.#deps = deps;
  }

  get(record: Pick<ContainerRecord, 'id' | 'sandboxId'>): JoinTemplate {
    const known = this.#templates.get(record.id);
    if (known !== undefined) return known;
    const template = this.#read(record);
    this.#templates.set(record.id, template);
    return template;
  }

  forget(id: string): void {
    this.#templates.delete(id);
  }

  #read({ id, sandboxId }: Pick<ContainerRecord, 'id' | 'sandboxId'>): JoinTemplate {
    const { paths, seccomp } = this.#deps;
    const spec = bundleSpec(paths.bundle(sandboxId, id));
    const { namespaces, uidMappings, gidMappings } = spec.linux;
    const linux = {
      namespaces,
      ...(uidMappings === undefined ? {} : { uidMappings }),
      ...(gidMappings === undefined ? {} : { gidMappings }),
    };
    const { ociVersion, process } = spec;
    return {
      spec: { ociVersion, linux, ...(process === undefined ? {} : { process }) },
      seccomp: spec.linux.seccomp === undefined ? {} : { seccomp: seccomp.program(spec.linux.seccomp) },
    };
  }
}
