// Opens a trade on Fulcrum, follows the account's events until they tell of it, closes it, and prints what happened.

import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const address = process.env.FULCRUM_ADDRESS ?? "127.0.0.1:8080";
const token = process.env.FULCRUM_TOKEN;
if (!token) throw new Error("FULCRUM_TOKEN is not set: `fulcrum token` makes one");
const deadlineMs = 5_000; // for one attempt
const patienceMs = 60_000; // for all attempts at one request

// grpc-js makes its client from the contract itself, when the program starts.
const contract = process.env.PROTO ?? fileURLToPath(new URL("../../proto", import.meta.url));
const definition = protoLoader.loadSync(
  ["fulcrum/v1/wallet_service.proto", "fulcrum/v1/trade_service.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"],
  { includeDirs: [contract], longs: String, enums: String, defaults: true, oneofs: true, json: true },
);
const { WalletService, TradeService } = grpc.loadPackageDefinition(definition).fulcrum.v1;
const Status = definition["google.rpc.Status"];

// For a server with a certificate: grpc.credentials.createSsl().
const wallets = new WalletService(address, grpc.credentials.createInsecure());
const trades = new TradeService(address, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${token}`);

/** A new UUIDv7. */
function requestId() {
  const raw = randomBytes(16);
  raw.writeUIntBE(Date.now(), 0, 6);
  raw[6] = (raw[6] & 0x0f) | 0x70;
  raw[8] = (raw[8] & 0x3f) | 0x80;
  return raw.toString("hex").replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

/** One attempt. */
function attempt(client, method, request) {
  return new Promise((resolve, reject) => {
    const answered = (error, answer) => (error ? reject(error) : resolve(answer));
    client[method](request, metadata, { deadline: Date.now() + deadlineMs }, answered);
  });
}

/** Sends a request until it is answered. Every attempt has the same requestId, so it is executed once at most. */
async function call(client, method, request) {
  const until = Date.now() + patienceMs;
  for (;;) {
    try {
      return await attempt(client, method, request);
    } catch (error) {
      const pauseMs = pauseAfter(error);
      if (pauseMs === undefined || Date.now() + pauseMs > until) throw error;
      await sleep(pauseMs);
    }
  }
}

/** Milliseconds after which the same request may be sent again, or undefined when the error is the answer. */
function pauseAfter(error) {
  if (error.code !== grpc.status.UNAVAILABLE && error.code !== grpc.status.DEADLINE_EXCEEDED) return undefined;
  const [encoded] = error.metadata.get("grpc-status-details-bin");
  const details = encoded ? Status.deserialize(encoded).details : [];
  const detail = (name) => details.find((it) => it["@type"].endsWith(`/google.rpc.${name}`));
  const delay = detail("RetryInfo")?.retryDelay;
  const pauseMs = delay ? Number(delay.seconds) * 1_000 + delay.nanos / 1_000_000 : 1_000;
  const reason = detail("ErrorInfo")?.reason ?? grpc.status[error.code];
  console.log(`${reason}: the same request again in ${(pauseMs / 1_000).toFixed(1)} s`);
  return pauseMs;
}

/** The account's events after a sequence. When the stream breaks, it goes on after the last event seen: none is missed. */
async function* follow(sequence) {
  for (;;) {
    const stream = trades.streamAccountEvents({ accountId: "me", resumeAfterSequence: sequence }, metadata);
    try {
      for await (const event of stream) {
        sequence = event.sequence;
        yield event;
      }
    } catch (error) {
      const pauseMs = pauseAfter(error);
      if (pauseMs === undefined) throw error;
      await sleep(pauseMs);
    } finally {
      stream.cancel();
    }
  }
}

/** Reads events up to the one that a request caused. */
async function seen(events, requestId) {
  for (;;) {
    const { value } = await events.next();
    if (value.requestId === requestId) return value;
  }
}

const wallet = await call(wallets, "initializeWallet", { accountId: "me", requestId: requestId() });
console.log("wallet:", wallet.balances.map((money) => `${money.amount} ${money.currencyCode}`).join(", "));

const opening = { accountId: "me", requestId: requestId(), symbol: "SOL_USDC", side: "SIDE_LONG", margin: "100", leverage: "10" };
const { trade } = await call(trades, "openTrade", opening);
console.log(`opened ${trade.tradeId}: ${trade.quantity} ${trade.symbol} at ${trade.entryPrice}, liquidation at ${trade.liquidationPrice}`);

const events = follow(wallet.sequence);
await seen(events, opening.requestId);
console.log(`event: ${trade.tradeId} opened`);

const closing = { accountId: "me", requestId: requestId(), tradeId: trade.tradeId };
const closed = await call(trades, "closeTrade", closing);
console.log(`closed ${trade.tradeId} at ${closed.closePrice}: profit ${closed.realisedProfit.amount} ${closed.realisedProfit.currencyCode}`);

await seen(events, closing.requestId);
console.log(`event: ${trade.tradeId} closed`);

await events.return();
wallets.close();
trades.close();
