// Finds the server: turns an address and a CA file into a libsignal `Net`, and asks the server first whether it is
// well, because node's own errors about a port or a certificate are more helpful than a failed websocket.

import { X509Certificate } from 'node:crypto';
import { get } from 'node:https';
import { readFile } from 'node:fs/promises';

import { Net } from './signal.mjs';

const LOOPBACK = new Set(['127.0.0.1', 'localhost']);

/**
 * @param {string} address for instance `https://127.0.0.1:8443`
 * @param {string} caFile PEM file with the certificate to trust
 */
export async function findServer(address, caFile) {
  let url;
  try {
    url = new URL(address);
  } catch {
    throw new ServerProblem(`"${address}" is not an address`, 'Write it like https://127.0.0.1:8443.');
  }
  if (url.protocol !== 'https:') {
    throw new ServerProblem(
      `${address} is not an https address`,
      'libsignal speaks TLS only. Start the server with --tls-self-signed and use https://.',
    );
  }
  if (!LOOPBACK.has(url.hostname)) {
    throw new ServerProblem(
      `${url.hostname} is another machine`,
      "libsignal's switch for one's own server only connects to 127.0.0.1. Bring the server here with a tunnel, " +
        `for instance: ssh -L 8443:localhost:${url.port || 443} ${url.hostname}`,
    );
  }
  let pem;
  try {
    pem = await readFile(caFile);
  } catch (error) {
    throw new ServerProblem(
      `cannot read the certificate ${caFile} (${error.code})`,
      'The server writes it to tls/ca-cert.pem in its data directory. Give that path with --ca.',
    );
  }
  let certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch {
    throw new ServerProblem(`${caFile} is not a PEM certificate`, 'Give the path of tls/ca-cert.pem with --ca.');
  }
  return new Server(Number(url.port || 443), certificate, caFile);
}

export class Server {
  constructor(port, certificate, caFile) {
    this.port = port;
    this.certificate = certificate;
    this.caFile = caFile;
  }

  /**
   * A libsignal network stack that knows this server only.
   * @param {{ httpVersion?: 1 | 2 }} [options] over 2 the library sends by gRPC, which the server does not speak
   */
  openNet({ httpVersion = 1 } = {}) {
    return new Net.Net({
      localTestServer: true,
      userAgent: 'blind-relay-chat/0.1.0',
      TESTING_localServer_httpVersion: httpVersion,
      TESTING_localServer_chatPort: this.port,
      // The other services of the original are not used; the library only wants the ports to be numbers.
      TESTING_localServer_cdsiPort: this.port,
      TESTING_localServer_svr2Port: this.port,
      TESTING_localServer_svrBPort: this.port,
      TESTING_localServer_rootCertificateDer: new Uint8Array(this.certificate.raw),
    });
  }

  /** Status of `GET /health/ready`; throws a {@link ServerProblem} when there is no answer. */
  async health() {
    try {
      return await new Promise((resolve, reject) => {
        const request = get(
          {
            host: '127.0.0.1',
            port: this.port,
            servername: 'localhost',
            path: '/health/ready',
            ca: this.certificate.toString(),
            agent: false,
            timeout: 5000,
          },
          (response) => {
            response.resume();
            response.on('end', () => resolve(response.statusCode));
            response.on('error', reject);
          },
        );
        request.on('timeout', () => request.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })));
        request.on('error', reject);
      });
    } catch (error) {
      throw this.#explain(error);
    }
  }

  /** Returns when the server is ready, throws a {@link ServerProblem} that says what to do otherwise. */
  async check() {
    const status = await this.health();
    if (status !== 200) {
      throw new ServerProblem(
        `the server answers but is not ready (status ${status})`,
        'Its log says what it is waiting for.',
      );
    }
  }

  #explain(error) {
    const code = error.code ?? '';
    if (code === 'ECONNREFUSED') {
      return new ServerProblem(
        `nothing listens on port ${this.port} of this machine`,
        'Start the server: blind-relay serve --listen 127.0.0.1:8443 --tls-self-signed. ' +
          'Its first line of output names the address for --server.',
      );
    }
    if (code === 'EPROTO' || code === 'ECONNRESET' || code === 'HPE_INVALID_CONSTANT') {
      return new ServerProblem(
        `what listens on port ${this.port} does not speak TLS (${code})`,
        'Start the server with --tls-self-signed, or correct the port in --server.',
      );
    }
    if (/CERT|SIGN|ISSUER|CHAIN/.test(code)) {
      return new ServerProblem(
        `the server's certificate does not fit ${this.caFile} (${code})`,
        'Give the tls/ca-cert.pem of the data directory of the very server that is running.',
      );
    }
    return new ServerProblem(`the server does not answer (${code || error.message})`, 'Look into its log.');
  }
}

/** Something is wrong with the server or the way to it; `advice` is the next step for the person. */
export class ServerProblem extends Error {
  constructor(message, advice) {
    super(message);
    this.name = 'ServerProblem';
    this.advice = advice;
  }
}
