"""Opens a trade on Fulcrum, follows the account's events until they tell of it, closes it, and prints what happened."""

import os
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fulcrum.v1 import common_pb2, trade_service_pb2, trade_service_pb2_grpc, wallet_service_pb2, wallet_service_pb2_grpc

ADDRESS = os.environ.get("FULCRUM_ADDRESS", "127.0.0.1:8080")
METADATA = [("authorization", "Bearer " + os.environ["FULCRUM_TOKEN"])]
DEADLINE_S = 5  # for one attempt
PATIENCE_S = 60  # for all attempts at one request

# For a server with a certificate: grpc.secure_channel(ADDRESS, grpc.ssl_channel_credentials()).
channel = grpc.insecure_channel(ADDRESS)
wallets = wallet_service_pb2_grpc.WalletServiceStub(channel)
trades = trade_service_pb2_grpc.TradeServiceStub(channel)


def request_id():
    """A new UUIDv7. Python 3.14 has uuid.uuid7."""
    raw = bytearray(int(time.time() * 1000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:]])


def call(method, request):
    """Sends a request until it is answered. Every attempt has the same request_id, so it is executed once at most."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return method(request, timeout=DEADLINE_S, metadata=METADATA)
        except grpc.RpcError as error:
            pause_s = pause_after(error)
            if pause_s is None or time.monotonic() + pause_s > until:
                raise
            time.sleep(pause_s)


def pause_after(error):
    """Seconds after which the same request may be sent again, or None when the error is the answer."""
    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        detail.Unpack(info) or detail.Unpack(retry)
    pause_s = retry.retry_delay.ToTimedelta().total_seconds() or 1
    print(f"{info.reason or error.code().name}: the same request again in {pause_s:.1f} s", flush=True)
    return pause_s


def follow(sequence):
    """The account's events after a sequence. When the stream breaks, it goes on after the last event seen: none is missed."""
    while True:
        request = trade_service_pb2.StreamAccountEventsRequest(account_id="me", resume_after_sequence=sequence)
        try:
            for event in trades.StreamAccountEvents(request, metadata=METADATA):
                sequence = event.sequence
                yield event
        except grpc.RpcError as error:
            pause_s = pause_after(error)
            if pause_s is None:
                raise
            time.sleep(pause_s)


def main():
    wallet = call(
        wallets.InitializeWallet,
        wallet_service_pb2.InitializeWalletRequest(account_id="me", request_id=request_id()),
    )
    print("wallet:", ", ".join(f"{money.amount} {money.currency_code}" for money in wallet.balances))

    opening = trade_service_pb2.OpenTradeRequest(
        account_id="me", request_id=request_id(), symbol="SOL_USDC", side=common_pb2.SIDE_LONG, margin="100", leverage="10"
    )
    trade = call(trades.OpenTrade, opening).trade
    print(f"opened {trade.trade_id}: {trade.quantity} {trade.symbol} at {trade.entry_price}, liquidation at {trade.liquidation_price}")

    events = follow(wallet.sequence)
    next(event for event in events if event.request_id == opening.request_id)
    print(f"event: {trade.trade_id} opened")

    closing = trade_service_pb2.CloseTradeRequest(account_id="me", request_id=request_id(), trade_id=trade.trade_id)
    closed = call(trades.CloseTrade, closing)
    print(f"closed {trade.trade_id} at {closed.close_price}: profit {closed.realised_profit.amount} {closed.realised_profit.currency_code}")

    next(event for event in events if event.request_id == closing.request_id)
    print(f"event: {trade.trade_id} closed")


if __name__ == "__main__":
    main()
