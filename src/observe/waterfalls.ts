import type { Call } from '../kit/call.js';
import { StepRecorder, type RecordedStep } from '../kit/step-recorder.js';
import type { Runtime } from '../runtime/facade.js';

/** The steps of one request. */
export interface Waterfall {
  readonly request: string;
  readonly steps: readonly RecordedStep[];
}

/**
 * The same runtime, which remembers the steps that brought each pod and container up and shows them as `waterfall` in
 * what `inspect` answers. Kept in memory only, and for as long as the object exists.
 */
export function withWaterfalls(runtime: Runtime): Runtime {
  const waterfalls = new Map<string, readonly Waterfall[]>();
  const record = async <T>(
    request: string,
    call: Call,
    work: (call: Call) => Promise<T>,
    idOf: (result: T) => string,
  ) => {
    const recorder = new StepRecorder(call.observer);
    const result = await work({ ...call, observer: recorder });
    const id = idOf(result);
    // A retry that joined the first attempt has no steps of its own.
    if (recorder.steps.length > 0)
      waterfalls.set(id, [...(waterfalls.get(id) ?? []), { request, steps: recorder.steps }]);
    return result;
  };
  const withWaterfall = (facts: Readonly<Record<string, unknown>>) => ({
    ...facts,
    waterfall: waterfalls.get(String(facts['id'])) ?? [],
  });
  const { sandboxes, containers } = runtime;
  return {
    ...runtime,
    sandboxes: {
      ...sandboxes,
      run: (input, call) =>
        record(
          'RunPodSandbox',
          call,
          (own) => sandboxes.run(input, own),
          (id) => id,
        ),
      inspect: (id) => withWaterfall(sandboxes.inspect(id)),
      async remove(id, call) {
        const known = sandboxes.list({ id }).map((view) => view.id);
        const inside = known.flatMap((sandboxId) => containers.list({ sandboxId }).map((view) => view.id));
        await sandboxes.remove(id, call);
        for (const each of [...known, ...inside]) waterfalls.delete(each);
      },
    },
    containers: {
      ...containers,
      create: (input, call) =>
        record(
          'CreateContainer',
          call,
          (own) => containers.create(input, own),
          (id) => id,
        ),
      start: (id, call) =>
        record(
          'StartContainer',
          call,
          (own) => containers.start(id, own),
          () => containers.status(id).id,
        ),
      inspect: (id) => withWaterfall(containers.inspect(id)),
      async remove(id, call) {
        const known = containers.list({ id });
        await containers.remove(id, call);
        for (const each of known) waterfalls.delete(each.id);
      },
    },
  };
}
