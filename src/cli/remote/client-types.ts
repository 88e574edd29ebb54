import type { Runtime } from '../../runtime/facade.js';

/** The same requests with every answer possibly late, because the runtime may be in another process. */
type Late<T> = T extends (...args: infer A) => infer R
  ? (...args: A) => R | Promise<Awaited<R>>
  : { readonly [K in keyof T]: Late<T[K]> };

/**
 * The runtime as commands use it: either opened in this process, or that of the running agent behind the admin
 * socket. A `Runtime` is one as it stands.
 */
export type RuntimeClient = Late<Runtime>;
