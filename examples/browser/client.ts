// Opens a trade on Fulcrum, follows the account's events until they tell of it, closes it, and shows what happened on the page.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { Side } from "./build/gen/fulcrum/v1/common_pb";
import { type StreamAccountEventsResponse, TradeService } from "./build/gen/fulcrum/v1/trade_service_pb";
import { WalletService } from "./build/gen/fulcrum/v1/wallet_service_pb";
import { ErrorInfoSchema, RetryInfoSchema } from "./build/gen/google/rpc/error_details_pb";

// What stands behind the # stays in the browser. A real page would get its token from whoever signs people in.
const given = new URLSearchParams(location.hash.slice(1));
const address = given.get("address") ?? "http://127.0.0.1:8080";
const headers = { authorization: `Bearer ${given.get("token")}` };
const deadlineMs = 5_000; // for one attempt
const patienceMs = 60_000; // for all attempts at one request

const transport = createGrpcWebTransport({ baseUrl: address });
const wallets = createClient(WalletService, transport);
const trades = createClient(TradeService, transport);

const say = (line: string) => document.querySelector("#happened")!.append(`${line}\n`);
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** A new UUIDv7. */
function newRequestId(): string {
  const raw = crypto.getRandomValues(new Uint8Array(16));
  const hex = Array.from(raw, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const time = Date.now().toString(16).padStart(12, "0");
  const variant = ((raw[8]! & 0x3f) | 0x80).toString(16);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${hex.slice(13, 16)}-${variant}${hex.slice(18, 20)}-${hex.slice(20)}`;
}

/** Sends a request until it is answered. Every attempt has the same requestId, so it is executed once at most. */
async function call<Request, Answer>(
  method: (request: Request, options: { headers: HeadersInit; timeoutMs: number }) => Promise<Answer>,
  request: Request,
): Promise<Answer> {
  const until = Date.now() + patienceMs;
  for (;;) {
    try {
      return await method(request, { headers, timeoutMs: deadlineMs });
    } catch (error) {
      const pauseMs = pauseAfter(error);
      if (pauseMs === undefined || Date.now() + pauseMs > until) throw error;
      await sleep(pauseMs);
    }
  }
}

/** Milliseconds after which the same request may be sent again, or undefined when the error is the answer. */
function pauseAfter(thrown: unknown): number | undefined {
  const error = ConnectError.from(thrown);
  // A browser does not say why it could not reach a server; Connect calls that Unknown.
  const unreachable = error.cause instanceof TypeError;
  if (error.code !== Code.Unavailable && error.code !== Code.DeadlineExceeded && !unreachable) return undefined;
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const pauseMs = delay ? Number(delay.seconds) * 1_000 + delay.nanos / 1_000_000 : 1_000;
  const reason = error.findDetails(ErrorInfoSchema)[0]?.reason ?? Code[error.code];
  say(`${reason}: the same request again in ${(pauseMs / 1_000).toFixed(1)} s`);
  return pauseMs;
}

/** The account's events after a sequence. When the stream breaks, it goes on after the last event seen: none is missed. */
async function* follow(sequence: bigint): AsyncGenerator<StreamAccountEventsResponse, never> {
  for (;;) {
    try {
      for await (const event of trades.streamAccountEvents({ accountId: "me", resumeAfterSequence: sequence }, { headers })) {
        sequence = event.sequence;
        yield event;
      }
    } catch (error) {
      const pauseMs = pauseAfter(error);
      if (pauseMs === undefined) throw error;
      await sleep(pauseMs);
    }
  }
}

/** Reads events up to the one that a request caused. */
async function seen(events: AsyncGenerator<StreamAccountEventsResponse, never>, requestId: string) {
  for (;;) {
    const { value } = await events.next();
    if (value.requestId === requestId) return value;
  }
}

async function main() {
  const wallet = await call(wallets.initializeWallet, { accountId: "me", requestId: newRequestId() });
  say(`wallet: ${wallet.balances.map((money) => `${money.amount} ${money.currencyCode}`).join(", ")}`);

  const opening = {
    accountId: "me",
    requestId: newRequestId(),
    symbol: "SOL_USDC",
    side: Side.LONG,
    size: { case: "margin" as const, value: "100" },
    leverage: "10",
  };
  const trade = (await call(trades.openTrade, opening)).trade!;
  say(`opened ${trade.tradeId}: ${trade.quantity} ${trade.symbol} at ${trade.entryPrice}, liquidation at ${trade.liquidationPrice}`);

  const events = follow(wallet.sequence);
  await seen(events, opening.requestId);
  say(`event: ${trade.tradeId} opened`);

  const closing = { accountId: "me", requestId: newRequestId(), tradeId: trade.tradeId };
  const closed = await call(trades.closeTrade, closing);
  say(`closed ${trade.tradeId} at ${closed.closePrice}: profit ${closed.realisedProfit?.amount} ${closed.realisedProfit?.currencyCode}`);

  await seen(events, closing.requestId);
  say(`event: ${trade.tradeId} closed`);
  await events.return(undefined as never);
}

main().then(
  () => (document.title = "done"),
  (error) => {
    say(`failed: ${error}`);
    document.title = "failed";
  },
);
