/**
 * Configuration: one table of keys (`config/table.ts`) read from a TOML file, the environment and flags into one
 * frozen `Config`.
 */
export {
  configChanges,
  defaultConfigFile,
  loadConfig,
  parseConfig,
  type Config,
  type ConfigInput,
} from './config/load.js';
export { configKeys, type NamedKey } from './config/names.js';
export { didYouMean } from './config/suggest.js';
