// One blind-relay process: started on a free port, watched, stopped. A restarted one keeps its port.

import { execFile, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { PublicKey } from '../../../examples/chat/lib/signal.mjs';
import { ServerProblem, findServer } from '../../../examples/chat/lib/server.mjs';
import { Watched, within } from './wait.mjs';

const BINARY =
  process.env.BLIND_RELAY_BIN ?? fileURLToPath(new URL('../../../target/debug/blind-relay', import.meta.url));
const EXTRA = (process.env.BLIND_RELAY_TEST_SERVER_ARGS ?? '').split(' ').filter(Boolean);
const LOG_LINES = 400;

const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class Node {
  #child = null;
  #listen = '127.0.0.1:0';
  #log = [];
  #said = '';

  /**
   * @param {string[]} args what this node has besides addresses and data directory
   * @param {Record<string, string>} settings environment variables without BLIND_RELAY_
   */
  constructor(name, dataDir, args = [], settings = {}) {
    this.name = name;
    this.dataDir = dataDir;
    this.args = args;
    const named = Object.entries(settings).map(([key, value]) => [`BLIND_RELAY_${key}`, value]);
    this.environment = { ...process.env, ...Object.fromEntries(named) };
  }

  /** PEM file with the certificate that clients trust. */
  get caFile() {
    return join(this.dataDir, 'tls', 'ca-cert.pem');
  }

  get address() {
    return `https://${this.#listen}`;
  }

  async start() {
    const args = ['serve', '--listen', this.#listen, '--admin-listen', '127.0.0.1:0', '--data-dir', this.dataDir];
    const child = spawn(BINARY, [...args, '--tls-self-signed', '--log', 'text', ...this.args, ...EXTRA], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: this.environment,
    });
    running.add(child);
    this.#child = child;
    const output = new Watched();
    let stdout = '';
    let exited = null;
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
      this.#said += chunk;
      output.changed();
    });
    child.stderr.on('data', (chunk) => this.#remember(chunk));
    child.on('error', (error) => {
      running.delete(child);
      output.broke(new Error(`${BINARY} does not run: ${error.message} (BLIND_RELAY_BIN names another one)`));
    });
    child.on('exit', (code, signal) => {
      running.delete(child);
      exited = { code, signal };
      this.#remember(`[${this.name} ended: code ${code}, signal ${signal}]\n`);
      output.broke(new Error(`the server ended with code ${code}, signal ${signal}`));
    });
    this.exited = new Promise((resolve) => child.on('exit', (code, signal) => resolve({ code, signal })));

    const [, port] = await output.until(
      () => /^listening on https:\/\/127\.0\.0\.1:(\d+)$/m.exec(stdout),
      `${this.name} to print its address`,
      { state: () => `it printed "${stdout.trim()}"` },
    );
    this.#listen = `127.0.0.1:${port}`;
    this.server = await findServer(this.address, this.caFile);
    await this.#ready(() => exited);
  }

  /** Ends the process. A polite end has to be clean; resolves when the process is gone. */
  async stop(signal = 'SIGTERM') {
    const { exited } = this;
    this.#child.kill(signal);
    const end = await within(exited, `${this.name} to end after ${signal}`);
    if (signal === 'SIGTERM' && end.code !== 0) {
      throw new Error(`${this.name} ended with code ${end.code}, signal ${end.signal} after SIGTERM instead of code 0`);
    }
  }

  async restart(signal) {
    await this.stop(signal);
    await this.start();
  }

  /** For the end of a test, whatever happened in it. */
  async kill() {
    this.#child?.kill('SIGKILL');
    if (this.#child?.pid) await this.exited;
  }

  /** What clients pin to believe in sender certificates, as the server's owner is shown it. */
  async trustRoot() {
    const args = ['keys', 'show', '--json', '--data-dir', this.dataDir, ...this.args];
    const { stdout } = await promisify(execFile)(BINARY, args, { env: this.environment });
    return PublicKey.deserialize(new Uint8Array(Buffer.from(JSON.parse(stdout).trust_root_base64, 'base64')));
  }

  /** All that it has written to standard output. */
  said() {
    return this.#said;
  }

  /** What the operator is told who has this node do something. */
  async admin(...words) {
    const args = ['admin', ...words, '--data-dir', this.dataDir, ...this.args];
    const { stdout } = await promisify(execFile)(BINARY, args, { env: this.environment });
    return stdout;
  }

  /** The last lines of its log. */
  log() {
    return this.#log.join('').split('\n').slice(-LOG_LINES).join('\n');
  }

  async #ready(exited) {
    const deadline = Date.now() + 20_000;
    for (let last = 'no answer'; ; ) {
      if (exited()) throw new Error(`${this.name} ended before it was ready`);
      try {
        const status = await this.server.health();
        if (status === 200) return;
        last = `status ${status}`;
      } catch (error) {
        if (!(error instanceof ServerProblem)) throw error;
        last = error.message;
      }
      if (Date.now() > deadline) throw new Error(`timed out waiting for ${this.name} to be ready: ${last}`);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  #remember(text) {
    this.#log.push(String(text));
    if (this.#log.length > 4 * LOG_LINES) this.#log.splice(0, LOG_LINES);
  }
}
