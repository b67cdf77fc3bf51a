// A trader's day in a browser, through grpc-web. What it says: ../README.md. `say` and `heard` come from run.mjs.
//
// No code is generated: the interface definitions come as data, and the client is made from them.

import { createFileRegistry, fromBinary, fromJson, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

const PATIENCE_MS = 120_000;

function uuid7() {
  const raw = crypto.getRandomValues(new Uint8Array(16));
  new DataView(raw.buffer).setBigUint64(0, (BigInt(Date.now()) << 16n) | BigInt((raw[6] << 8) | raw[7]));
  raw[6] = (raw[6] & 0x0f) | 0x70;
  raw[8] = (raw[8] & 0x3f) | 0x80;
  const text = Array.from(raw, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join("-");
}

class Client {
  constructor(config, registry) {
    this.account = config.account;
    this.registry = registry;
    this.headers = { authorization: `Bearer ${config.token}` };
    this.transport = createGrpcWebTransport({ baseUrl: `http://${config.address}` });
  }

  find(name, request) {
    for (const file of this.registry.files) {
      for (const service of file.services) {
        const method = service.methods.find((method) => method.name === name);
        if (method && service.typeName.startsWith("fulcrum.v1.")) {
          const client = createClient(service, this.transport);
          return { method, send: client[method.localName], message: fromJson(method.input, request) };
        }
      }
    }
    throw new Error(`there is no method ${name}`);
  }

  json(schema, message) {
    return toJson(schema, message, { registry: this.registry, alwaysEmitImplicit: true });
  }

  async call(name, request) {
    const { method, send, message } = this.find(name, request);
    try {
      const answer = this.json(method.output, await send(message, { headers: this.headers, timeoutMs: PATIENCE_MS }));
      await say({ method: name, answer });
      return answer;
    } catch (error) {
      await say({ method: name, error: this.status(ConnectError.from(error)) });
      return undefined;
    }
  }

  // The error as the JSON of google.rpc.Status.
  status(error) {
    const details = error.details.map((detail) => {
      const schema = this.registry.getMessage(detail.type);
      return { "@type": `type.googleapis.com/${detail.type}`, ...this.json(schema, fromBinary(schema, detail.value)) };
    });
    return { code: error.code, message: error.rawMessage, details };
  }

  mine(name, request = {}) {
    return this.call(name, { accountId: this.account, ...request });
  }

  change(name, request = {}) {
    return this.mine(name, { requestId: uuid7(), ...request });
  }

  watch(name, request) {
    const { method, send, message } = this.find(name, request);
    const messages = [];
    const waiting = new Set();
    const read = async () => {
      for await (const next of send(message, { headers: this.headers })) {
        messages.push(this.json(method.output, next));
        waiting.forEach((look) => look());
      }
    };
    read().catch((error) => {
      if (ConnectError.from(error).code !== Code.Canceled) throw error;
    });
    // Waits for a message, and gives the first of its kind.
    const until = (wanted) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = messages.find(wanted);
          if (found) {
            waiting.delete(look);
            resolve(found);
          }
        };
        waiting.add(look);
        look();
        setTimeout(() => reject(new Error(`${name} does not say it`)), PATIENCE_MS);
      });
    return { messages, until };
  }
}

async function day() {
  const config = await heard();
  const set = await (await fetch("/descriptors")).arrayBuffer();
  const client = new Client(config, createFileRegistry(fromBinary(FileDescriptorSetSchema, new Uint8Array(set))));
  const symbol = "BTC_USDC";

  await client.change("InitializeWallet");
  const events = client.watch("StreamAccountEvents", { accountId: client.account });
  const quotes = client.watch("StreamQuotes", { symbols: [symbol] });
  await events.until((it) => it.snapshot);
  await say({ stream: "StreamQuotes", answer: await quotes.until(() => true) });

  const usdc = (amount) => ({ currencyCode: "USDC", amount });
  await client.change("Deposit", { amount: usdc("1000") });
  await client.change("Deposit", { amount: usdc("1.005") });
  await client.change("OpenTrade", { symbol: "DOGE_USDC", side: "SIDE_LONG", margin: "500", leverage: "50" });
  await client.change("OpenTrade", { symbol, side: "SIDE_LONG", margin: "500", leverage: "50" });
  const requestId = uuid7();
  const wanted = { symbol, side: "SIDE_SHORT", quantity: "0.5", leverage: "10", stopLossPrice: "13600", requestId };
  const short = (await client.mine("OpenTrade", wanted)).trade.tradeId;
  await client.mine("OpenTrade", wanted);
  const change = { stopLossPrice: "13700.5", takeProfitPrice: "12800", addMargin: "25.50" };
  await client.change("ModifyTrade", { tradeId: short, ...change });
  await client.change("CloseTrade", { tradeId: short, percent: "50" });
  await client.mine("GetAccountSummary");

  await say({ waiting: "fall" });
  await events.until((it) => it.tradeClosed?.reason === "CLOSE_REASON_LIQUIDATION");
  await say({ waiting: "history" });
  const after = await heard();
  const last = await quotes.until((it) => it.quote.bid === after.bid && it.quote.ask === after.ask);
  await say({ stream: "StreamQuotes", answer: last });

  const closing = uuid7();
  await client.mine("CloseTrade", { tradeId: short, requestId: closing });
  await client.change("CloseTrade", { tradeId: short });
  await client.mine("ListTrades", { status: "TRADE_STATUS_CLOSED" });
  await client.mine("ListTransactions", { pageSize: 1000 });
  const seconds = { interval: "CANDLE_INTERVAL_1S", startTime: after.start, endTime: after.end };
  await client.call("ListCandles", { symbol, ...seconds });
  await client.mine("GetOperation", { requestId: closing });
  await client.mine("ListBalances");

  const refused = await events.until((it) => it.operationRefused?.method === "CloseTrade");
  for (const event of events.messages.slice(0, events.messages.indexOf(refused) + 1)) {
    if (!event.heartbeat) await say({ stream: "StreamAccountEvents", answer: event });
  }
  await say({ done: true });
}

day().catch((error) => failed(String(error?.stack ?? error)));
