// The example chat as a child process with piped input and output.

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { Watched, within } from './wait.mjs';

const PROGRAM = fileURLToPath(new URL('../../../examples/chat/chat.mjs', import.meta.url));

const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class Chat extends Watched {
  lines = [];
  notes = '';
  #child;
  #exited;

  constructor(name, args) {
    super();
    this.name = name;
    this.#child = spawn(process.execPath, [PROGRAM, ...args], { stdio: 'pipe' });
    running.add(this.#child);
    let rest = '';
    this.#child.stdout.setEncoding('utf8').on('data', (chunk) => {
      const parts = (rest + chunk).split('\n');
      rest = parts.pop();
      this.lines.push(...parts);
      this.changed();
    });
    this.#child.stderr.setEncoding('utf8').on('data', (chunk) => {
      this.notes += chunk;
      this.changed();
    });
    this.#child.stdin.on('error', () => {});
    this.#exited = new Promise((resolve) => {
      this.#child.on('close', (code, signal) => {
        running.delete(this.#child);
        resolve(code ?? signal);
        this.broke(new Error(`${name} ended with ${code ?? signal}; it said:\n${this.notes}`));
      });
    });
  }

  /** The account of this chat; it is printed at the start. */
  async aci() {
    const [, aci] = await this.noted(/you are ([0-9a-f-]{36});/);
    return aci;
  }

  /** Waits for a note on standard error. */
  noted(pattern) {
    return this.until(() => pattern.exec(this.notes), `${this.name} to say ${pattern}`, {
      state: () => `it said:\n${this.notes}`,
    });
  }

  /** Waits until so many lines came on standard output, and returns them. */
  async read(count) {
    await this.until(() => this.lines.length >= count, `${this.name} to print line ${count}`, {
      state: () => `it printed ${JSON.stringify(this.lines)} and said:\n${this.notes}`,
    });
    return this.lines;
  }

  write(...lines) {
    this.#child.stdin.write(lines.map((line) => `${line}\n`).join(''));
  }

  /** Closes the input; the chat finishes its work and ends. Returns its exit status. */
  async finish() {
    this.#child.stdin.end();
    return within(this.#exited, `${this.name} to end; it said:\n${this.notes}`);
  }

  exit() {
    return within(this.#exited, `${this.name} to end; it said:\n${this.notes}`);
  }

  async kill() {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}
